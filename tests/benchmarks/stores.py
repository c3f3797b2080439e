"""Clients of object stores side by side: what they cost, and whether faults of a store reach the job as wrong bytes.

    python tests/benchmarks/stores.py [--clients clients obstore fsspec] [--objects 100000] [--reads 2000]

Each measurement is done in a separate process, against a scripted store on loopback. A client that is
not installed is left out; s3fs needs an older botocore than this project's, so measure `fsspec` in a separate
environment: `pip install fsspec s3fs gcsfs adlfs`, which is all that this script needs there.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripted_store import Request, ScriptedStore, scripted_store
from store_clients import CLIENTS, Client

SCHEMES = ("s3", "gs", "az", "https")
DATA = bytes(range(256)) * 400
MEMBERS, MEMBER_BYTES = 100, 100_000
STRIDE = 512 + -(-MEMBER_BYTES // 512) * 512
FAULTS: dict[str, list[int | str]] = {
    "503 twice": [503, 500],
    "429": [429],
    "no answer": ["closed"],
    "cut answer": ["cut"],
    "short range": ["short"],
    "shortened body": ["shortened"],
    "range ignored": ["whole"],
    "404": [404] * 99,
    "403": [403] * 99,
}
_TIME_LIMIT_S = 60


def rss_mb() -> float:
    """What this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """The most that it has held."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3


# What a separate process does.


def start(make: Callable[[], Client]) -> dict[str, Any]:
    """Import, client and first request."""
    memory, began = rss_mb(), time.perf_counter()
    make().read_range("bucket/a.bin", 0, 10)
    return {"start_s": round(time.perf_counter() - began, 2), "start_mb": round(rss_mb() - memory, 1)}


def listing(make: Callable[[], Client]) -> dict[str, Any]:
    """All objects below a prefix."""
    client = make()
    client.read_range("bucket/a.bin", 0, 10)
    memory, began = rss_mb(), time.perf_counter()
    count = sum(1 for _ in client.names("bucket/in"))
    return {"listed": count, "list_s": round(time.perf_counter() - began, 1), "list_mb": round(peak_mb() - memory, 1)}


def reads(make: Callable[[], Client], count: int) -> dict[str, Any]:
    """Ranges of 100 kB by 16 threads."""
    client = make()
    client.read_range("bucket/a.bin", 0, 10)

    def work() -> None:
        for _ in range(count // 16):
            assert len(client.read_range("bucket/a.bin", 0, 100_000)) == 100_000

    cpu, began = time.process_time(), time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = count // 16 * 16
    return {
        "reads_per_s": round(done / (time.perf_counter() - began)),
        "cpu_ms_a_read": round(1e3 * (time.process_time() - cpu) / done, 2),
    }


def members(make: Callable[[], Client], by_file: bool) -> dict[str, Any]:
    """Ten members of a tar whose places are known."""
    client = make()
    file = client.file("bucket/a.tar") if by_file else None
    for number in range(0, MEMBERS, MEMBERS // 10):
        offset = number * STRIDE + 512
        if file:
            file.seek(offset)
            data = bytes(file.read(MEMBER_BYTES))
        else:
            data = client.read_range("bucket/a.tar", offset, MEMBER_BYTES)
        assert data == bytes([number]) * MEMBER_BYTES
    return {}


def fault(make: Callable[[], Client]) -> dict[str, Any]:
    """One range under a fault."""
    client, began = make(), time.perf_counter()
    try:
        data = client.read_range("bucket/a.bin", 100, 50_000)
        outcome = "right bytes" if data == DATA[100:50_100] else f"WRONG: {len(data)} bytes"
    except Exception as error:
        outcome = type(error).__name__
    return {"outcome": outcome, "s": round(time.perf_counter() - began, 1)}


def process(make: Callable[[], Client]) -> dict[str, Any]:
    """Whether a client can be pickled, and used after a fork."""
    client: Any = make()
    client.read_range("bucket/a.bin", 0, 10)
    try:
        pickle.loads(pickle.dumps(client.store))
        pickled = "yes"
    except Exception as error:
        pickled = type(error).__name__
    child = os.fork()
    if not child:
        try:
            client.read_range("bucket/a.bin", 0, 10)
        except BaseException:
            os._exit(1)
        os._exit(0)
    for _ in range(100):
        if os.waitpid(child, os.WNOHANG)[0]:
            return {"pickled": pickled, "after a fork": "works or raises"}
        time.sleep(0.1)
    os.kill(child, 9)
    return {"pickled": pickled, "after a fork": "blocks forever"}


# The store.


def pages(objects: int) -> Callable[[Request], tuple[int, dict[str, str], bytes] | None]:
    """Answers listings of S3 with so many objects, a thousand a page, from texts made before."""
    count, made = -(-objects // 1_000), []
    for page in range(count):
        entries = "".join(
            f"<Contents><Key>in/folder-{page:04d}/picture-{number:06d}.jpg</Key><Size>123456</Size>"
            '<LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>"d41d8cd98f00b204e9800998ecf8427e"</ETag>'
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(min(1_000, objects - 1_000 * page))
        )
        more = f"<NextContinuationToken>{page + 1}</NextContinuationToken>" if page + 1 < count else ""
        flag = f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
        made.append(f"<?xml version='1.0'?><ListBucketResult>{flag}{entries}{more}</ListBucketResult>".encode())

    def answer(request: Request) -> tuple[int, dict[str, str], bytes] | None:
        if "list-type=2" not in request.path:
            return None
        _, _, token = request.path.partition("continuation-token=")
        return 200, {"Content-Type": "application/xml"}, made[int(token.partition("&")[0] or 0)]

    return answer


def measure(store: ScriptedStore, client: str, scheme: str, what: str, count: int = 0) -> dict[str, Any]:
    """Runs one of the measurements in a separate process."""
    command = [sys.executable, __file__, "--child", client, scheme, store.url, what, str(count)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"outcome": f"no end after {_TIME_LIMIT_S} s"}
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _child(client: str, scheme: str, url: str, what: str, count: int) -> None:
    def make() -> Client:
        return CLIENTS[client](scheme, url)

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "start": lambda: start(make),
        "list": lambda: listing(make),
        "reads": lambda: reads(make, count),
        "members": lambda: members(make, False),
        "file": lambda: members(make, True),
        "fault": lambda: fault(make),
        "process": lambda: process(make),
    }
    print(json.dumps(work[what]()))


def _is_installed(client: str, scheme: str) -> bool:
    code = f"from store_clients import CLIENTS; CLIENTS[{client!r}]({scheme!r}, 'http://127.0.0.1:9')"
    command = [sys.executable, "-c", code]
    return not subprocess.run(command, cwd=Path(__file__).parent, capture_output=True).returncode


def costs(client: str, objects: int, count: int) -> dict[str, Any]:
    """Time, memory and bytes of S3 by this client."""
    with scripted_store() as store:
        store.objects["/bucket/a.bin"] = DATA
        store.objects["/bucket/a.tar"] = b"".join(
            bytes(512) + bytes([number]) * MEMBER_BYTES + bytes(STRIDE - 512 - MEMBER_BYTES)
            for number in range(MEMBERS)
        )
        store.answer = pages(objects)
        row = measure(store, client, "s3", "start") | measure(store, client, "s3", "list")
        row |= measure(store, client, "s3", "reads", count)
        for what in ("members", "file") if client != "clients" else ("members",):
            store.sent = 0
            measure(store, client, "s3", what)
            row[f"{what}_kb"] = round(store.sent / 1e3)
        return row | measure(store, client, "s3", "process")


def faults(client: str, scheme: str) -> dict[str, str]:
    """What comes of a range under each fault."""
    row = {}
    with scripted_store() as store:
        for path in ("/bucket/a.bin", "/acc/bucket/a.bin", "/download/storage/v1/b/bucket/o/a.bin"):
            store.objects[path] = DATA
        for name, script in FAULTS.items():
            store.requests.clear()
            store.script = list(script)
            found = measure(store, client, scheme, "fault")
            row[name] = f"{found['outcome']}, {len(store.requests)} requests"
    return row


def main() -> None:
    """Prints a line of JSON for each client, and one for its faults on each kind of store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", default=list(CLIENTS), choices=list(CLIENTS))
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=2_000)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        *which, count = arguments.child
        _child(*which, int(count))
        return
    for client in arguments.clients:
        if _is_installed(client, "s3"):
            print(json.dumps({"client": client} | costs(client, arguments.objects, arguments.reads)), flush=True)
        for scheme in SCHEMES:
            if _is_installed(client, scheme):
                print(json.dumps({"client": client, "store": scheme} | faults(client, scheme)), flush=True)


if __name__ == "__main__":
    main()
