"""Archives at size: two workers' shares, what a bucket sends, its answers' time, and what unpacking takes.

    python tests/benchmarks/archives.py workers [--members 20000] [--json FILE]
    python tests/benchmarks/archives.py bucket [--members 20000] [--json FILE]
    python tests/benchmarks/archives.py locate [--members 20000] [--json FILE]
    python tests/benchmarks/archives.py unpack [--json FILE]

`workers` and `bucket` draw their pictures themselves and take the tests' tiny model; `bucket` needs the extras aws and
test. `locate` walks a tar of members of 100 kB on the mean that is never written, in a store whose every answer takes
5 ms. `unpack` lists compressed archives, each in a separate process.
"""

import argparse
import bisect
import io
import itertools
import json
import multiprocessing
import os
import random
import shutil
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bombs import MIB, dense, gzip_of, huge_example, large_tar
from datagrams import received_reports
from emulators import amazon
from memory_growth import peak_bytes
from packing import tar_of
from small_archive import Finished, draw_picture, run_job

from pipeline.core.layout import SPOOL_FOLDER
from pipeline.sources.archives.members import Fault, Member
from pipeline.sources.archives.parallel import walk_tar_in_parallel
from pipeline.sources.archives.tar import walk_tar
from pipeline.sources.sources import parse_sources
from pipeline.storage import filesystem

ROOT = Path(__file__).resolve().parents[2]
_SIDE_PX = 96
_DIFFERENT = 50
_ANSWER_S = 0.005
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
    with received_reports() as seen:
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
    """Segments one tar that is in an emulated bucket.

    Returns:
        One row: the archive's size, and what of it was sent.
    """
    data = _tar(members)
    with amazon() as store:
        filesystem.configure(store.options)
        uri = f"{store.root}/large.tar"
        filesystem.write_bytes(uri, data)
        job = run_job(folder / "out", "--input", uri, "--mask_format", "none", *store.options)
        _check(job, members)
        sent = [size for path, size in store.sent if path == uri]
    filesystem.configure([])
    row = {"members": members, "archive_mb": round(len(data) / 1e6, 1), "requests": len(sent)}
    return [row | {"sent_mb": round(sum(sent) / 1e6, 1), "sent_to_archive": round(sum(sent) / len(data), 4)}]


class _FarTar:
    """A tar of large members, all zeros but for their headers, whose bytes take their time."""

    def __init__(self, members: int) -> None:
        sizes = random.Random(members).choices(range(20_000, 180_000), k=members)
        self._begins = [0, *itertools.accumulate(512 + -(-size // 512) * 512 for size in sizes)]
        self._sizes = sizes
        self.size_bytes = self._begins[-1] + 1024
        self.answers: Counter[int] = Counter()
        self.bytes = 0
        self._lock = threading.Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        time.sleep(_ANSWER_S)
        end = min(offset + length, self.size_bytes)
        data = bytearray(max(0, end - offset))
        for number in range(bisect.bisect_left(self._begins, offset), len(self._sizes)):
            if self._begins[number] >= end:
                break
            member = tarfile.TarInfo(f"{number:07d}.jpg")
            member.size = self._sizes[number]
            at = self._begins[number] - offset
            data[at : at + 512] = member.tobuf(tarfile.USTAR_FORMAT)[: len(data) - at]
        with self._lock:
            self.answers[threading.get_ident()] += 1
            self.bytes += len(data)
        return bytes(data)


def locate(members: int, _: Path) -> list[Row]:
    """Walks a tar far away, one header after the other and many at a time.

    Returns:
        A row a way: its seconds, the most answers that one thread waited for, and what was fetched.
    """
    rows: list[Row] = []
    found: list[list[Member | Fault]] = []
    for way in ("one by one", "many at a time"):
        tar = _FarTar(members)
        begin = time.monotonic()
        walk = walk_tar(tar) if way == "one by one" else walk_tar_in_parallel(tar, tar.size_bytes)
        found.append(list(walk))
        row = {"way": way, "seconds": round(time.monotonic() - begin, 1), "answers_in_turn": max(tar.answers.values())}
        row |= {"fetched_mb": round(tar.bytes / 1e6, 1), "fetched_to_archive": round(tar.bytes / tar.size_bytes, 4)}
        rows.append(row)
    if found[0] != found[1] or len(found[0]) != members:
        raise RuntimeError("the two walks differ")
    return rows


def unpack(_: int, folder: Path) -> list[Row]:
    """Lists compressed archives with a spool.

    Returns:
        A row an archive: its size and what it unpacks to, pictures and failures, seconds, by how much the process'
        memory rose above what it held before, and what the spool took.
    """
    zeros = bytes(MIB)
    noise = random.Random(1).randbytes(100_000)
    bombs = [part for number in range(3) for part in huge_example(f"{number}.png", 1_000, zeros)]
    archives = {
        "bombs.tfrecord": ("TFRecord, 3 records of 1,000 MiB of zeros", lambda: gzip_of(bombs)),
        "dense.tar.gz": ("tar, a member of 1,000 MiB at 78:1", lambda: large_tar(1_000, dense(78))),
        "many.tar.gz": ("tar, 50 members of 60 MiB of zeros", lambda: large_tar(60, zeros, members=50)),
        "noise.tar.gz": (
            "tar, 2,000 members of 100 kB that don't shrink",
            lambda: tar_of({f"{number}.jpg": noise for number in range(2_000)}, gzip=True),
        ),
    }
    rows: list[Row] = []
    for name, (kind, data) in archives.items():
        (folder / name).write_bytes(data())
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            rows.append({"archive": kind} | process.submit(_list_unpacked, folder / name).result())
        (folder / name).unlink()
    return rows


def _list_unpacked(path: Path) -> Row:
    spool = path.parent / SPOOL_FOLDER
    [[source]] = parse_sources([str(path)], "--input")
    before_bytes = peak_bytes()
    begin = time.monotonic()
    listed = Counter(type(item).__name__ for item in replace(source, spool=str(spool)).items())
    seconds = time.monotonic() - begin
    spool_bytes = sum(part.stat().st_size for part in spool.rglob("*") if part.is_file())
    shutil.rmtree(spool)
    row: Row = {"packed_mb": round(path.stat().st_size / 1e6, 1), "pictures": listed["Listed"]}
    row |= {"failures": listed["Failure"], "seconds": round(seconds, 1)}
    return row | {
        "memory_rose_mb": round((peak_bytes() - before_bytes) / 1e6, 1), "spool_mb": round(spool_bytes / 1e6, 1),
    }  # fmt: skip


def _check(job: Finished, members: int) -> None:
    if job.status or job.summary["images"]["segmented"] != members:
        raise RuntimeError(f"status {job.status}: {job.err}")


def print_table(rows: list[Row]) -> None:
    """Prints rows with their names as a table for a page."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        values = (f"{value:.6g}" if isinstance(value, float) else str(value) for value in row.values())
        print("| " + " | ".join(values) + " |")


def main() -> None:
    """Measures what the command line names, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    sized_kinds = {"workers": workers, "bucket": bucket, "locate": locate, "unpack": unpack}
    for kind in sized_kinds:
        sized = kinds.add_parser(kind)
        sized.add_argument("--members", type=int, default=20_000)
        sized.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.chdir(ROOT)  # where worker processes find the code
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = sized_kinds[arguments.kind](arguments.members, Path(folder))
    print_table(rows)
    print(f"{time.monotonic() - begin:.0f} s in all", file=sys.stderr)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
