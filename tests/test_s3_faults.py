"""A bucket that fails a tenth of all requests: the job ends, and its numbers are those of a quiet store."""

import io
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import FAULTS, FaultyProxy
from PIL import Image
from small_archive import Archive, Finished, run_job

from pipeline.storage import clients

moto_server = pytest.importorskip("moto.server")
boto3: Any = pytest.importorskip("boto3")

pytestmark = pytest.mark.full
BUCKET = "archive"
OUTPUT: Any = f"s3://{BUCKET}/out"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    # The emulator keeps its objects with the process, and the client of an earlier test knows another port.
    urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/reset", b"").close()
    monkeypatch.setattr(clients, "_BUCKETS", {})
    yield port
    server.stop()


def upload(client: Any, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


def download(client: Any, prefix: str, folder: Path) -> None:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    for entry in (entry for page in pages for entry in page.get("Contents", ())):
        path = folder / entry["Key"].removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read())


def numbers(output: Path) -> dict[str, Any]:
    summary = json.loads((output / "summary.json").read_text("utf-8"))
    return {name: value for name, value in summary.items() if name != "run"}


@pytest.mark.parametrize("seed", range(3))
def test_a_tenth_of_all_requests_fail(
    archive: Archive, scored_job: Finished, emulator: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{emulator}")
    client.create_bucket(Bucket=BUCKET)
    upload(client, archive.images, "images")
    upload(client, archive.masks, "masks")
    sources = ["--input", f"s3://{BUCKET}/images", "--ground_truth", f"s3://{BUCKET}/masks"]

    with FaultyProxy(emulator, 10, seed) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        finished = run_job(OUTPUT, *sources)
        assert finished.status == 0, finished.err
        print(f"{proxy.requests} requests, of which failed {dict(proxy.faults)}")
        assert proxy.faults.total() >= proxy.requests // 10 > 5
        assert len(proxy.faults) == len(FAULTS)
        download(client, "out", tmp_path / "out")
        local = Finished(0, "", "", tmp_path / "out")
        assert numbers(tmp_path / "out") == numbers(scored_job.output)
        assert local.masks.keys() == scored_job.masks.keys()
        mine, theirs = local.contents(), scored_job.contents()
        assert {n: c for n, c in mine.items() if n.startswith("masks/")} == {
            n: c for n, c in theirs.items() if n.startswith("masks/")
        }

        # One picture changed (other bytes of the same pixels): one is done; what the bucket lists is enough to know it.
        changed = io.BytesIO()
        Image.open(archive.images / "grey.png").save(changed, "PNG", compress_level=0)
        client.put_object(Bucket=BUCKET, Key="images/grey.png", Body=changed.getvalue())
        again = run_job(OUTPUT, *sources)
        assert again.status == 0, again.err
    shutil.rmtree(tmp_path / "out")
    download(client, "out", tmp_path / "out")
    assert json.loads((tmp_path / "out/summary.json").read_text("utf-8"))["run"]["resumed"] == 19
    assert numbers(tmp_path / "out") == numbers(scored_job.output)
