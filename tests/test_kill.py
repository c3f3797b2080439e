"""SIGKILL at random moments, again and again: the same command ends with the bytes of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_archive import TINY_MODEL, Finished, draw_picture, save_mask

from pipeline.output.journal import PART_SUFFIX
from pipeline.output.journal_format import entries

ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 300.0


def make_pictures(root: Path, count: int) -> list[str]:
    """Large pictures, so that a job takes seconds, their masks, and two files that are no pictures; gives options."""
    drawn = [draw_picture(seed, 750, 1000) for seed in range(6)]
    for number in range(count):
        name = f"{number % 7}/picture_{number:03d}"
        image = root / "images" / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.roll(drawn[number % len(drawn)], number * 13, axis=1)
        Image.fromarray(pixels).save(image, quality=90)
        save_mask(root / "masks" / f"{name}.png", pixels.argmax(axis=2).astype(np.uint8))
    (root / "images/0/broken.jpg").write_bytes(b"no picture")
    (root / "images/1/cut.jpg").write_bytes((root / "images/1/picture_001.jpg").read_bytes()[:5000])
    options = ["--input", root / "images", "--ground_truth", root / "masks", "--model", TINY_MODEL]
    return [*map(str, options), "--max_failure_ratio", "1"]


def start(options: list[str], output: Path, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline", *options, "--output", str(output)]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=stderr)


def finish(options: list[str], output: Path) -> Finished:
    assert start(options, output).wait(LONGEST_S) == 0
    return Finished(0, "", "", output)


def masks_in(output: Path) -> int:
    return sum(name.endswith(".png") for _, _, names in os.walk(output / "masks") for name in names)


def lost_in(output: Path, since_s: float) -> list[float]:
    """When masks that are not in the journal were written, since a moment: their pictures are done twice."""
    parts = (output / "_progress/journal").glob(f"*{PART_SUFFIX}")
    recorded = {image_id for part in parts for image_id, _ in entries(part.read_bytes())}
    masks = {str(path.relative_to(output / "masks")): path for path in (output / "masks").rglob("*.png")}
    times = [path.stat().st_mtime for name, path in masks.items() if name.removesuffix(".png") not in recorded]
    return [time_s for time_s in times if time_s > since_s]


@dataclass
class Killer:
    """Starts a job, kills it at a chosen moment, and counts.

    Args:
        options: of the job.
        output: the job's.
        pictures: how many there are to do.
        wanted_kills: how many kills there are to be.
        draw: where the moments come from.
    """

    options: list[str]
    output: Path
    pictures: int
    wanted_kills: int
    draw: random.Random
    kills: dict[str, int] = field(default_factory=dict)
    twice: list[int] = field(default_factory=list)
    twice_s: list[float] = field(default_factory=list)

    def kill_once(self) -> None:
        before = masks_in(self.output)
        # Most fall while there is work, a few in starts, the last where tables, journal and summary are written.
        is_late = sum(self.kills.values()) > self.wanted_kills * 4 // 5
        moment = self.draw.choice(("start", "end", "end") if is_late else ("start", "middle", "middle", "middle"))
        step = max(1, self.pictures // self.wanted_kills)
        wanted = {"start": 0, "end": self.pictures}.get(moment, before + self.draw.randint(1, step))
        began = time.monotonic()
        job = start(self.options, self.output)
        delay_s = self.draw.uniform(0, 6) if moment == "start" else self.draw.uniform(0, 0.2)
        began_s = time.time()
        while job.poll() is None and time.monotonic() - began < LONGEST_S:
            masks = masks_in(self.output)
            if masks >= min(wanted, self.pictures):
                break
            time.sleep(0.01)
        time.sleep(delay_s)
        if self.draw.random() < 0.5:
            job.kill()  # its workers, where it has any, notice by themselves
        else:
            os.killpg(job.pid, signal.SIGKILL)
        killed = job.wait() == -signal.SIGKILL
        killed_s = time.time()
        self.kills[moment if killed else "too late"] = self.kills.get(moment if killed else "too late", 0) + 1
        lost = lost_in(self.output, began_s)
        if killed:
            self.twice.append(len(lost))
            self.twice_s.append(killed_s - min(lost, default=killed_s))

    def outcome(self) -> str:
        kills = ", ".join(f"{count} at the {moment}" for moment, count in sorted(self.kills.items()))
        return f"{kills}; done twice {self.twice} pictures, seconds {[round(s, 1) for s in self.twice_s]}"


def ends_as_if_undisturbed(tmp_path: Path, count: int, kills: int, *runner: str) -> Killer:
    options = make_pictures(tmp_path, count)
    undisturbed = finish(options, tmp_path / "undisturbed")
    killer = Killer([*options, *runner], tmp_path / "out", count, kills, random.Random(count + kills))
    while sum(killer.kills.values()) - killer.kills.get("too late", 0) < kills:
        killer.kill_once()
        assert sum(killer.kills.values()) < 3 * kills + 10, killer.outcome()
    last = finish(killer.options, tmp_path / "out")
    assert last.contents() == undisturbed.contents()
    assert last.summary["images"]["segmented"] == count
    assert last.summary | {"run": None} == undisturbed.summary | {"run": None}
    named = {path.relative_to(last.output) for path in last.output.rglob("*") if "_progress" not in path.parts}
    assert named == {
        path.relative_to(undisturbed.output) for path in undisturbed.output.rglob("*") if "_progress" not in path.parts
    }
    print(killer.outcome())
    return killer


def test_two_kills(tmp_path: Path) -> None:
    ends_as_if_undisturbed(tmp_path, 40, 2)


@pytest.mark.full
def test_a_worker_that_is_killed_ends_the_job_in_one_line(tmp_path: Path) -> None:
    options = [*make_pictures(tmp_path, 1500), "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    job = start(options, tmp_path / "out", stderr=subprocess.PIPE)
    began = time.monotonic()
    # Nothing counts as done before it is in the journal, which is written two seconds after the first picture.
    journal = tmp_path / "out/_progress/journal"
    while not any(journal.glob("*.gz")) and time.monotonic() - began < LONGEST_S:
        time.sleep(0.05)
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(job.pid)], capture_output=True, text=True, check=True
    )
    workers = [int(line.split()[0]) for line in listed.stdout.splitlines() if "worker" in line]
    os.kill(workers[0], signal.SIGKILL)
    _, said = job.communicate(timeout=LONGEST_S)
    assert job.returncode == 1
    assert said.decode().splitlines()[-1].startswith("maskbeam: a worker process was killed")
    assert b"Traceback" not in said
    last = finish(options, tmp_path / "out")
    assert last.summary["images"]["segmented"] == 1500
    assert last.summary["run"]["resumed"] > 0


@pytest.mark.full
@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_twenty_five_kills(tmp_path: Path, mode: str) -> None:
    runner = () if mode == "threads" else ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    killer = ends_as_if_undisturbed(tmp_path, 600, 25, *runner)
    # What had to be done twice: two seconds until the journal is written, and what was on its way.
    assert sum(killer.twice_s) / len(killer.twice_s) < 4
