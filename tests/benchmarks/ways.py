"""Nine ways to the same pictures: nine runs of the job that must end with equal masks and one confusion matrix.

    python tests/benchmarks/ways.py --images FOLDER --masks FOLDER --label_map 1=0,2=1,3=2 --model pets [--json FILE]

The ways are a folder, tar, tar.gz, zip, TFRecord, a manifest, TFDS, and emulated buckets of Google's and Amazon's kind
on loopback ports. Needs the extras gcp, aws, train and test. TFDS's `oxford_iiit_pet` is built of the pictures on the
spot, so that none may lie in a folder below and all are called .jpg.
"""

import argparse
import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from archives import ROOT, Row, print_table
from emulators import EMULATORS, Emulator
from packing import example_of, files_below, pack, tar_of, tfrecord_of
from small_archive import TINY_MODEL, Finished, run_job

from pipeline.sources.source import pairing_key
from pipeline.storage import filesystem


def ways(images: Path, masks: Path, label_map: str, model: str, folder: Path) -> list[Row]:
    """Segments and scores the same pictures in nine ways.

    Returns:
        A row a way: pictures, scores, and whether masks and confusion matrix are those of the folder.
    """
    pictures = _chosen(images, masks, folder)
    runs: dict[str, Callable[[], Finished]] = {}

    def local(name: str, *arguments: object) -> None:
        runs[name] = lambda: run_job(folder / f"out-{len(done)}", *arguments, "--label_map", label_map, model=model)

    done: dict[str, Finished] = {}
    local("folder", "--input", pictures / "images", "--ground_truth", pictures / "masks")
    for ending in ("tar", "tar.gz", "zip"):
        packed = [pack(pictures / kind, folder / f"{kind}.{ending}") for kind in ("images", "masks")]
        local(ending, "--input", packed[0], "--ground_truth", packed[1])
    (folder / "set.tfrecord").write_bytes(tfrecord_of(_examples(pictures)))
    local("TFRecord", "--input", folder / "set.tfrecord")
    _write_manifest(pictures, folder / "set.csv")
    local("manifest", "--input", folder / "set.csv")
    runs["TFDS"] = lambda: _tfds(pictures, label_map, model, folder)
    for scheme in ("gs", "s3"):
        runs[f"{scheme}://"] = lambda scheme=scheme: _in_bucket(scheme, pictures, label_map, model, folder)
    for name, run in runs.items():
        print(f"… {name}", file=sys.stderr, flush=True)
        done[name] = run()
        if done[name].status:
            raise RuntimeError(f"{name}: status {done[name].status}: {done[name].err}")
    first = done["folder"]
    return [
        {
            "way": name,
            "pictures": job.summary["images"]["segmented"],
            "with_truth": job.summary["images"]["with_ground_truth"],
            "mean_iou": job.summary["metrics"]["global_mean_iou"],
            "same_masks": _masks(job) == _masks(first),
            "same_matrix": job.summary["confusion_matrix"] == first.summary["confusion_matrix"],
        }
        for name, job in done.items()
    ]


def _chosen(images: Path, masks: Path, folder: Path) -> Path:
    """Copies the pictures that have a mask, and the masks."""
    chosen = folder / "chosen"
    for name in files_below(images):
        mask = Path(name).with_suffix(".png")
        if not (masks / mask).is_file():
            continue
        for source, target in ((images / name, chosen / "images" / name), (masks / mask, chosen / "masks" / mask)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return chosen


def _examples(pictures: Path) -> Iterator[bytes]:
    masks = files_below(pictures / "masks")
    for name, data in files_below(pictures / "images").items():
        mask = masks[str(Path(name).with_suffix(".png"))]
        names = {"image/filename": name.encode()}
        yield example_of({"image/encoded": data, "image/segmentation/class/encoded": mask, **names})


def _write_manifest(pictures: Path, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "mask"])
        for name in files_below(pictures / "images"):
            rows.writerow([pictures / "images" / name, (pictures / "masks" / name).with_suffix(".png")])


_TFDS_JOB = """
import json, sys
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.oxford_iiit_pet import oxford_iiit_pet_dataset_builder

# It encodes some of the set's files anew, by their names, which changes their pixels; a GIF among them breaks it.
oxford_iiit_pet_dataset_builder._CORRUPT_SAMPLES = ()
archives = json.loads(sys.argv[1])
tfds.download.DownloadManager.download_and_extract = lambda self, urls: self.extract(archives)
tfds.builder("oxford_iiit_pet").download_and_prepare()
from pipeline.app.launcher import main
sys.exit(main(["--input", "tfds:oxford_iiit_pet:4.0.0/train", *sys.argv[2:]]))
"""


def _tfds(pictures: Path, label_map: str, model: str, folder: Path) -> Finished:
    """Builds TFDS's own `oxford_iiit_pet` of the pictures, in a separate process, and runs the job on it."""
    (folder / "annotations").mkdir()
    shutil.copytree(pictures / "masks", folder / "annotations/trimaps")
    names = [Path(name).stem for name in files_below(pictures / "images")]
    (folder / "annotations/trainval.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
    (folder / "annotations/test.txt").write_text(f"{names[0]} 1 1 1\n")
    archives = {kind: str(folder / f"tfds-{kind}.tar") for kind in ("images", "annotations")}
    for kind, parent in (("images", pictures), ("annotations", folder)):
        files = {f"{kind}/{name}": data for name, data in files_below(parent / kind).items()}
        Path(archives[kind]).write_bytes(tar_of(files))
    options = ["--output", str(folder / "out-tfds"), "--model", model, "--label_map", label_map]
    finished = subprocess.run(
        [sys.executable, "-c", _TFDS_JOB, json.dumps(archives), *options],
        cwd=ROOT,
        env={**os.environ, "TFDS_DATA_DIR": str(folder / "tfds")},
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr[-2_000:], folder / "out-tfds")


def _in_bucket(scheme: str, pictures: Path, label_map: str, model: str, folder: Path) -> Finished:
    with EMULATORS[scheme]() as store, _configured(store):
        for name, data in files_below(pictures).items():
            filesystem.write_bytes(f"{store.root}/set/{name}", data)
        sources = ["--input", f"{store.root}/set/images", "--ground_truth", f"{store.root}/set/masks"]
        output = folder / f"out-{scheme}"
        return run_job(output, *sources, "--label_map", label_map, *store.options, model=model)


@contextlib.contextmanager
def _configured(store: Emulator) -> Iterator[None]:
    filesystem.configure(store.options)
    try:
        yield
    finally:
        filesystem.configure([])


def _masks(job: Finished) -> dict[str, bytes]:
    """The masks' files by the picture's name without its ending: TFDS calls all pictures JPEG."""
    files = files_below(job.output / "masks")
    return {pairing_key(name.removesuffix(".png")): data for name, data in files.items()}


def main() -> None:
    """Runs the nine ways, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--label_map", required=True)
    parser.add_argument("--model", default=str(TINY_MODEL))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sources = arguments.images.resolve(), arguments.masks.resolve()
    with tempfile.TemporaryDirectory() as folder:
        rows = ways(*sources, arguments.label_map, arguments.model, Path(folder))
    print_table(rows)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
