"""Buckets of Google's and Amazon's kind, over HTTP: a whole job from and to a bucket equals the local one."""

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from emulators import EMULATORS, PARAMETERS, Emulator
from packing import files_below, tar_of, zip_of
from PIL import Image
from small_archive import TINY_MODEL, Archive, Finished, draw_picture, run_job

from pipeline.storage import filesystem, store_pool

pytest.importorskip("moto", reason="the extra `test` is not installed")


@pytest.fixture(scope="module", params=PARAMETERS)
def store(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with EMULATORS[request.param]() as emulator:
        filesystem.configure(emulator.options)
        yield emulator
    filesystem.configure([])


def test_objects_are_written_listed_read_and_deleted(store: Emulator) -> None:
    root = f"{store.root}/things"
    data = bytes(range(256)) * 40
    names = ["a.png", "deep/er/b.png", "deep/c [1].png", "deep/ünï.png", "empty"]
    for name in names:
        filesystem.write_bytes(f"{root}/{name}", b"" if name == "empty" else data)
    assert sorted(stored.uri for stored in filesystem.list_files(root)) == sorted(f"{root}/{name}" for name in names)
    stored = filesystem.stat_file(f"{root}/a.png")
    assert stored.size_bytes == len(data)
    assert stored.version
    (listed,) = (other for other in filesystem.list_files(root) if other.uri == stored.uri)
    assert (listed.size_bytes, listed.version) == (stored.size_bytes, stored.version)
    # A listing may have the time in fractions of a second where the object's own headers have seconds.
    assert abs(listed.modified_ns - stored.modified_ns) < 10**9
    assert abs(stored.modified_ns - time.time_ns()) < 60 * 10**9
    assert filesystem.read_bytes(f"{root}/a.png") == data
    assert filesystem.read_bytes(f"{root}/empty") == b""
    assert filesystem.read_range(f"{root}/a.png", 100, 50) == data[100:150]
    assert filesystem.read_range(f"{root}/a.png", len(data) - 5, 50) == data[-5:]
    assert filesystem.read_range(f"{root}/a.png", len(data), 50) == b""
    assert b"".join(filesystem.read_pieces(f"{root}/a.png")) == data
    for pattern, expected in (("*.png", 1), ("**/*.png", 4), ("deep/*.png", 2), ("deep/?.png", 0), ("[ab].png", 1)):
        assert len(list(filesystem.list_glob(f"{root}/{pattern}"))) == expected, pattern
    assert filesystem.exists(f"{root}/a.png")
    assert not filesystem.exists(f"{root}/a")
    assert filesystem.is_folder(f"{root}/deep")
    assert not filesystem.is_folder(f"{root}/de")
    assert filesystem.is_folder(store.root)
    assert not filesystem.exists(store.root)
    with pytest.raises(FileNotFoundError, match="no object is named"):
        filesystem.write_bytes(store.root, b"")
    with pytest.raises(FileNotFoundError):
        filesystem.read_bytes(f"{root}/none")
    with pytest.raises(FileNotFoundError):
        filesystem.stat_file(f"{root}/none")
    filesystem.delete(f"{root}/none")
    filesystem.delete_folder(root)
    assert list(filesystem.list_files(root)) == []


def test_a_conditional_write_succeeds_once(store: Emulator) -> None:
    uri = f"{store.root}/leases/lease"
    assert not filesystem.replace_if_unchanged(uri, b"none", "1")
    assert not filesystem.exists(uri)
    assert filesystem.write_if_absent(uri, b"first")
    assert not filesystem.write_if_absent(uri, b"second")
    assert filesystem.read_bytes(uri) == b"first"
    before = filesystem.stat_file(uri).version
    assert filesystem.replace_if_unchanged(uri, b"third", before)
    assert not filesystem.replace_if_unchanged(uri, b"fourth", before)
    assert filesystem.read_bytes(uri) == b"third"
    # A repeated request whose first answer was lost is refused by the store; what it wrote decides.
    assert filesystem.replace_if_unchanged(uri, b"third", before)
    filesystem.delete(uri)
    assert not filesystem.replace_if_unchanged(uri, b"fifth", before)
    assert not filesystem.exists(uri)


def _upload(folder: Path, uri: str) -> None:
    for name, data in files_below(folder).items():
        filesystem.write_bytes(f"{uri}/{name}", data)


def _download(uri: str, folder: Path) -> None:
    for stored in filesystem.list_files(uri):
        path = folder / stored.uri.removeprefix(f"{uri}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(filesystem.read_bytes(stored.uri))


def _run(store: Emulator, folder: Path, *arguments: object, model: str) -> Finished:
    uri = f"{store.root}/{folder.name}"
    job = run_job(uri, *arguments, *store.options, model=model)  # type: ignore[arg-type]
    filesystem.configure(store.options)
    _download(uri, folder)
    return Finished(job.status, job.out, job.err, folder)


def test_a_whole_job_in_a_bucket_equals_the_local_one(
    store: Emulator, archive: Archive, scored_job: Finished, tmp_path: Path
) -> None:
    _upload(archive.images, f"{store.root}/set/images")
    _upload(archive.masks, f"{store.root}/set/masks")
    _upload(TINY_MODEL, f"{store.root}/models/tiny")
    sources = ["--input", f"{store.root}/set/images", "--ground_truth", f"{store.root}/set/masks"]
    job = _run(store, tmp_path / "whole", *sources, model=f"{store.root}/models/tiny")
    assert job.status == 0, job.err
    local = scored_job.contents()
    there = job.contents()
    assert {name: data for name, data in there.items() if name.startswith("masks/")} == {
        name: data for name, data in local.items() if name.startswith("masks/")
    }
    assert there.keys() == local.keys()
    for part in ("images", "classes", "metrics", "confusion_matrix", "groups"):
        assert job.summary[part] == scored_job.summary[part]
    assert job.rows[0]["source_uri"] == f"{store.root}/set/images/{archive.image_ids[0]}"
    again = _run(store, tmp_path / "whole", *sources, model=f"{store.root}/models/tiny")
    assert again.summary["run"]["resumed"] == len(archive.image_ids)


@pytest.mark.parametrize(
    "kind", ["tar", pytest.param("tar.gz", marks=pytest.mark.full), pytest.param("zip", marks=pytest.mark.full)]
)
def test_an_archive_in_a_bucket_is_read_by_range_and_once(kind: str, store: Emulator, tmp_path: Path) -> None:
    pictures = {}
    for number in range(40):
        buffer = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 40, (80, 60, 3), dtype=np.uint8)
        Image.fromarray(draw_picture(number, 60, 80) // 2 + noise).save(buffer, "PNG")
        pictures[f"{number:03d}.png"] = buffer.getvalue()
    data = zip_of(pictures) if kind == "zip" else tar_of(pictures, gzip=kind == "tar.gz")
    uri = f"{store.root}/archives/pictures.{kind}"
    filesystem.write_bytes(uri, data)
    store.sent.clear()
    job = _run(store, tmp_path / f"from-{kind}", "--input", uri, model=str(TINY_MODEL))
    assert job.status == 0, job.err
    assert sorted(job.masks) == sorted(pictures)
    assert not list(filesystem.list_files(f"{store.root}/from-{kind}/_progress/spool"))
    assert len(data) > 250_000
    assert len(data) * 0.9 < store.sent_bytes(f"pictures.{kind}") < 1.3 * len(data)


def test_what_is_not_there_is_said_before_any_work(store: Emulator, tmp_path: Path) -> None:
    for arguments in (
        ["--input", f"{store.root}/nothing"],
        ["--input", f"{store.root}/nothing/*.png"],
        ["--input", f"{store.root}/nothing.tar"],
    ):
        job = run_job(tmp_path / "out", *arguments, *store.options)
        assert job.status == 2
        assert len(job.err.splitlines()) == 1, job.err
    filesystem.configure(store.options)


@pytest.mark.full
def test_worker_processes_reach_the_store_by_the_options(
    store: Emulator, archive: Archive, scored_job: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    if store.root.startswith("s3://"):
        # What only the command line says has to reach the workers.
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        keys = ["--s3_access_key_id", "test", "--s3_secret_access_key", "test", "--s3_region_name", "us-east-1"]
        filesystem.configure([*store.options, *keys])
    _upload(archive.images, f"{store.root}/workers/images")
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    job = run_job(tmp_path / "out", "--input", f"{store.root}/workers/images", *workers, *keys, *store.options)
    filesystem.configure(store.options)
    assert job.status == 0, job.err
    assert job.masks.keys() == scored_job.masks.keys()


@pytest.mark.parametrize("missing", [("boto3", "botocore"), ("google.auth",)])
def test_stores_are_reached_without_the_extras(
    store: Emulator, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_pool, "_stores", {})
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    filesystem.write_bytes(f"{store.root}/plain/a.png", b"data")
    assert filesystem.read_bytes(f"{store.root}/plain/a.png") == b"data"
