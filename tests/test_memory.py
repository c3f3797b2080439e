"""The memory that a picture takes from reading to writing, measured in separate processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_SEGMENT = """
import re, sys, tempfile
import numpy as np
from pipeline.core.labels import LabelMap
from pipeline.core.process import prepare_process
from pipeline.core.recipe import Recipe
from pipeline.core.records import FileRef, Located, PictureRecord
from pipeline.engines.model_folder import open_model
from pipeline.output.outputs import Destination
from pipeline.output.registry import requested_outputs
from pipeline.segmenting.segmenter import Segmenter

class Engine:
    def logits(self, batch):
        return (batch / np.float32(255)).astype(np.float32)

def peak_bytes():
    # Not getrusage: its peak counts what the parent held when it made this process.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

image, truth, model, *outputs = sys.argv[1:]
prepare_process()
recipe = Recipe(open_model(model).spec, "digest", LabelMap.identity(3), None, 10**9)
options = {"mask_format": "png", "overlays": "overlays" in outputs, "probabilities": "probabilities" in outputs}
picture = Located("a", FileRef(image), FileRef(truth), overlay=True)
with tempfile.TemporaryDirectory() as folder:
    destination = Destination(folder, requested_outputs(options, recipe))
    segmenter = Segmenter(recipe, destination, Engine())
    before = peak_bytes()
    (record,), _ = segmenter.segment([picture])
assert isinstance(record, PictureRecord) and not record.truth_failure, record
print(peak_bytes() - before)
"""

SIZES = ((2000, 1500), (5000, 3000))
"""Width and height, px."""


def _draw(folder: Path, width: int, height: int) -> tuple[Path, Path]:
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image, truth = folder / f"{width}.jpg", folder / f"{width}.png"
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(image)
    Image.new("L", (width, height), 1).save(truth)
    return image, truth


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's peak as Linux says it")
@pytest.mark.parametrize(
    ("outputs", "bytes_a_pixel"),
    [((), 10), (("overlays",), 13), (("overlays", "probabilities"), 16)],
)
def test_bytes_a_pixel(tmp_path: Path, tiny_model: Path, outputs: tuple[str, ...], bytes_a_pixel: int) -> None:
    root = Path(__file__).parent.parent
    peaks = []
    for width, height in SIZES:
        image, truth = _draw(tmp_path, width, height)
        command = [sys.executable, "-c", _SEGMENT, str(image), str(truth), str(tiny_model), *outputs]
        run = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        peaks.append(int(run.stdout))
    # What doesn't depend on the picture's size falls out of the difference.
    small_px, large_px = (width * height for width, height in SIZES)
    assert (peaks[1] - peaks[0]) / (large_px - small_px) <= bytes_a_pixel
    assert peaks[1] <= bytes_a_pixel * large_px + (64 << 20)
