"""The format of the resume journal's parts: gzip members, each with a header line and one line per outcome.

The header is a JSON object with the number of the format; an outcome is a JSON object. Missing fields have their
defaults and unknown fields are ignored, so a field can be added without a new format. Truncated or damaged entries are
skipped; their pictures are segmented again. Format 1 is read as well.
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
    """Builds a gzip member of a header and outcomes, which are compressed as they are added."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        self._packed = [self._compressor.compress(_HEADER.encode())]

    def recording(self, outcomes: Iterable[_Outcome]) -> Iterator[_Outcome]:
        """Passes outcomes on and adds each one."""
        for outcome in outcomes:
            self.add(entry_line(outcome))
            yield outcome

    def add(self, line: str) -> None:
        """Adds a line of `entry_line`."""
        self._packed.append(self._compressor.compress(line.encode()))

    def finish(self) -> bytes:
        """Returns the member; nothing can be added after this."""
        return b"".join((*self._packed, self._compressor.flush()))


def encode_member(lines: Iterable[str]) -> bytes:
    """Encodes outcomes' lines as one gzip member with its header."""
    member = GzipMember()
    for line in lines:
        member.add(line)
    return member.finish()


def entry_line(outcome: PictureRecord | Failure) -> str:
    """An outcome as a JSON line; text that is not UTF-8 is escaped."""
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
        ValueError: the line is not an entry, or a required field is missing.
    """
    entry = json.loads(line, parse_constant=_no_constant)
    if not isinstance(entry, dict) or entry.get("kind") not in _KINDS or not isinstance(entry.get("image_id"), str):
        raise ValueError("not an entry of the journal")
    if "files" in entry:
        entry["files"] = [_build(OutputFile, file) for file in entry["files"]]
    return _build(PictureRecord, entry) if _KINDS[entry["kind"]] is PictureRecord else _build(Failure, entry)


def _build(record_type: type[_Record], entry: dict[str, Any]) -> _Record:
    known = {name: _hashable(entry[name]) for name, _ in _DEFAULTS[record_type] if name in entry}
    try:
        return record_type(**known)
    except TypeError as error:
        raise ValueError(f"a field of a journal entry is missing: {error}") from error


def entries(content: bytes) -> Iterator[tuple[str, str]]:
    """Reads the entries of one part.

    Args:
        content: the part's bytes.

    Yields:
        Image ids and lines for `parse_entry`; damaged or truncated ones are skipped.

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
    """The complete members, whose checksums zlib has verified."""
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
    raise ValueError(f"{text} is not a valid value")
