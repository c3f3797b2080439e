"""A bucket that fails a tenth of all requests: the job ends, and its numbers are those of a store without faults."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulators import EMULATORS, Emulator
from faulty_proxy import FAULTS, FaultyProxy
from packing import files_below
from PIL import Image
from small_archive import Archive, Finished, run_job

from pipeline.storage import filesystem, store_pool

pytestmark = pytest.mark.full


@pytest.fixture(params=list(EMULATORS))
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.setattr(store_pool, "_stores", {})
    with EMULATORS[request.param]() as emulator:
        filesystem.configure(emulator.options)
        yield emulator
    filesystem.configure([])


def upload(folder: Path, uri: str) -> None:
    for name, data in files_below(folder).items():
        filesystem.write_bytes(f"{uri}/{name}", data)


def download(uri: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for stored in filesystem.list_files(uri):
        path = folder / stored.uri.removeprefix(f"{uri}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(filesystem.read_bytes(stored.uri))


def numbers(output: Path) -> dict[str, Any]:
    summary = json.loads((output / "summary.json").read_text("utf-8"))
    return {name: value for name, value in summary.items() if name != "run"}


@pytest.mark.parametrize("seed", range(3))
def test_a_tenth_of_all_requests_fail(
    archive: Archive, scored_job: Finished, store: Emulator, tmp_path: Path, seed: int
) -> None:
    upload(archive.images, f"{store.root}/images")
    upload(archive.masks, f"{store.root}/masks")
    sources = ["--input", f"{store.root}/images", "--ground_truth", f"{store.root}/masks"]
    output: Any = f"{store.root}/out"

    with FaultyProxy(store.port, 10, seed) as proxy:
        through = store.through(proxy.url)
        finished = run_job(output, *sources, *through)
        assert finished.status == 0, finished.err
        print(f"{proxy.requests} requests, of which failed {dict(proxy.faults)}")
        assert proxy.faults.total() >= proxy.requests // 10 > 5
        assert len(proxy.faults) == len(FAULTS)
        filesystem.configure(store.through(f"http://127.0.0.1:{store.port}"))
        download(output, tmp_path / "out")
        local = Finished(0, "", "", tmp_path / "out")
        assert numbers(tmp_path / "out") == numbers(scored_job.output)
        assert local.masks.keys() == scored_job.masks.keys()
        mine, theirs = local.contents(), scored_job.contents()
        assert {n: c for n, c in mine.items() if n.startswith("masks/")} == {
            n: c for n, c in theirs.items() if n.startswith("masks/")
        }

        # One picture changed (other bytes of the same pixels): one is done; the bucket's listing is enough to find it.
        changed = io.BytesIO()
        Image.open(archive.images / "grey.png").save(changed, "PNG", compress_level=0)
        filesystem.write_bytes(f"{store.root}/images/grey.png", changed.getvalue())
        again = run_job(output, *sources, *store.through(proxy.url))
        assert again.status == 0, again.err
    filesystem.configure(store.through(f"http://127.0.0.1:{store.port}"))
    download(output, tmp_path / "out")
    assert json.loads((tmp_path / "out/summary.json").read_text("utf-8"))["run"]["resumed"] == 19
    assert numbers(tmp_path / "out") == numbers(scored_job.output)
