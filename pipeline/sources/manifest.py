"""Manifests as sources: CSV or JSON-lines files that name pictures and, optionally, their masks."""

import csv
import io
import json
import os.path
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

from pipeline.core.errors import ErrorType, OptionError
from pipeline.core.records import Failure, FileRef
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Address, Listed, Source
from pipeline.storage import filesystem
from pipeline.storage.lookups import look_up_all

MANIFEST_ENDINGS = (".csv", ".jsonl", ".ndjson")
_IMAGE, _IMAGE_ID, _MASK = OWN_COLUMNS = ("image", "image_id", "mask")


@dataclass(frozen=True, slots=True)
class ManifestSource(Source):
    """The pictures that a manifest names."""

    @classmethod
    def recognise(cls, address: Address) -> Sequence[Source] | None:
        """See `Source.recognise`."""
        return [cls(address.uri)] if address.uri.lower().endswith(MANIFEST_ENDINGS) and address.is_file else None

    @property
    def base_name(self) -> str:
        """The file's name without its ending."""
        return filesystem.base_name(self.uri).rpartition(".")[0]

    @property
    def is_index(self) -> bool:
        """A manifest lists names."""
        return True

    def has_column(self, column: str) -> bool:
        """See `Source.has_column`."""
        return manifest_has_column(self.uri, column)

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """See `Source.items`."""
        for row in read_manifest(self.uri, of_masks=self.is_truth):
            if isinstance(row, BrokenRow):
                yield self.failure(self.uri, "", ErrorType.NO_IMAGE, row.message)
            else:
                yield self.listed(row.image_id, row.image, row.mask, row.columns)


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One picture that a manifest names.

    Args:
        image_id: the column `image_id`, else the picture's path below the common parent of all pictures.
        image: the picture's file; the mask's file in a manifest of masks.
        mask: the mask's file; None if the row has none.
        columns: name and value of all other columns.
    """

    image_id: str
    image: FileRef
    mask: FileRef | None
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row without a picture.

    Args:
        message: one sentence for a person.
    """

    message: str


def read_manifest(uri: str, *, of_masks: bool = False) -> Iterator[ManifestRow | BrokenRow]:
    """Reads the rows of a manifest. Relative paths are relative to its folder.

    Args:
        uri: absolute path or URI of a `.csv` (a header line, RFC 4180, UTF-8) or `.jsonl` (an object a line) file.
        of_masks: whether to read masks instead of pictures, which needs the column `mask`. Ids are as in a manifest of
            pictures; without the columns `image` and `image_id`, they are made from the masks' paths.

    Yields:
        One row per picture, and a broken row for each row without one. Rows without a mask are skipped if `of_masks`.

    Raises:
        OptionError: the file is not a valid table, or has no column `image` (`mask` if `of_masks`).
        OSError: it can't be read.
    """
    folder = uri.rpartition("/")[0]
    # The first id depends on all columns and paths, so the rows are read twice instead of kept.
    columns = _header(uri)
    parents: dict[str, str] = {}
    for _, row in _rows(uri):
        columns.update(row)
        for name in (_IMAGE, _MASK):
            if path := row.get(name):
                above = posixpath.dirname(_path(path))
                parents[name] = _common_parent(parents.get(name, above), above)
    if of_masks and _MASK not in columns:
        raise OptionError(f"manifest {uri} has no column 'mask', which names the masks")
    if _IMAGE not in columns and not of_masks:
        raise OptionError(f"manifest {uri} has no column 'image'")
    named_by = _MASK if of_masks and columns.isdisjoint((_IMAGE, _IMAGE_ID)) else _IMAGE
    parent = parents.get(named_by, "")
    named = _named_rows(uri, folder, named_by, parent, of_masks=of_masks)
    yield from _looked_up(named)


def _path(address: str) -> str:
    """The part of an address that ids are made of: without the query of a URL, which may be a signature."""
    return re.split("[?#]", address, maxsplit=1)[0] if address.startswith(filesystem.WEB_SCHEMES) else address


