"""What each stage of a picture's way costs, beside the bare library call beneath it, and the floor that follows.

    python tests/benchmarks/stages.py --images FOLDER --model MODEL [--masks FOLDER --label_map 1=0,2=1] [--json FILE]

CPU milliseconds a picture of one thread, the mean over the pictures; the stages in turn with their bare calls, so that
both see the same machine. The floor is what the cores could do if nothing but the bare calls and the engine existed:
cores / (engine + bare calls), in pictures a second.
"""

import argparse
import io
import json
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.core.labels import LabelMap
from pipeline.core.process import prepare_process
from pipeline.core.recipe import Recipe
from pipeline.core.records import FileRef, Located, PictureRecord
from pipeline.core.totals import Totals
from pipeline.engines.base import Engine
from pipeline.engines.load import load_engine, usable_cores
from pipeline.engines.model_folder import open_model
from pipeline.output.mask_output import MaskOutput
from pipeline.output.outputs import Destination
from pipeline.output.tables import pictures_parquet
from pipeline.segmenting.segmenter import Segmenter
from pipeline.sources.source import Listed
from pipeline.sources.sources import parse_sources


def thread_ms(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU milliseconds of this thread that a call takes, and what it gives."""
    start = time.thread_time()
    value = call()
    return (time.thread_time() - start) * 1e3, value


def located(images: Path, masks: Path | None) -> list[Located]:
    """The pictures and their masks, as the job pairs them."""
    ((source,),) = parse_sources([str(images)], "--input")
    truths: dict[str, FileRef] = {}
    if masks:
        ((truth_source,),) = parse_sources([str(masks)], "--ground_truth")
        truths = {i.pairing_key: i.file for i in truth_source.items() if isinstance(i, Listed)}
    listed = [item for item in source.items() if isinstance(item, Listed)]
    return [Located(item.image_id, item.file, truths.get(item.pairing_key)) for item in listed]


def bare_calls(picture: Located, size: int, num_classes: int, engine: Engine, folder: Path) -> dict[str, float]:
    """Only the necessary library calls."""
    cost: dict[str, float] = {}
    cost["read"], data = thread_ms(lambda: Path(picture.image.uri).read_bytes())
    cost["decode"], image = thread_ms(lambda: Image.open(io.BytesIO(data)).convert("RGB"))
    cost["resize"], pixels = thread_ms(lambda: np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
    cost["infer"], (logits,) = thread_ms(lambda: engine.logits(pixels[None]))

    def back() -> Any:
        planes = [cv2.resize(np.ascontiguousarray(logits[..., k]), image.size) for k in range(num_classes)]
        best, mask = planes[0], np.zeros(planes[0].shape, np.uint8)
        for k in range(1, num_classes):
            mask = np.maximum(mask, (planes[k] > best) * np.uint8(k))
            best = np.maximum(best, planes[k])
        return mask

    cost["mask"], mask = thread_ms(back)
    if picture.truth is not None:
        cost["read"] += thread_ms(lambda: Path(picture.truth.uri).read_bytes())[0]  # type: ignore[union-attr]
        truth_data = Path(picture.truth.uri).read_bytes()
        cost["truth"], truth = thread_ms(lambda: np.asarray(Image.open(io.BytesIO(truth_data))))
        if truth.shape == mask.shape:
            cost["count"], _ = thread_ms(
                lambda: np.bincount((truth.astype(np.uint16) * num_classes + mask).reshape(-1), minlength=12)
            )
    else:
        cost["count"], _ = thread_ms(lambda: np.bincount(mask.reshape(-1), minlength=num_classes))

    def encode() -> bytes:
        picture_p = Image.fromarray(mask)
        picture_p.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        buffer = io.BytesIO()
        picture_p.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_DEFAULT_STRATEGY)
        return buffer.getvalue()

    cost["encode"], png = thread_ms(encode)
    cost["write"], _ = thread_ms(lambda: (folder / "mask.png").write_bytes(png))
    return cost


def main() -> None:
    """Runs both ways over all pictures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--label_map")
    parser.add_argument("--model", required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prepare_process()
    model = open_model(arguments.model)
    engine = load_engine(model, 1)
    label_map = LabelMap.parse(arguments.label_map) if arguments.label_map else model.spec.labels()
    pictures = located(arguments.images, arguments.masks)
    ours: dict[str, float] = defaultdict(float)
    bare: dict[str, float] = defaultdict(float)
    totals = Totals(model.spec.num_classes)
    records = []
    # The stages' clock is wall time, for users; here each thread's own CPU time is wanted, whatever else runs.
    time.perf_counter = time.thread_time  # type: ignore[assignment]
    pictures_parquet([], model.spec.class_names, model.digest)  # its libraries are imported
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(model.spec, model.digest, label_map, model.spec.ignore_label, 10**9)
        segmenter = Segmenter(recipe, Destination(folder, (MaskOutput(recipe),)), engine)
        for picture in pictures:
            whole_ms, ((outcome,), seconds) = thread_ms(lambda p=picture: segmenter.segment([p]))
            for stage, value in seconds.items():
                ours[stage] += value * 1e3
            ours["between the stages"] += whole_ms - sum(seconds.values()) * 1e3
            if isinstance(outcome, PictureRecord):
                records.append(outcome)
                ours["add up"] += thread_ms(lambda o=outcome: totals.add(o))[0]
            for stage, value in bare_calls(
                picture, model.spec.width, model.spec.num_classes, engine, Path(folder)
            ).items():
                bare[stage] += value
        ours["tables"] = thread_ms(lambda: pictures_parquet(records, model.spec.class_names, model.digest))[0]
    report(ours, bare, len(pictures), arguments.json)


def report(ours: dict[str, float], bare: dict[str, float], pictures: int, target: Path | None) -> None:
    """Prints and writes the table."""
    print(f"{pictures} pictures, CPU ms a picture\n{'stage':20s} {'ours':>8s} {'bare call':>10s}")
    for stage in sorted(ours, key=lambda name: -ours[name]):
        beneath = f"{bare[stage] / pictures:10.3f}" if stage in bare else f"{'–':>10s}"
        print(f"{stage:20s} {ours[stage] / pictures:8.3f} {beneath}")
    our_ms, bare_ms = sum(ours.values()) / pictures, sum(bare.values()) / pictures
    floor = usable_cores() * 1e3 / bare_ms
    print(f"{'sum':20s} {our_ms:8.3f} {bare_ms:10.3f}")
    print(f"floor: {floor:.2f} pictures/s on {usable_cores()} cores; CPU of ours beside it: {bare_ms / our_ms:.3f}")
    if target:
        rows = {stage: {"ours_ms": ours[stage] / pictures, "bare_ms": bare.get(stage, 0) / pictures} for stage in ours}
        target.write_text(json.dumps({"pictures": pictures, "floor_pictures_per_s": floor, "stages": rows}, indent=2))


if __name__ == "__main__":
    main()
