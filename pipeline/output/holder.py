"""Who launched a run: enough to tell on the same machine whether its process still exists."""

import os
import socket
import time
import uuid
from dataclasses import dataclass, replace

_ENDED_STATES = ("Z", "X", "x")
"""A killed process is there until its parent asks for its status."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One run of a job, made where it is launched.

    Args:
        run_id: unique.
        host: the name of the machine that launched it, for people.
        pid: the launcher's process, where the job ends with it; 0 for a job that goes on without its launcher.
        started_s: when it was launched, seconds since the epoch.
        machine: what tells the machine, and the processes that can see one another, from others; "" if unknown.
        process_started: what tells the process from a later one of the same number; "" if unknown.
    """

    run_id: str
    host: str = ""
    pid: int = 0
    started_s: float = 0.0
    machine: str = ""
    process_started: str = ""

    @staticmethod
    def launched(*, ends_with_launcher: bool) -> "Holder":
        """A new run that this process launches.

        Args:
            ends_with_launcher: whether the job can't go on without this process.
        """
        holder = Holder(uuid.uuid4().hex, socket.gethostname(), started_s=time.time())
        if not ends_with_launcher:
            return holder
        pid = os.getpid()
        return replace(holder, pid=pid, machine=_machine(), process_started=process_state(pid)[1])


def has_ended(holder: Holder) -> bool:
    """Whether a run's launcher is known to have ended: a process that this one could see and that is not there."""
    if not holder.pid or not holder.machine or holder.machine != _machine():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process of this number
    state, started = process_state(holder.pid)
    return state in _ENDED_STATES or (bool(holder.process_started and started) and started != holder.process_started)


def _machine() -> str:
    """The boot of this machine and the namespace of its process numbers; the machine's name where there are none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def process_state(pid: int) -> tuple[str, str]:
    """A process's state and when it was started, in clock ticks since the boot; "" where the system doesn't say."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in parentheses may hold anything; the state is the third field of all, the start the 22nd.
            behind = file.read().rpartition(")")[2].split()
        return behind[0], behind[19]
    except (OSError, IndexError):
        return "", ""
