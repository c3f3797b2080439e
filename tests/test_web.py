"""Pictures, archives and manifests behind https://, which are read and never listed; here plain http on loopback."""

import errno
import functools
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from packing import files_below, tar_of, zip_of
from scripted_store import ScriptedStore, scripted_store
from small_archive import Archive, Finished, run_job

from pipeline.storage import filesystem, store_pool


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Python's own file server, which reads no ranges and gives no entity tags: its address and its folder."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def ranged() -> Iterator[ScriptedStore]:
    """A server that reads ranges."""
    with scripted_store() as running:
        yield running


@pytest.mark.parametrize(
    "name", ["a.png", "deep/er/b.png", "c [1].png", "ünï.png", "per%20cent.png", "with space.png", "plus+and~tilde.png"]
)
def test_files_of_any_name_are_read(plain: tuple[str, Path], name: str) -> None:
    url, folder = plain
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"0123456789")
    address = f"{url}/{name.replace('%', '%25')}"
    assert filesystem.read_bytes(address) == b"0123456789"
    stored = filesystem.stat_file(address)
    assert (stored.uri, stored.size_bytes) == (address, 10)
    # Without an entity tag the time of the last change identifies versions.
    assert stored.version == str(stored.modified_ns)
    assert filesystem.exists(address)
    assert not filesystem.exists(f"{url}/none.png")


def test_an_address_with_a_query_arrives_as_it_is(ranged: ScriptedStore) -> None:
    ranged.objects["/a b.png"] = b"0123456789"
    signed = f"{ranged.url}/a%20b.png?X-Sig=a%2Fb%3D&n=1"
    assert filesystem.read_bytes(signed) == b"0123456789"
    assert ranged.requests[-1].path == "/a%20b.png?X-Sig=a%2Fb%3D&n=1"
    assert filesystem.stat_file(signed).version == '"v1"'
    ranged.script = [403]
    with pytest.raises(PermissionError) as caught:
        filesystem.read_bytes(signed)
    assert "a%2Fb" not in str(caught.value)
    assert not any("X-Sig" in str(made) for made in store_pool._stores)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_server_that_answers_get_alone_is_read(ranged: ScriptedStore, status: int) -> None:
    ranged.objects["/a.png"] = b"0123456789"
    ranged.answer = lambda request: (status, {}, b"") if request.method == "HEAD" else None
    with filesystem.patience(0.1):
        assert filesystem.stat_file(f"{ranged.url}/a.png").size_bytes == 10


def test_a_missing_file_is_asked_for_once(ranged: ScriptedStore) -> None:
    assert not filesystem.exists(f"{ranged.url}/none.png")
    assert [request.method for request in ranged.requests] == ["HEAD"]


def test_redirects_are_followed(ranged: ScriptedStore) -> None:
    ranged.objects["/there.png"] = b"0123456789"
    ranged.answer = lambda request: (302, {"Location": "/there.png"}, b"") if request.path == "/here.png" else None
    assert filesystem.read_bytes(f"{ranged.url}/here.png") == b"0123456789"
    assert filesystem.stat_file(f"{ranged.url}/here.png").size_bytes == 10


def test_what_the_web_does_not_offer_is_said_in_a_line(plain: tuple[str, Path]) -> None:
    url, folder = plain
    (folder / "a.tar").write_bytes(b"0123456789")
    assert not filesystem.is_folder(url)
    with pytest.raises(OSError, match="can't be listed over https") as caught:
        list(filesystem.list_files(url))
    assert caught.value.errno == errno.EOPNOTSUPP
    for act in (
        lambda: filesystem.write_bytes(f"{url}/b", b""),
        lambda: filesystem.write_if_absent(f"{url}/b", b""),
        lambda: filesystem.delete(f"{url}/a.tar"),
    ):
        with pytest.raises(OSError, match="is read-only"):
            act()
    with pytest.raises(OSError, match="does not support range requests"):
        filesystem.read_range(f"{url}/a.tar", 2, 3)
    assert filesystem.read_bytes(f"{url}/a.tar", 3) == b"0123"


def same_results(job: Finished, local: Finished) -> None:
    assert job.status == 0, job.err
    masks = [{n: c for n, c in one.contents().items() if n.startswith("masks/")} for one in (job, local)]
    assert masks[0] == masks[1]
    for part in ("classes", "metrics", "confusion_matrix", "groups"):
        assert job.summary[part] == local.summary[part]
    other_files = {"ignored": 0, "ignored_by_ending": {}}  # a manifest has none
    images = [one.summary["images"] | other_files for one in (job, local)]
    assert images[0] == images[1]


