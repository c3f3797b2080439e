"""The resume journal: what each process has finished, kept so that it outlives the process.

A bucket's objects can't be appended to, and a file a picture would be too many. So each process has one open part,
written anew as a whole (and whole or not at all) every two seconds or 256 pictures, under the same name; beyond 1 MiB,
some 8,000 pictures, the next part begins. At a job's end the graph writes all outcomes as one part a table shard and
deletes the others. What a part holds says `journal_format.py`.

An outcome is added after its files are written. So a file that is younger than the part that names it was written
later, by another model or a person: it is compared with its checksum. Both times are the store's own.
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
from pipeline.output.keeper import keep
from pipeline.storage import filesystem

PART_SUFFIX = ".jsonl.gz"
INTERVAL_S = 2.0
MAX_PENDING = 256
SEAL_BYTES = 1 << 20


class Journal:
    """One process's part of the journal; its threads share it.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run that writes there, whose lease is renewed as long as this process works; None for none.
        delivery: writes the files of which outcomes tell; what it holds is stored before they are.
        interval_s: at most so long after it was added an outcome is on disk.
        max_pending: at most so many outcomes are not on disk yet.
        seal_bytes: a part of this size is not written again.
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
        self._keeper = keep(output, holder) if holder is not None else None
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
        """Takes finished pictures in; writes at once where enough have come together, else within the interval.

        Args:
            outcomes: of pictures whose masks are written.

        Raises:
            StorageError: this or an earlier part can't be written, or another run has taken the output over.
        """
        if self._keeper is not None:
            self._keeper.check()
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
        """Writes what is pending.

        Raises:
            StorageError: it can't be written; it stays pending then.
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
                    # Else a tar file could grow on, and be younger than this part, which names its first members.
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
    try:
        filesystem.write_bytes(filesystem.join(output, JOURNAL_FOLDER, name), content, filesystem.scratch_of(output))
    except OSError as error:
        raise StorageError(f"the output can't be written: {JOURNAL_FOLDER}: {error.strerror or error}") from error


def _new_part_name() -> str:
    # The time is for people who look into the folder; the rest makes the name unique among processes.
    return f"{math.floor(time.time())}-{uuid.uuid4().hex[:16]}{PART_SUFFIX}"
