"""The lease of an output in `_progress/lease.json`: one run at a time may write.

A run acquires the lease by a conditional write before anything else, renews it as long as one of its processes works,
and releases it at its end. A lease that was not renewed in time has expired. A lease of a process on this machine that
no longer exists has expired at once, so that a killed job can be resumed.

The times are those of the machines that write them: their clocks must agree to within half a minute.
"""

import json
import time
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from pipeline.core.errors import OutputInUseError, StorageError
from pipeline.core.layout import LEASE_FILE
from pipeline.output.holder import Holder, has_ended
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

VALID_S = 180.0
"""Time for which a lease is valid after it was renewed."""
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class _Lease:
    """The content of the file.

    Args:
        holder: the run that has it.
        expires_s: when it expires, seconds since the epoch.
        token: different for each write.
    """

    holder: Holder
    expires_s: float
    token: str

    @staticmethod
    def new(holder: Holder) -> "_Lease":
        return _Lease(holder, time.time() + VALID_S, uuid.uuid4().hex)

    @property
    def is_live(self) -> bool:
        return time.time() < self.expires_s and not has_ended(self.holder)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(content: bytes) -> "_Lease | None":
        """The inverse of `to_bytes`; None for invalid content. Unknown fields are ignored."""
        try:
            document = json.loads(content)
            known = {
                field.name: document["holder"][field.name]
                for field in fields(Holder)
                if field.name in document["holder"]
            }
            return _Lease(Holder(**known), float(document["expires_s"]), str(document["token"]))
        except (ValueError, TypeError, KeyError):
            return None


def check_free(output: str) -> None:
    """Checks that no other run has the lease of an output; writes nothing.

    Args:
        output: absolute folder or bucket prefix.

    Raises:
        OutputInUseError: another run has it.
        OSError: the output can't be read.
    """
    _, lease = _read(output)
    if lease is not None and lease.is_live:
        raise _in_use(output, lease)


def take(output: str, holder: Holder) -> None:
    """Acquires the lease of an output; a run that already has it keeps it.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run.

    Raises:
        OutputInUseError: another run has it.
        OSError: the output can't be written.
    """
    uri = filesystem.join(output, LEASE_FILE)
    for _ in range(_ATTEMPTS):
        mine = _Lease.new(holder).to_bytes()
        if filesystem.write_if_absent(uri, mine):
            return
        version, lease = _read(output)
        if version is None:
            continue
        if lease is not None and lease.is_live and lease.holder.run_id != holder.run_id:
            raise _in_use(output, lease)
        if filesystem.replace_if_unchanged(uri, mine, version):
            return
    raise OutputInUseError(f"{output} is being acquired by other runs at the same time")


def renew(output: str, holder: Holder) -> bool:
    """Renews the lease of a run if less than half of its time is left.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run.

    Returns:
        Whether the run still has it.

    Raises:
        OSError: the output can't be read or written.
    """
    version, lease = _read(output)
    if version is None or lease is None or lease.holder.run_id != holder.run_id:
        return False
    if lease.expires_s - time.time() < VALID_S / 2:
        # If another process of this run or another run has written in between, the next check finds that lease.
        filesystem.replace_if_unchanged(filesystem.join(output, LEASE_FILE), _Lease.new(holder).to_bytes(), version)
    return True


def release(output: str, holder: Holder) -> None:
    """Releases the lease of a run; does nothing if the run no longer has it.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run.

    Raises:
        StorageError: the output can't be read or written.
    """
    with os_errors_as(StorageError, f"the output can't be written: {LEASE_FILE}"):
        _, lease = _read(output)
        if lease is not None and lease.holder.run_id == holder.run_id:
            filesystem.delete(filesystem.join(output, LEASE_FILE))


def _read(output: str) -> tuple[str | None, _Lease | None]:
    """The file's version and content; None and None if there is no file."""
    uri = filesystem.join(output, LEASE_FILE)
    try:
        # In this order, a write between the two calls makes a later conditional write fail.
        version = filesystem.stat_file(uri).version
        return version, _Lease.from_bytes(filesystem.read_bytes(uri))
    except (FileNotFoundError, NotADirectoryError):
        return None, None


def _in_use(output: str, lease: _Lease) -> OutputInUseError:
    holder = lease.holder
    since = datetime.fromtimestamp(holder.started_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    until = datetime.fromtimestamp(lease.expires_s, UTC).strftime("%H:%M:%S")
    process = f" (process {holder.pid})" if holder.pid else ""
    return OutputInUseError(
        f"{output} is in use by a run that was started on {holder.host or 'another machine'}{process} at {since};"
        f" if that run has crashed, its lease expires at {until}"
    )
