"""The resume journal: what each process has finished, kept so that it outlives the process.

A bucket's objects can't be appended to, and a file a picture would be too many. So each process has one open part,
written anew as a whole (and whole or not at all) every two seconds or 256 pictures, under the same name; beyond 1 MiB,
some 8,000 pictures, the next part begins. At a job's end the graph writes all outcomes as one part a table shard and
deletes the others. A part is a row of gzip members, each a JSON header and then a JSON line an outcome: data, never
code; what was cut off or spoilt is left out, its pictures are done again.

An outcome is added after its mask stands. So a mask that is younger than the part that speaks of it was written by
somebody else later (another model, a person), and the picture is done again: both times are the store's own.
"""

import json
import math
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from pipeline.core.errors import StorageError
from pipeline.core.layout import JOURNAL_FOLDER
from pipeline.core.records import Failure, PictureRecord
from pipeline.storage import storage

PART_ENDING = ".jsonl.gz"
INTERVAL_S = 2.0
MOST_PENDING = 256
SEAL_BYTES = 1 << 20
_FORMAT = 1
_KINDS: dict[str, type[PictureRecord] | type[Failure]] = {"record": PictureRecord, "failure": Failure}
_FIELDS = {kind: tuple(record_type.__dataclass_fields__) for kind, record_type in _KINDS.items()}
_GETTERS: dict[type, tuple[str, Callable[[Any], tuple[Any, ...]]]] = {
    record_type: (kind, attrgetter(*_FIELDS[kind])) for kind, record_type in _KINDS.items()
}
_HEADER = json.dumps({"maskbeam_journal": _FORMAT, **_FIELDS}) + "\n"
_GZIP = 16 + zlib.MAX_WBITS
_Outcome = TypeVar("_Outcome", PictureRecord, Failure)


class Journal:
    """One process's part of the journal; its threads share it.

    Args:
        output: absolute folder or bucket prefix.
        interval_s: at most so long after it was added an outcome is on disk.
        most_pending: at most so many outcomes are not on disk yet.
        seal_bytes: a part of this size is not written again.
    """

    def __init__(
        self,
        output: str,
        *,
        interval_s: float = INTERVAL_S,
        most_pending: int = MOST_PENDING,
        seal_bytes: int = SEAL_BYTES,
    ) -> None:
        self._output = output
        self._interval_s = interval_s
        self._most_pending = most_pending
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
            StorageError: this or an earlier part can't be written.
        """
        lines = [entry_line(outcome) for outcome in outcomes]
        with self._lock:
            self._pending.extend(lines)
            is_full = len(self._pending) >= self._most_pending
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
                write_part(self._output, self._part_name, part)
            except StorageError:
                with self._lock:
                    self._pending = lines + self._pending
                raise
            self._part = part
            if len(part) >= self._seal_bytes:
                self._part, self._part_name = b"", _new_part_name()

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
        storage.write_bytes(storage.join(output, JOURNAL_FOLDER, name), content, storage.scratch_of(output))
    except OSError as error:
        raise StorageError(f"the output can't be written: {JOURNAL_FOLDER}: {error.strerror or error}") from error


class Member:
    """A gzip member in the making: a header and the lines of outcomes, kept packed as they come."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        self._packed = [self._compressor.compress(_HEADER.encode())]

    def noted(self, outcomes: Iterable[_Outcome]) -> Iterator[_Outcome]:
        """Adds outcomes as they pass."""
        for outcome in outcomes:
            self.add(entry_line(outcome))
            yield outcome

    def add(self, line: str) -> None:
        """Adds a line of `entry_line`."""
        self._packed.append(self._compressor.compress(line.encode()))

    def finish(self) -> bytes:
        """The member; nothing can be added after this."""
        return b"".join((*self._packed, self._compressor.flush()))


def encode_member(lines: Iterable[str]) -> bytes:
    """Encodes outcomes' lines as one gzip member with its header."""
    member = Member()
    for line in lines:
        member.add(line)
    return member.finish()


def entry_line(outcome: PictureRecord | Failure) -> str:
    """An outcome as a JSON line; text that is no UTF-8 is escaped."""
    kind, fields = _GETTERS[type(outcome)]
    return json.dumps([kind, *fields(outcome)], separators=(",", ":")) + "\n"


def parse_entry(line: str) -> PictureRecord | Failure:
    """The inverse of `entry_line`.

    Raises:
        ValueError: the line is none of its kind.
    """
    values = json.loads(line, parse_constant=_no_constant)
    if not isinstance(values, list) or not values or values[0] not in _KINDS:
        raise ValueError("not an entry of the journal")
    kind, *fields = values
    if len(fields) != len(_FIELDS[kind]) or not isinstance(fields[0], str):
        raise ValueError("an entry of the journal with other fields")
    return _KINDS[kind](*map(_hashable, fields))


def entries(content: bytes) -> Iterator[tuple[str, str]]:
    """Reads the entries of one part.

    Args:
        content: the part's bytes.

    Yields:
        Image ids and lines for `parse_entry`. What is spoilt, cut off or of another format is left out.
    """
    for text in _members(content):
        header, _, body = text.partition("\n")
        if header + "\n" != _HEADER:
            continue
        for line in filter(None, body.split("\n")):
            try:
                yield parse_entry(line).image_id, line
            except (ValueError, TypeError):
                continue


def _members(content: bytes) -> Iterator[str]:
    """The whole members, whose checksums zlib has proven."""
    while content:
        decompressor = zlib.decompressobj(_GZIP)
        try:
            text = decompressor.decompress(content) + decompressor.flush()
            if not decompressor.eof:
                return
            yield text.decode()
        except (zlib.error, UnicodeDecodeError):
            return
        content = decompressor.unused_data


def _new_part_name() -> str:
    # The time is for people who look into the folder; the rest makes the name unique among processes.
    return f"{math.floor(time.time())}-{uuid.uuid4().hex[:16]}{PART_ENDING}"


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no value of the journal")
