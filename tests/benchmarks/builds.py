"""How far results are apart where libraries take other code paths, as they do on other CPUs and in other builds.

    python tests/benchmarks/builds.py --images FOLDER --model MODEL [--precision int8] [--pictures 50] [--json FILE]

The masks and probabilities of the first pictures by name, each row in a separate process, compared with those of the
first row: without Intel's IPP in OpenCV; with OpenCV and NumPy on their oldest instructions; and with LiteRT's plain
kernels in place of XNNPACK's, which represent the kernels of another CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.decode import has_picture_ending

VARIANTS: dict[str, dict[str, str]] = {
    "as it is": {},
    "OpenCV without IPP": {"OPENCV_IPP": "disabled"},
    "OpenCV on SSE3": {"OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FMA3,AVX,FP16,SSE4.2,SSE4.1"},
    "NumPy on its baseline": {"NPY_DISABLE_CPU_FEATURES": "AVX512_SPR,AVX512_ICL,X86_V4,X86_V3"},
    "LiteRT without XNNPACK": {"MASKBEAM_PLAIN_KERNELS": "1"},
}


def segment_all(images: list[str], model_name: str, precision: str, target: str) -> None:
    """Segments pictures and keeps their masks and probabilities; run in a separate process."""
    from ai_edge_litert import interpreter

    from pipeline.segmenting.segmentation import load_model

    if "MASKBEAM_PLAIN_KERNELS" in os.environ:
        from pipeline.engines import litert

        plain = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        litert.Interpreter = lambda **options: interpreter.Interpreter(  # type: ignore[assignment,misc]
            **options, experimental_op_resolver_type=plain
        )
    model = load_model(model_name, backend="litert", precision=precision)
    arrays = {}
    for number, image in enumerate(images):
        found = model.segment(image, probabilities=True)
        arrays[f"mask{number}"], arrays[f"probabilities{number}"] = found.mask, found.probabilities
    np.savez(target, **arrays)  # type: ignore[arg-type]


def compared(first: Any, other: Any) -> dict[str, int]:
    """How many pixels of the masks and values of the probabilities differ, and by how much at most."""
    row = {"mask_px": 0, "differing_mask_px": 0, "differing_probabilities": 0, "largest_difference": 0}
    for name in first.files:
        if name.startswith("mask"):
            row["mask_px"] += first[name].size
            row["differing_mask_px"] += int((first[name] != other[name]).sum())
        else:
            difference = np.abs(first[name].astype(np.int16) - other[name])
            row["differing_probabilities"] += int((difference > 0).sum())
            row["largest_difference"] = max(row["largest_difference"], int(difference.max()))
    return row


def main() -> None:
    """Runs every variant and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = sorted(str(path) for path in arguments.images.rglob("*") if has_picture_ending(path.name))
    images = names[: arguments.pictures]
    rows: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (variant, switches) in enumerate(VARIANTS.items()):
            target = os.path.join(folder, f"{number}.npz")
            values = images, arguments.model, arguments.precision, target
            call = f"import builds; builds.segment_all(*{values!r})"
            path = os.pathsep.join([os.path.dirname(os.path.abspath(__file__)), *sys.path])
            environment = {**os.environ, "PYTHONPATH": path, **switches}
            subprocess.run([sys.executable, "-c", call], env=environment, check=True, stderr=subprocess.DEVNULL)
            with np.load(os.path.join(folder, "0.npz")) as first, np.load(target) as other:
                rows[variant] = compared(first, other)
    print(
        f"{len(images)} pictures, {rows['as it is']['mask_px']:,} pixels\n{'':24s} mask px   probabilities   by at most"
    )
    for variant, row in rows.items():
        differing = row["differing_mask_px"], row["differing_probabilities"], row["largest_difference"]
        print(f"{variant:24s} {differing[0]:7,d} {differing[1]:15,d} {differing[2]:9d}/255")
    if arguments.json:
        arguments.json.write_text(json.dumps({"pictures": len(images), "variants": rows}, indent=2))


if __name__ == "__main__":
    main()
