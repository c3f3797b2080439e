"""Compact coders for records that cross a shuffle: a record becomes a tuple of primitives, not a pickle."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

from apache_beam.coders import Coder, FastPrimitivesCoder
from apache_beam.coders.typecoders import registry

from pipeline.core.records import (
    Failure,
    FileRef,
    Located,
    OutputFile,
    PictureRecord,
    Spooled,
    Update,
    ZipMember,
)

_TYPES: tuple[type[Any], ...] = (
    FileRef,
    Located,
    PictureRecord,
    Failure,
    ZipMember,
    Spooled,
    OutputFile,
    Update,
)
_FIELDS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    record_type: attrgetter(*record_type.__dataclass_fields__) for record_type in _TYPES
}
# Which fields of a record are records themselves, tuples of records, or None.
_NESTED: dict[type, tuple[int, ...]] = {
    record_type: tuple(position for position, name in enumerate(record_type.__dataclass_fields__) if name in names)
    for record_type, names in (
        (Located, ("image", "truth", "kept_files")),
        (FileRef, ("packing",)),
        (PictureRecord, ("files",)),
        (Update, ("picture", "record", "mask")),
    )
}
_Record = TypeVar("_Record", FileRef, Located, PictureRecord, Failure, Update)


def pack(value: Any) -> Any:
    """A record as (type's number, field, field …), nested records likewise; None stays None."""
    if value is None:
        return None
    record_type = type(value)
    if record_type is tuple:
        return tuple(map(pack, value))
    fields = list(_FIELDS[record_type](value))
    for position in _NESTED.get(record_type, ()):
        fields[position] = pack(fields[position])
    return (_TYPES.index(record_type), *fields)


def unpack(packed: Any, record_type: type[_Record]) -> _Record:
    """The inverse of `pack` for a record of a known type."""
    if packed[0] != _TYPES.index(record_type):
        raise ValueError(f"not a {record_type.__name__}: {packed!r:.80}")
    record: _Record = _unpack(packed)
    return record


def _unpack(packed: Any) -> Any:
    if packed is None:
        return None
    if not packed or type(packed[0]) is tuple:  # a record begins with a number
        return tuple(map(_unpack, packed))
    record_type, values = _TYPES[packed[0]], list(packed[1:])
    for position in _NESTED.get(record_type, ()):
        values[position] = _unpack(values[position])
    return record_type(*values)


class _RecordCoder(Coder):
    """Encodes one type of record."""

    record_type: type

    def __init__(self) -> None:
        self._primitives = FastPrimitivesCoder()

    def encode(self, value: Any) -> bytes:
        return bytes(self._primitives.encode(pack(value)))

    def decode(self, encoded: bytes) -> Any:
        return unpack(self._primitives.decode(encoded), self.record_type)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type:
        return self.record_type

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class LocatedCoder(_RecordCoder):
    """Encodes `Located`."""

    record_type = Located


class PictureRecordCoder(_RecordCoder):
    """Encodes `PictureRecord`."""

    record_type = PictureRecord


class FailureCoder(_RecordCoder):
    """Encodes `Failure`."""

    record_type = Failure


class UpdateCoder(_RecordCoder):
    """Encodes `Update`."""

    record_type = Update


registry.register_coder(Located, LocatedCoder)
registry.register_coder(Update, UpdateCoder)
registry.register_coder(PictureRecord, PictureRecordCoder)
registry.register_coder(Failure, FailureCoder)
