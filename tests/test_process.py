"""What importing the library leaves alone, and what `prepare_process` sets."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import cv2

from pipeline.core.process import library_builds, prepare_process

ROOT = Path(__file__).resolve().parent.parent

_IMPORT_CORE = """
import importlib, pkgutil, tracemalloc
import cv2, numpy, PIL.Image
import pipeline.core
from PIL import ImageFile, TiffImagePlugin
import warnings
cv2.setNumThreads(3)
uses_ipp = cv2.ipp.useIPP()
PIL.Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = 1234, True
load, filters = TiffImagePlugin.ImageFileDirectory_v2.load, list(warnings.filters)
tracemalloc.start()
for module in pkgutil.iter_modules(pipeline.core.__path__):
    importlib.import_module(f"pipeline.core.{module.name}")
assert cv2.getNumThreads() == 3, cv2.getNumThreads()
assert cv2.ipp.useIPP() == uses_ipp
peak_bytes = tracemalloc.get_traced_memory()[1]
assert peak_bytes < 16 << 20, peak_bytes
assert (PIL.Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (1234, True)
assert TiffImagePlugin.ImageFileDirectory_v2.load is load
assert warnings.filters == filters
"""


def test_importing_the_core_changes_nothing_in_opencv_pillow_and_warnings_and_takes_no_large_block() -> None:
    run = subprocess.run([sys.executable, "-c", _IMPORT_CORE], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_prepared_process_runs_opencv_on_one_thread() -> None:
    before = cv2.getNumThreads()
    prepare_process.cache_clear()
    cv2.setNumThreads(3)
    try:
        prepare_process()
        assert cv2.getNumThreads() == 1
        cv2.setNumThreads(2)
        prepare_process()
        assert cv2.getNumThreads() == 2  # set once
    finally:
        cv2.setNumThreads(before)


_DECODE_UNPREPARED = """
import io
from PIL import Image
from pipeline.core.decode import decode_image
from pipeline.core.errors import PictureError
from pipeline.core.process import prepare_process
file = io.BytesIO()
Image.new("1", (20_000, 20_000)).save(file, "PNG")
try:
    decode_image(file.getvalue(), max_pixels=None)
except PictureError as error:
    assert error.error_type == "TooLarge", error.error_type
else:
    raise SystemExit("not refused")
prepare_process()
assert decode_image(file.getvalue(), channels=1, max_pixels=None).pixels.shape == (20_000, 20_000, 1)
"""


def test_pillows_own_limit_counts_only_in_a_process_that_is_not_prepared() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _DECODE_UNPREPARED], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_builds_name_what_chooses_the_kernels() -> None:
    builds = library_builds()
    assert set(builds) == {"cpu", "opencv_build"}
    machine, *features = builds["cpu"].split()
    assert machine == platform.machine()
    assert features == [name.strip("*") for name in cv2.getCPUFeaturesLine().split() if "?" not in name]
    assert builds["opencv_build"].startswith(cv2.getVersionString())
    run = subprocess.run(
        [sys.executable, "-c", "from pipeline.core.process import library_builds; print(library_builds())"],
        cwd=ROOT,
        env={**os.environ, "OPENCV_CPU_DISABLE": "AVX2,AVX512-SKX", "OPENCV_IPP": "disabled"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "AVX2" not in run.stdout
    assert "without IPP" in run.stdout
