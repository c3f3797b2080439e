"""Manifests: a CSV or JSON-lines file that names pictures, and masks beside them."""

import csv
import io
import json
import os.path
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.core.errors import OptionError
from pipeline.core.records import Failure, FileRef
from pipeline.sources.source import Address, Ignored, Listed, Source
from pipeline.storage import storage

MANIFEST_ENDINGS = (".csv", ".jsonl", ".ndjson")
_OWN_COLUMNS = ("image", "image_id", "mask")


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
        return storage.base_name(self.uri).rpartition(".")[0]

    def has_column(self, column: str) -> bool:
        """See `Source.has_column`."""
        return manifest_has_column(self.uri, column)

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """See `Source.items`."""
        for row in read_manifest(self.uri):
            yield row if isinstance(row, Failure) else self.named(row.image_id, row.image, row.mask, row.columns)


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One picture that a manifest names.

    Args:
        image_id: the column `image_id`, else the picture's path below the common parent of all.
        image: the picture's file.
        mask: the mask's file, None where the row names none.
        columns: all further columns, name and value.
    """

    image_id: str
    image: FileRef
    mask: FileRef | None
    columns: tuple[tuple[str, str], ...]


def read_manifest(uri: str) -> Iterator[ManifestRow | Failure]:
    """Reads a manifest's rows. Relative paths in it count from its own folder.

    Args:
        uri: absolute path or URI of a `.csv` (a header line, RFC 4180, UTF-8) or `.jsonl` (an object a line) file.

    Yields:
        A row a picture, and a failure for each row that names none.

    Raises:
        OptionError: the file is no such table, or has no column `image`.
        OSError: it can't be read.
    """
    folder = uri.rpartition("/")[0]
    # The common parent must be known before the first id, so the rows are gone through twice and not kept.
    parent: str | None = None
    for _, row in _rows(uri):
        if row.get("image"):
            above = posixpath.dirname(row["image"])
            parent = above if parent is None else _common_parent(parent, above)
    for line, row in _rows(uri):
        if not row.get("image"):
            yield Failure("", uri, "locate", "NoImage", f"line {line} of the manifest names no image")
            continue
        mask = row.get("mask")
        yield ManifestRow(
            row.get("image_id") or row["image"][len(parent or "") :].lstrip("/"),
            _reference(folder, row["image"]),
            _reference(folder, mask) if mask else None,
            tuple((name, value) for name, value in row.items() if name not in _OWN_COLUMNS),
        )


def manifest_has_column(uri: str, column: str) -> bool:
    """Whether a manifest has a column of this name, for JSON lines in any of its rows.

    Raises:
        OptionError: the file is no such table.
        OSError: it can't be read.
    """
    if uri.lower().endswith(".csv"):
        return column in (csv.DictReader(_text(uri)).fieldnames or ())
    return any(column in row for _, row in _rows(uri))


def _reference(folder: str, path: str) -> FileRef:
    """Where a path that a manifest names lies; local files are looked up, so that a change of theirs is seen."""
    is_whole = storage.is_remote(path) or os.path.isabs(path) or path.startswith("file://")
    uri = storage.absolute(path if is_whole else storage.join(folder, path))
    if not storage.is_remote(uri):
        try:
            stored = storage.stat_file(uri)
        except (OSError, ValueError):  # the read of it will say what is wrong
            return FileRef(uri)
        return FileRef(uri, stored.size_bytes, stored.version)
    return FileRef(uri)


def _common_parent(first: str, second: str) -> str:
    shared = []
    for left, right in zip(first.split("/"), second.split("/"), strict=False):
        if left != right:
            break
        shared.append(left)
    return "/".join(shared)


def _text(uri: str) -> io.TextIOBase:
    try:
        return io.StringIO(storage.read_bytes(uri).decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise OptionError(f"manifest {uri} is not UTF-8 text") from error


def _rows(uri: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows, every value as text without surrounding blanks, empty ones left out."""
    if uri.lower().endswith(".csv"):
        reader = csv.DictReader(_text(uri), strict=True)
        if "image" not in (reader.fieldnames or ()):
            raise OptionError(f"manifest {uri} has no column 'image' in its header")
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
