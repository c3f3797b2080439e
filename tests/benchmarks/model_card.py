"""A model's scores on the pictures that its training kept, with intervals, by the job itself; and where it fails.

    python -m tests.benchmarks.model_card --model pets --dataset FOLDER --output DIR --foreground pet

FOLDER holds images/ and masks/. The kept pictures are found by `split.json` of the model. A job is run on them with
each precision. Prints the scores in Markdown, the IoU of the class --foreground by its share of the picture, and the
pictures where it is lowest. With --limitations TEXT the intervals, the scores of int8 and the text are written into the
model's metadata.json.
"""

import argparse
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from pipeline.core.decode import decode_mask
from pipeline.core.spec import METADATA_FILE, ModelSpec
from pipeline.core.split_digests import SPLIT_FILE, TEST, SplitDigests, picture_digest
from pipeline.engines.model_folder import folder_of
from tests.benchmarks.training_changes import Rows, listed, write_manifest

PRECISIONS = ("float32", "int8")
SHARES = (0.0, 0.15, 0.3, 0.5, 1.0)
LOWEST = 5


def kept_rows(dataset: Path, split: SplitDigests) -> Rows:
    """The pictures of a folder that the training kept."""
    return [row for row in listed(dataset) if split.part_of(picture_digest(row[1].read_bytes())) == TEST]


def run(model: str, spec: ModelSpec, manifest: Path, output: Path, precision: str) -> dict[str, Any]:
    """Runs a job and returns its `summary.json`."""
    label_map = ",".join(f"{raw}={class_id}" for raw, class_id in spec.label_map.items())
    command = [sys.executable, "-m", "pipeline", "--input", str(manifest), "--model", model, "--output", str(output)]
    command += ["--precision", precision, "--existing", "overwrite", *(["--label_map", label_map] if label_map else [])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads((output / "summary.json").read_text()))


def with_card(spec: ModelSpec, summaries: dict[str, dict[str, Any]], limitations: str) -> ModelSpec:
    """Adds the intervals, the scores of int8 and the limitations to the metadata."""
    scores = dict(spec.scores)
    first, int8 = (summaries[precision]["metrics"] for precision in PRECISIONS)
    for name in [name for name in scores if f"{name}_ci95" in first]:
        scores[f"{name}_ci95"] = [round(bound, 4) for bound in first[f"{name}_ci95"]]
    scores["int8"] = {"global_mean_iou": round(int8["global_mean_iou"], 6)}
    for row in summaries["float32"]["classes"]:
        scores["classes"][row["name"]]["iou_ci95"] = [round(bound, 4) for bound in row["iou_ci95"]]
    return replace(spec, scores=scores, training=spec.training | {"limitations": limitations})


def by_share(rows: Rows, spec: ModelSpec, output: Path, class_id: int) -> None:
    """Prints the mean IoU of a class by its share of the picture, and the pictures where it is lowest."""
    labels = spec.labels()
    shares = {}
    for image_id, _, mask in rows:
        values = np.asarray(decode_mask(mask.read_bytes()).values)
        raw = [value for value, target in labels.class_of_value.items() if target == class_id]
        shares[image_id] = float(np.isin(values, raw).mean())
    name = spec.class_names[class_id]
    query = f"SELECT image_id, iou_{name} FROM '{output}/images/*.parquet' WHERE iou_{name} IS NOT NULL"
    iou = dict(duckdb.sql(query).fetchall())
    print(f"\n| share of the picture that is {name} | pictures | mean IoU of {name} |\n|---|---:|---:|")
    for low, high in itertools.pairwise(SHARES):
        found = [value for image_id, value in iou.items() if low <= shares[image_id] < high]
        mean = f"{np.mean(found):.3f}" if found else ""
        print(f"| {low:.0%} to {high:.0%} | {len(found)} | {mean} |")
    lowest = sorted(iou, key=iou.__getitem__)[:LOWEST]
    print("\nlowest: " + ", ".join(f"{image_id} {iou[image_id]:.3f}" for image_id in lowest))


def main() -> None:
    """Runs the jobs and prints."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--model", required=True, help="a carried model's name or a folder")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--foreground", required=True, help="the class whose failures are listed")
    parser.add_argument("--limitations", metavar="TEXT", help="where it fails; goes into metadata.json with the scores")
    arguments = parser.parse_args()
    folder, output = Path(folder_of(arguments.model)), Path(arguments.output)
    spec = ModelSpec.from_json((folder / METADATA_FILE).read_text())
    rows = kept_rows(Path(arguments.dataset), SplitDigests.from_json((folder / SPLIT_FILE).read_text()))
    manifest = output / "kept.csv"
    write_manifest(manifest, rows)
    summaries = {name: run(arguments.model, spec, manifest, output / name, name) for name in PRECISIONS}
    print(f"{len(rows)} kept pictures\n\n| score | " + " | ".join(PRECISIONS) + " |\n|---|---|---|")

    def cell(values: dict[str, Any], score: str) -> str:
        low, high = values[f"{score}_ci95"]
        return f"{values[score]:.3f} ({low:.3f} to {high:.3f})"

    for score in ("global_mean_iou", "global_mean_dice", "samplewise_mean_iou", "pixel_accuracy"):
        print(f"| `{score}` | " + " | ".join(cell(summaries[name]["metrics"], score) for name in PRECISIONS) + " |")
    for class_id, name in enumerate(spec.class_names):
        cells = [cell(summaries[precision]["classes"][class_id], "iou") for precision in PRECISIONS]
        print(f"| IoU {name} | " + " | ".join(cells) + " |")
    by_share(rows, spec, output / "float32", spec.class_names.index(arguments.foreground))
    if arguments.limitations:
        (folder / METADATA_FILE).write_text(with_card(spec, summaries, arguments.limitations).to_json())


if __name__ == "__main__":
    main()
