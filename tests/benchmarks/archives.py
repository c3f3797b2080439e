"""Archives at size: two workers' shares, what a bucket sends, and nine ways to the same numbers.

    python tests/benchmarks/archives.py workers [--members 20000] [--json FILE]
    python tests/benchmarks/archives.py bucket [--members 20000] [--json FILE]
    python tests/benchmarks/archives.py ways --images FOLDER --masks FOLDER --label_map 1=0,2=1,3=2 --model pets

`workers` and `bucket` draw their pictures themselves and take the tests' tiny model. `ways` needs the extras gcp, aws,
train and test: buckets are emulators on loopback ports, and TFDS's `oxford_iiit_pet` is built of the pictures on the
spot, so that none may lie in a folder below and all are called .jpg.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from emulators import EMULATORS, Emulator, amazon
from packing import example_of, files_below, pack, tar_of, tfrecord_of
from small_archive import TINY_MODEL, Finished, draw_picture, run_job

from pipeline.stages import storage
from pipeline.stages.sources import pairing_key
from pipeline.stages.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
_SIDE_PX = 96
_DIFFERENT = 50
Row = dict[str, Any]


def _tar(members: int) -> bytes:
    """A tar of so many drawn pictures, fifty different ones in turn."""
    drawn = []
    for seed in range(_DIFFERENT):
        buffer = io.BytesIO()
        Image.fromarray(draw_picture(seed, _SIDE_PX, _SIDE_PX)).save(buffer, "PNG")
        drawn.append(buffer.getvalue())
    return tar_of({f"{number:07d}.png": drawn[number % _DIFFERENT] for number in range(members)})


def workers(members: int, folder: Path) -> list[Row]:
    """Segments one tar on two worker processes, and notes what each reports as it goes.

    Returns:
        A row a worker: its pictures, and when its first and its last were done, seconds after the job's first.
    """
    archive = folder / "large.tar"
    archive.write_bytes(_tar(members))
    seen: dict[str, list[tuple[float, int]]] = {}
    receive = Tally.receive

    def noted(tally: Tally, datagram: bytes) -> bool:
        if not receive(tally, datagram):
            return False
        message = json.loads(datagram)
        if message["done"]:
            seen.setdefault(message["sender"], []).append((time.monotonic(), message["done"]))
        return True

    with mock.patch.object(Tally, "receive", noted):
        mode = ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)
        job = run_job(folder / "out", "--input", archive, "--mask_format", "none", *mode)
    _check(job, members)
    begin = min(reports[0][0] for reports in seen.values())
    return [
        {
            "worker": number,
            "pictures": reports[-1][1],
            "first_after_s": round(reports[0][0] - begin, 2),
            "last_after_s": round(reports[-1][0] - begin, 2),
        }
        for number, reports in enumerate(sorted(seen.values(), key=lambda reports: reports[0]), start=1)
    ]


def bucket(members: int, folder: Path) -> list[Row]:
    """Segments one tar that lies in an emulated bucket.

    Returns:
        One row: the archive's size, and what of it was sent.
    """
    data = _tar(members)
    with amazon() as store:
        storage.configure(store.options)
        uri = f"{store.root}/large.tar"
        storage.write_bytes(uri, data)
        job = run_job(folder / "out", "--input", uri, "--mask_format", "none", *store.options)
        _check(job, members)
        sent = [size for path, size in store.sent if path == uri]
    storage.configure([])
    row = {"members": members, "archive_mb": round(len(data) / 1e6, 1), "requests": len(sent)}
    return [row | {"sent_mb": round(sum(sent) / 1e6, 1), "sent_to_archive": round(sum(sent) / len(data), 4)}]


def _check(job: Finished, members: int) -> None:
    if job.status or job.summary["images"]["segmented"] != members:
        raise RuntimeError(f"status {job.status}: {job.err}")


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
    for scheme in EMULATORS:
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
    """Builds TFDS's own `oxford_iiit_pet` of the pictures, in a process of its own, and runs the job on it."""
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
            storage.write_bytes(f"{store.root}/set/{name}", data)
        sources = ["--input", f"{store.root}/set/images", "--ground_truth", f"{store.root}/set/masks"]
        output = folder / f"out-{scheme}"
        return run_job(output, *sources, "--label_map", label_map, *store.options, model=model)


@contextlib.contextmanager
def _configured(store: Emulator) -> Iterator[None]:
    storage.configure(store.options)
    try:
        yield
    finally:
        storage.configure([])


def _masks(job: Finished) -> dict[str, bytes]:
    """The masks' files by the picture's name without its ending: TFDS calls all pictures JPEG."""
    files = files_below(job.output / "masks")
    return {pairing_key(name.removesuffix(".png")): data for name, data in files.items()}


def main() -> None:
    """Measures what the command line names, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("workers", "bucket"):
        sized = kinds.add_parser(kind)
        sized.add_argument("--members", type=int, default=20_000)
        sized.add_argument("--json", type=Path)
    nine = kinds.add_parser("ways")
    nine.add_argument("--images", type=Path, required=True)
    nine.add_argument("--masks", type=Path, required=True)
    nine.add_argument("--label_map", required=True)
    nine.add_argument("--model", default=str(TINY_MODEL))
    nine.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.chdir(ROOT)  # where worker processes find the code
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.kind == "ways":
            sources = arguments.images.resolve(), arguments.masks.resolve()
            rows = ways(*sources, arguments.label_map, arguments.model, Path(folder))
        else:
            rows = {"workers": workers, "bucket": bucket}[arguments.kind](arguments.members, Path(folder))
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print(
            "| "
            + " | ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in row.values())
            + " |"
        )
    print(f"{time.monotonic() - begin:.0f} s in all", file=sys.stderr)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