def test_a_manifest_of_web_addresses_equals_the_local_job(
    plain: tuple[str, Path], archive: Archive, scored_job: Finished, tmp_path: Path
) -> None:
    url, folder = plain
    rows = []
    for below, where in (("images", archive.images), ("masks", archive.masks)):
        for name, data in files_below(where).items():
            path = folder / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    masks = {name.rpartition(".")[0]: name for name in files_below(archive.masks)}
    for name in archive.image_ids:
        mask = masks.get(name.rpartition(".")[0])
        rows.append({"image_id": name, "image": f"images/{name}"} | ({"mask": f"{url}/masks/{mask}"} if mask else {}))
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    same_results(run_job(tmp_path / "out", "--input", f"{url}/list.jsonl"), scored_job)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_is_read_by_range(kind: str, ranged: ScriptedStore, archive: Archive, tmp_path: Path) -> None:
    files = files_below(archive.images)
    data = zip_of(files) if kind == "zip" else tar_of(files, gzip=kind == "tar.gz")
    ranged.objects[f"/set/pictures.{kind}"] = data
    local = tmp_path / f"pictures.{kind}"
    local.write_bytes(data)
    expected = run_job(tmp_path / "local", "--input", local)
    same_results(run_job(tmp_path / "out", "--input", f"{ranged.url}/set/pictures.{kind}"), expected)
    assert {request.method for request in ranged.requests} == {"GET", "HEAD"}
    assert all("range" in request.headers for request in ranged.requests if request.method == "GET")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/pictures.tar", "does not support range requests"),
        ("/", "can't be listed over https"),
        ("/*.png", "can't be listed over https"),
        ("/none.png", "no such file"),
    ],
)
def test_what_cannot_be_read_is_said_before_any_work(
    plain: tuple[str, Path], address: str, said: str, archive: Archive, tmp_path: Path
) -> None:
    url, folder = plain
    (folder / "pictures.tar").write_bytes(tar_of(files_below(archive.images)))
    job = run_job(tmp_path / "out", "--input", f"{url}{address}")
    assert job.status == 2
    assert len(job.err.splitlines()) == 1
    assert said in job.err


def test_nothing_is_written_to_the_web(plain: tuple[str, Path], archive: Archive) -> None:
    job = run_job(f"{plain[0]}/out", "--input", archive.images)  # type: ignore[arg-type]
    assert job.status == 2
    assert job.err.count("\n") == 1
    assert "is read-only" in job.err


def test_secrets_of_addresses_are_written_nowhere(ranged: ScriptedStore, archive: Archive, tmp_path: Path) -> None:
    names, secret = ("palette.gif", "grey.png"), "SECRET-e1f9"
    for name in names:
        ranged.objects[f"/in/{name}"] = (archive.images / name).read_bytes()
    ranged.objects["/in/masks/palette.png"] = archive.mask_path("palette.gif").read_bytes()
    ranged.objects["/in/masks/grey.png"] = b"no mask"
    rows = [f"{ranged.url}/in/{n}?sig={secret},{ranged.url}/in/masks/{Path(n).stem}.png?sig={secret}" for n in names]
    rows += [f"{ranged.url}/in/none.png?sig={secret},", f"{ranged.url}/in/palette.gif?sig={secret}&again=1,"]
    (tmp_path / "list.csv").write_text("\n".join(["image,mask", *rows]) + "\n")
    done = run_job(tmp_path / "out", "--input", tmp_path / "list.csv")
    assert done.status == 3
    assert sorted(done.masks) == sorted(names)
    assert {(line["image_id"], line["error_type"]) for line in done.failures} == {
        *(("grey.png", "NotAPicture"), ("none.png", "Missing"), ("palette.gif", "DuplicateId"))
    }
    assert {row["source_uri"] for row in done.rows} == {f"{ranged.url}/in/{name}?…" for name in names}
    assert secret not in done.out + done.err
    for path in (path for path in done.output.rglob("*") if path.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        assert secret.encode() not in content, path
        assert secret not in str(path)


def test_a_new_signature_segments_nothing_again(ranged: ScriptedStore, archive: Archive, tmp_path: Path) -> None:
    names = ("palette.gif", "grey.png")
    for name in names:
        ranged.objects[f"/in/{name}"] = (archive.images / name).read_bytes()

    def resumed(signature: str) -> tuple[int, int]:
        rows = [f"{ranged.url}/in/{n}?X-Amz-Date={signature}&X-Amz-Signature={signature}" for n in names]
        (tmp_path / "list.csv").write_text("\n".join(["image", *rows]) + "\n")
        job = run_job(tmp_path / "out", "--input", tmp_path / "list.csv")
        return job.status, job.summary["run"]["resumed"]

    assert resumed("first") == (0, 0)
    assert resumed("second") == (0, 2)
    # Another content is still noticed.
    ranged.objects["/in/grey.png"] += b"more"
    assert resumed("third") == (0, 1)