_NamedRow = tuple[str, str, str, tuple[tuple[str, str], ...]]
"""Image id, the URIs of the image and of the mask ("" for none), and the further columns."""


def _named_rows(
    uri: str, folder: str, named_by: str, parent: str, *, of_masks: bool
) -> Iterator[_NamedRow | BrokenRow]:
    needed = _MASK if of_masks else _IMAGE
    for line, row in _rows(uri):
        if of_masks and _MASK not in row:
            continue
        image_id = row.get(_IMAGE_ID) or _path(row.get(named_by, ""))[len(parent) :].lstrip("/")
        if needed not in row or not image_id:
            yield BrokenRow(f"line {line} of the manifest has no image")
            continue
        mask = _address(folder, row[_MASK]) if _MASK in row else ""
        columns = tuple((name, value) for name, value in row.items() if name not in OWN_COLUMNS)
        yield image_id, _address(folder, row[needed]), mask, columns


def _looked_up(rows: Iterator[_NamedRow | BrokenRow]) -> Iterator[ManifestRow | BrokenRow]:
    """Adds the sizes and versions of files to rows, so that a changed file is detected."""
    rows, ahead = tee(rows)
    uris = (uri for row in ahead if not isinstance(row, BrokenRow) for uri in row[1:3] if uri)
    found = look_up_all(uris)
    for row in rows:
        if isinstance(row, BrokenRow):
            yield row
            continue
        image_id, image, mask, columns = row
        yield ManifestRow(
            image_id, _reference(image, next(found)), _reference(mask, next(found)) if mask else None, columns
        )


def manifest_has_column(uri: str, column: str) -> bool:
    """Whether a manifest has a column of this name; for JSON lines, in any row.

    Raises:
        OptionError: the file is not a valid table.
        OSError: it can't be read.
    """
    return column in _header(uri) or any(column in row for _, row in _rows(uri))


def _header(uri: str) -> set[str]:
    """The columns of a CSV file's first line; none for JSON lines."""
    return set(csv.DictReader(_text(uri)).fieldnames or ()) if uri.lower().endswith(".csv") else set()


def _address(folder: str, path: str) -> str:
    """The absolute path or URI of a path in a manifest in a folder."""
    is_whole = filesystem.is_remote(path) or os.path.isabs(path) or path.startswith("file://")
    return filesystem.absolute(path if is_whole else filesystem.join(folder, path))


def _reference(uri: str, stored: filesystem.StoredFile | None) -> FileRef:
    """A file's reference; without size and version if it can't be looked up: reading it reports the reason."""
    return FileRef(uri) if stored is None else FileRef(uri, stored.size_bytes, stored.version)


def _common_parent(first: str, second: str) -> str:
    shared = []
    for left, right in zip(first.split("/"), second.split("/"), strict=False):
        if left != right:
            break
        shared.append(left)
    return "/".join(shared)


def _text(uri: str) -> io.TextIOBase:
    try:
        return io.StringIO(filesystem.read_bytes(uri).decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise OptionError(f"manifest {uri} is not UTF-8 text") from error


def _rows(uri: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows; values are text without surrounding spaces, and empty ones are left out."""
    if uri.lower().endswith(".csv"):
        reader = csv.DictReader(_text(uri), strict=True)
        try:
            for row in reader:
                yield reader.line_num, {n: v.strip() for n, v in row.items() if n and isinstance(v, str) and v.strip()}
        except csv.Error as error:
            raise OptionError(f"manifest {uri}, line {reader.line_num}: {error}") from error
        return
    for number, line in enumerate(_text(uri), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise OptionError(f"manifest {uri}, line {number}, is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise OptionError(f"manifest {uri}, line {number}, is not a JSON object")
        yield number, {str(n): _cell(v) for n, v in row.items() if v is not None and _cell(v)}


def _cell(value: object) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
