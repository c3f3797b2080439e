"""The resume journal: the outcomes of finished pictures, stored while the job runs.

Objects in a bucket can't be appended to, and one file per picture would be too many. So each process has one open part,
which it rewrites atomically under the same name every two seconds or 256 pictures; above 1 MiB, about 8,000 pictures,
it starts the next one. At the end of a job, the graph writes all outcomes as one part per table shard and deletes the
others. `journal_format.py` defines the content of a part.

An outcome is added after its files are written. So a file with a later modification time than the part that names it
was written by something else, and is compared with its checksum. Both times are by the store's clock.
"""

import math
import threading
import time
import uuid
from collections.abc import Sequence

from pipeline.core.errors import StorageError
from pipeline.core.layout import JOURNAL_FOLDER
from pipeline.core.records import Failure, PictureRecord
from pipeline.output.delivery import Delivery
from pipeline.output.holder import Holder
from pipeline.output.journal_format import encode_member, entry_line
from pipeline.output.lease_renewal import renewer_of
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

PART_SUFFIX = ".jsonl.gz"
INTERVAL_S = 2.0
MAX_PENDING = 256
SEAL_BYTES = 1 << 20


class Journal:
    """One process's part of the journal; thread-safe.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run, whose lease is renewed while this process works; None without a lease.
        delivery: writes the files of the outcomes; it is flushed before they are stored.
        interval_s: maximum time between adding an outcome and storing it.
        max_pending: maximum number of outcomes that are not stored yet.
        seal_bytes: a part of at least this size is not written again.
    """

    def __init__(
        self,
        output: str,
        holder: Holder | None = None,
        delivery: Delivery | None = None,
        *,
        interval_s: float = INTERVAL_S,
        max_pending: int = MAX_PENDING,
        seal_bytes: int = SEAL_BYTES,
    ) -> None:
        self._output = output
        self._renewer = renewer_of(output, holder) if holder is not None else None
        self._delivery = delivery
        self._interval_s = interval_s
        self._max_pending = max_pending
        self._seal_bytes = seal_bytes
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._pending: list[str] = []
        self._timer: threading.Timer | None = None
        self._fault: StorageError | None = None
        self._part = b""
        self._part_name = _new_part_name()

    def add(self, outcomes: Sequence[PictureRecord | Failure]) -> None:
        """Adds finished pictures; writes at once if enough are pending, else within the interval.

        Args:
            outcomes: of pictures whose files are written.

        Raises:
            StorageError: this or an earlier part can't be written, or another run has taken the output over.
        """
        if self._renewer is not None:
            self._renewer.check()
        lines = [entry_line(outcome) for outcome in outcomes]
        with self._lock:
            self._pending.extend(lines)
            is_full = len(self._pending) >= self._max_pending
            if self._timer is None and not is_full and self._pending:
                self._timer = threading.Timer(self._interval_s, self._flush_later)
                self._timer.daemon = True
                self._timer.start()
        if self._fault is not None:
            raise self._fault
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Writes pending outcomes.

        Raises:
            StorageError: they can't be written; they stay pending.
        """
        with self._writing:
            with self._lock:
                lines, self._pending = self._pending, []
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            if not lines:
                return
            part = self._part + encode_member(lines)
            try:
                if self._delivery is not None:
                    self._delivery.flush()
                write_part(self._output, self._part_name, part)
            except StorageError:
                with self._lock:
                    self._pending = lines + self._pending
                raise
            self._part = part
            if len(part) >= self._seal_bytes:
                self._part, self._part_name = b"", _new_part_name()
                if self._delivery is not None:
                    # Otherwise a tar file that this part names could grow and get a later modification time.
                    self._delivery.seal()

    def _flush_later(self) -> None:
        try:
            self.flush()
        except StorageError as error:
            self._fault = error


def write_part(output: str, name: str, content: bytes) -> None:
    """Writes a part of an output's journal.

    Args:
        output: absolute folder or bucket prefix.
        name: the part's base name.
        content: gzip members.

    Raises:
        StorageError: it can't be written.
    """
    with os_errors_as(StorageError, f"the output can't be written: {JOURNAL_FOLDER}"):
        filesystem.write_bytes(filesystem.join(output, JOURNAL_FOLDER, name), content, filesystem.scratch_of(output))


def _new_part_name() -> str:
    # The time is for users who look into the folder; the rest makes the name unique among processes.
    return f"{math.floor(time.time())}-{uuid.uuid4().hex[:16]}{PART_SUFFIX}"
