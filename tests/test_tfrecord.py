"""TFRecord and TensorFlow Datasets as sources: located record by record, read by range, without TensorFlow."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packing import example_of, tfrecord_of
from PIL import Image
from small_archive import TINY_MODEL, Archive, Finished, run_job

from pipeline.sources.archives.listing import Entry, Rejected
from pipeline.sources.archives.record_files import RecordFile, list_records
from pipeline.sources.reading import FileReader

ROOT = Path(__file__).resolve().parent.parent


def _examples(archive: Archive, *, named: bool = True) -> list[bytes]:
    examples = []
    for image_id in archive.image_ids:
        features: dict[str, bytes | int] = {
            "image/height": 40,
            "image/encoded": (archive.images / image_id).read_bytes(),
            "image/segmentation/class/encoded": archive.mask_path(image_id).read_bytes(),
        }
        if named:
            features["image/filename"] = image_id.encode()
        examples.append(example_of(features))
    return examples


def _same(job: Finished, expected: Finished) -> None:
    assert job.status == 0, job.err
    assert {name: mask.tobytes() for name, mask in job.masks.items()} == {
        name: mask.tobytes() for name, mask in expected.masks.items()
    }
    for part in ("classes", "metrics", "confusion_matrix"):
        assert job.summary[part] == expected.summary[part]


@pytest.mark.parametrize("kind", ["one file", "shards", "gzip"])
def test_records_give_what_their_folder_gives(
    kind: str, archive: Archive, scored_job: Finished, tmp_path: Path
) -> None:
    examples = _examples(archive)
    if kind == "shards":
        for shard in range(3):
            path = tmp_path / f"set-train.tfrecord-{shard:05d}-of-00003"
            path.write_bytes(tfrecord_of(examples[shard::3]))
        source = tmp_path / "set-train.tfrecord*"
    else:
        source = tmp_path / "set.tfrecord"
        data = tfrecord_of(examples)
        source.write_bytes(gzip.compress(data) if kind == "gzip" else data)
    job = run_job(tmp_path / "out", "--input", source)
    _same(job, scored_job)
    assert job.summary["images"]["with_ground_truth"] == len(archive.image_ids)


def test_records_without_names_are_numbered(archive: Archive, tmp_path: Path) -> None:
    examples = _examples(archive, named=False)[:5]
    (tmp_path / "one.tfrecord").write_bytes(tfrecord_of(examples))
    for shard in range(2):
        (tmp_path / f"val.tfrecord-0000{shard}-of-00002").write_bytes(tfrecord_of(examples[2 * shard : 2 * shard + 2]))
    one = list(list_records(RecordFile(str(tmp_path / "one.tfrecord"), "one"), None))
    assert [item.name for item in one] == [f"one-{index}" for index in range(5)]
    job = run_job(tmp_path / "out", "--input", tmp_path / "val.tfrecord*", "--input", tmp_path / "one.tfrecord")
    ids = sorted(job.masks)
    assert ids == sorted(
        [f"val/val-0000{shard}-{index}" for shard in range(2) for index in range(2)]
        + [f"one/one-{index}" for index in range(5)]
    )


def _listed(path: Path) -> tuple[dict[str, bytes], list[str]]:
    read = FileReader(str(path.parent))
    items = list(list_records(RecordFile(str(path), "x"), str(path.parent / "_progress/spool")))
    pictures = {item.name: read(item.file) for item in items if isinstance(item, Entry)}
    return pictures, [item.error_type for item in items if isinstance(item, Rejected)]


@pytest.mark.parametrize("packed", [False, True])
def test_cut_broken_and_foreign_records_cost_themselves_alone(packed: bool, tmp_path: Path) -> None:
    records = [example_of({"image/encoded": bytes([n]) * 5_000, "image/filename": b"%d.png" % n}) for n in range(4)]
    records.insert(1, example_of({"text": b"no picture", "number": 7}))
    records.insert(2, b"\xff" * 40)
    whole = tfrecord_of(records)
    broken = bytearray(whole)
    broken[len(whole) - len(records[-1]) - 12] ^= 1  # within the last record's length
    expected = {f"{n}.png": bytes([n]) * 5_000 for n in range(4)}
    path = tmp_path / "x.tfrecord"
    for data, pictures, faults in (
        (whole, 4, ["NoImage", "BrokenArchive"]),
        (whole[:-3000], 3, ["NoImage", "BrokenArchive", "Truncated"]),
        (whole[:-1], 3, ["NoImage", "BrokenArchive", "Truncated"]),
        (bytes(broken), 3, ["NoImage", "BrokenArchive", "BrokenArchive"]),
        (b"this is no TFRecord", 0, ["BrokenArchive"]),
    ):
        path.write_bytes(gzip.compress(data) if packed else data)
        found, refused = _listed(path)
        assert found == dict(list(expected.items())[:pictures])
        assert refused == faults


_TFDS_JOB = """
import json, sys
import tensorflow_datasets as tfds

archives = json.loads(sys.argv[1])
tfds.download.DownloadManager.download_and_extract = lambda self, urls: self.extract(archives)
tfds.builder("oxford_iiit_pet").download_and_prepare()
from pipeline.app.launcher import main
for number, split in enumerate(("train", "train[25%:75%]", "nosuch")):
    status = main(["--input", "tfds:oxford_iiit_pet:4.0.0/" + split, "--output", f"{sys.argv[2]}/{number}", "--model", sys.argv[3]])
    print("status", status, file=sys.stderr)
"""  # noqa: E501


@pytest.mark.full
def test_tfds_gives_what_its_pictures_give_as_files(archive: Archive, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets", reason="the extra `train` is not installed")
    pytest.importorskip("importlib_resources", reason="TFDS can't build a data set without it")
    names = [f"picture_{number:02d}" for number in range(len(archive.image_ids))]
    for name, image_id in zip(names, archive.image_ids, strict=True):
        for path in (tmp_path / f"images/{name}.jpg", tmp_path / f"annotations/trimaps/{name}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"images/{name}.jpg").write_bytes((archive.images / image_id).read_bytes())
        Image.fromarray(archive.truth(image_id) + 1).save(tmp_path / f"annotations/trimaps/{name}.png")
    (tmp_path / "annotations/trainval.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
    (tmp_path / "annotations/test.txt").write_text(f"{names[0]} 1 1 1\n")
    archives = {}
    for kind in ("images", "annotations"):
        archives[kind] = str(tmp_path / f"{kind}.tar")
        with tarfile.open(archives[kind], "w") as packed:
            packed.add(tmp_path / kind, kind)
    done = subprocess.run(
        [sys.executable, "-c", _TFDS_JOB, json.dumps(archives), str(tmp_path / "out"), str(TINY_MODEL)],
        cwd=ROOT,
        env={**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if line.startswith("status")] == [
        "status 0",
        "status 0",
        "status 2",
    ], done.stderr
    folder = run_job(
        tmp_path / "folder",
        *("--input", tmp_path / "images", "--ground_truth", tmp_path / "annotations/trimaps"),
        *("--label_map", "1=0,2=1,3=2"),
    )
    _same(Finished(0, "", "", tmp_path / "out/0"), folder)
    half = Finished(0, "", "", tmp_path / "out/1").summary["images"]
    assert half["segmented"] == half["with_ground_truth"] == len(names) // 2
