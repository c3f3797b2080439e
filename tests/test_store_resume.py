"""Resuming in buckets: changed objects are seen, and an output there belongs to one run as well."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulators import EMULATORS, Emulator
from packing import files_below
from small_archive import Archive, Finished, run_job

from pipeline.core.errors import OutputInUseError
from pipeline.output.holder import Holder
from pipeline.output.lease import release, renew, take
from pipeline.storage import filesystem, lookups
from pipeline.storage.filesystem import StoredFile

pytest.importorskip("moto", reason="the extra `test` is not installed")


@pytest.fixture(scope="module", params=list(EMULATORS))
def store(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with EMULATORS[request.param]() as emulator:
        filesystem.configure(emulator.options)
        yield emulator
    filesystem.configure([])


def upload(folder: Path, uri: str) -> None:
    for name, data in files_below(folder).items():
        filesystem.write_bytes(f"{uri}/{name}", data)


def run(store: Emulator, output: str, *arguments: object) -> Finished:
    job = run_job(output, *arguments, *store.options)  # type: ignore[arg-type]
    filesystem.configure(store.options)
    return job


def summary_of(output: str) -> dict[str, dict[str, int]]:
    return json.loads(filesystem.read_bytes(f"{output}/summary.json"))


def test_a_changed_object_that_a_manifest_names_is_done_again(
    store: Emulator, archive: Archive, tmp_path: Path
) -> None:
    upload(archive.images, f"{store.root}/named/images")
    upload(archive.masks, f"{store.root}/named/masks")
    names = [name for name in archive.image_ids if name.isascii()]
    lines = [f"{name},{store.root}/named/masks/{Path(name).with_suffix('.png')}" for name in names]
    manifest = f"{store.root}/named/images/list.csv"
    filesystem.write_bytes(manifest, "\n".join(["image,mask", *lines]).encode())
    output = f"{store.root}/named_out"
    sources = ["--input", manifest]
    assert run(store, output, *sources).status == 0
    assert run(store, output, *sources).status == 0
    assert summary_of(output)["run"]["resumed"] == len(names)
    # One picture is now another, with a size that its truth has not; one truth is no mask any more.
    changed = filesystem.read_bytes(f"{store.root}/named/images/{names[0]}")
    filesystem.write_bytes(f"{store.root}/named/images/{names[1]}", changed)
    filesystem.write_bytes(f"{store.root}/named/masks/{Path(names[2]).with_suffix('.png')}", b"no mask any more")
    again = run(store, output, *sources, "--max_failure_ratio", 1)
    assert again.status == 0, again.err
    after = summary_of(output)
    assert (after["run"]["resumed"], after["run"]["updated"]) == (len(names) - 1, 1)
    assert after["images"]["truth_failed"] == 2
    masks = (f"{output}/masks/{name}.png" for name in names[:2])
    assert filesystem.read_bytes(next(masks)) == filesystem.read_bytes(next(masks))


def test_an_output_in_a_bucket_is_taken_once(store: Emulator, archive: Archive, tmp_path: Path) -> None:
    output = f"{store.root}/owned"
    first, second = Holder("first", "machine-a", started_s=1.0), Holder("second", "machine-b", started_s=2.0)
    take(output, first)
    take(output, first)
    with pytest.raises(OutputInUseError, match="machine-a"):
        take(output, second)
    shutil.copytree(archive.images, tmp_path / "in")
    refused = run(store, output, "--input", tmp_path / "in")
    assert refused.status == 2
    assert "is in use by a run that was started on machine-a" in refused.err
    assert renew(output, first)
    release(output, first)
    assert not renew(output, first)
    assert run(store, output, "--input", tmp_path / "in").status == 0
    assert not filesystem.exists(f"{output}/_progress/lease.json")
    take(output, second)


def test_files_are_looked_up_in_order_and_only_as_far_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def stat(uri: str) -> StoredFile:
        asked.append(uri)
        if uri.endswith("7"):
            raise FileNotFoundError(2, "no such object", uri)
        return StoredFile(uri, len(uri), "v")

    monkeypatch.setattr(filesystem, "stat_file", stat)
    uris = [f"gs://b/{number}" for number in range(5_000)]
    found = lookups.look_up_all(uris)
    first = next(found)
    assert first is not None
    assert first.uri == uris[0]
    found.close()
    assert len(asked) < 100
    asked.clear()
    whole = list(lookups.look_up_all(uris))
    assert [stored and stored.uri for stored in whole] == [None if uri.endswith("7") else uri for uri in uris]
    assert sorted(asked) == sorted(uris)
