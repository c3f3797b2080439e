"""The format of the resume journal's parts: gzip members, each a header and a line for each outcome.

The header is a JSON object with the number of the format, an outcome a JSON object: data, never code. Fields that are
absent have their defaults and fields that are unknown are ignored, so that a field can be added without a new format.
What was cut off or spoilt is left out; its pictures are done again. Format 1 is read, too.
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any, TypeVar

from pipeline.core.records import Failure, OutputFile, PictureRecord
from pipeline.output.journal_v1 import keyed_entry

FORMAT = 2
_KINDS: dict[str, type[PictureRecord] | type[Failure]] = {"record": PictureRecord, "failure": Failure}
_NAMES = {record_type: kind for kind, record_type in _KINDS.items()}
_DEFAULTS: dict[type, tuple[tuple[str, Any], ...]] = {
    record_type: tuple((field.name, field.default) for field in fields(record_type))
    for record_type in (*_KINDS.values(), OutputFile)
}
_HEADER = json.dumps({"maskbeam_journal": FORMAT}) + "\n"
_GZIP = 16 + zlib.MAX_WBITS
_Outcome = TypeVar("_Outcome", PictureRecord, Failure)
_Record = TypeVar("_Record", PictureRecord, Failure, OutputFile)


class GzipMember:
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
    member = GzipMember()
    for line in lines:
        member.add(line)
    return member.finish()


def entry_line(outcome: PictureRecord | Failure) -> str:
    """An outcome as a JSON line; text that is no UTF-8 is escaped."""
    entry = {"kind": _NAMES[type(outcome)], **_changed(outcome)}
    if "files" in entry:
        entry["files"] = [_changed(file) for file in entry["files"]]
    return json.dumps(entry, separators=(",", ":")) + "\n"


def _changed(record: Any) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    values = ((name, getattr(record, name), default) for name, default in _DEFAULTS[type(record)])
    return {name: value for name, value, default in values if value != default}


def parse_entry(line: str) -> PictureRecord | Failure:
    """The inverse of `entry_line`.

    Raises:
        ValueError: the line is no entry, or lacks a field that has no default.
    """
    entry = json.loads(line, parse_constant=_no_constant)
    if not isinstance(entry, dict) or entry.get("kind") not in _KINDS or not isinstance(entry.get("image_id"), str):
        raise ValueError("not an entry of the journal")
    if "files" in entry:
        entry["files"] = [_made(OutputFile, file) for file in entry["files"]]
    return _made(PictureRecord, entry) if _KINDS[entry["kind"]] is PictureRecord else _made(Failure, entry)


def _made(record_type: type[_Record], entry: dict[str, Any]) -> _Record:
    known = {name: _hashable(entry[name]) for name, _ in _DEFAULTS[record_type] if name in entry}
    try:
        return record_type(**known)
    except TypeError as error:
        raise ValueError(f"an entry of the journal lacks a field: {error}") from error


def entries(content: bytes) -> Iterator[tuple[str, str]]:
    """Reads the entries of one part.

    Args:
        content: the part's bytes.

    Yields:
        Image ids and lines for `parse_entry`. What is spoilt or cut off is left out.

    Raises:
        ValueError: the part is of a later format.
    """
    for text in _members(content):
        first, _, body = text.partition("\n")
        try:
            header = json.loads(first)
            written = int(header["maskbeam_journal"])
        except (ValueError, TypeError, KeyError):
            continue
        if written > FORMAT:
            raise ValueError(f"its journal has format {written}, this version of maskbeam reads up to {FORMAT}")
        for line in filter(None, body.split("\n")):
            try:
                entry = line if written == FORMAT else json.dumps(keyed_entry(header, json.loads(line)))
                yield parse_entry(entry).image_id, entry
            except (ValueError, TypeError, AttributeError):
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


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no value of the journal")
