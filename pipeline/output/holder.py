"""Identifies a run and the process that launched it, so that the same machine can check whether that still exists."""

import os
import socket
import time
import uuid
from dataclasses import dataclass, replace

_ENDED_STATES = ("Z", "X", "x")
"""States of a process that has ended; it exists until its parent reads its status."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One run of a job, created by its launcher.

    Args:
        run_id: unique.
        host: name of the machine that launched it, for messages.
        pid: the launcher's process id if the job ends with that process; 0 for a job that continues without it.
        started_s: when it was launched, seconds since the epoch.
        machine: identifies the machine's boot and process namespace; "" if unknown.
        process_started: start time of the process, which distinguishes it from a later one with its id; "" if unknown.
    """

    run_id: str
    host: str = ""
    pid: int = 0
    started_s: float = 0.0
    machine: str = ""
    process_started: str = ""

    @staticmethod
    def launched(*, ends_with_launcher: bool) -> "Holder":
        """Creates a run that this process launches.

        Args:
            ends_with_launcher: whether the job ends with this process.
        """
        holder = Holder(uuid.uuid4().hex, socket.gethostname(), started_s=time.time())
        if not ends_with_launcher:
            return holder
        pid = os.getpid()
        return replace(holder, pid=pid, machine=_machine(), process_started=process_state(pid)[1])


def has_ended(holder: Holder) -> bool:
    """Whether a run's launcher is known to have ended: a process of this machine that no longer exists."""
    if not holder.pid or not holder.machine or holder.machine != _machine():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's process with this id
    state, started = process_state(holder.pid)
    return state in _ENDED_STATES or (bool(holder.process_started and started) and started != holder.process_started)


def _machine() -> str:
    """Id of this boot of the machine and of the process namespace; the host name where the system has neither."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def process_state(pid: int) -> tuple[str, str]:
    """A process's state and its start time in clock ticks since the boot; "" where the system has no `/proc`."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in parentheses may contain any character; the state is the third field, the start time the 22nd.
            after_name = file.read().rpartition(")")[2].split()
        return after_name[0], after_name[19]
    except (OSError, IndexError):
        return "", ""
