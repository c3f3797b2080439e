"""From what stands behind `--input` to named files. Only names and sizes are read here, never pictures."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.core.decode import has_picture_ending
from pipeline.core.errors import OptionError
from pipeline.core.records import Failure, FileRef
from pipeline.sources.archives.listing import ARCHIVE_ENDINGS, Entry, NoPictures, Refused, list_archive
from pipeline.sources.archives.record_files import RecordFile, list_records
from pipeline.sources.manifest import MANIFEST_ENDINGS, manifest_has_column, read_manifest
from pipeline.sources.tfds import TFDS_SCHEME, tfds_files
from pipeline.storage import storage

_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_RECORDS = re.compile(r"\.tfrecords?(?![a-z])", re.IGNORECASE)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed `--input` or `--ground_truth`.

    Args:
        kind: `folder`, `glob`, `archive`, `manifest` or `records`.
        uri: absolute path, URI or pattern.
        prefix: what stands before every id, "" for a lone source.
        spool: where pictures are laid down that can't be read by range, None while names alone are wanted.
        records: what to list of a file of records.
    """

    kind: str
    uri: str
    prefix: str = ""
    spool: str | None = None
    records: RecordFile | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One file that a source holds.

    Args:
        image_id: its id in the job, prefix included.
        file: where it lies.
        truth: the mask that a manifest names beside it.
        columns: a manifest's further columns.
    """

    image_id: str
    file: FileRef
    truth: FileRef | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def pairing_key(self) -> str:
        """What a picture and its mask share: the id without a picture's ending."""
        return pairing_key(self.image_id)


def pairing_key(image_id: str) -> str:
    """An id without a picture's ending, which a picture shares with its mask."""
    return image_id.rpartition(".")[0] if has_picture_ending(image_id) else image_id


@dataclass(frozen=True, slots=True)
class Ignored:
    """Files of a source that are no pictures by their names.

    Args:
        files: how many.
    """

    files: int


def parse_sources(texts: Sequence[str], option: str) -> list[list[Source]]:
    """Parses all sources of an option and gives them their prefixes.

    Args:
        texts: what the user wrote, in order.
        option: `--input` or `--ground_truth`, for messages.

    Returns:
        The sources of each text: one, for a glob that matches archives one an archive, for records one a file. Where
        there are several in all, each id is prefixed by its source's base name.

    Raises:
        OptionError: a source isn't there or is of no known kind, or two have the same base name.
    """
    groups = [_parse(text, option) for text in texts]
    # The files of one set of records are one source, the archives of one glob are several.
    units = [prefix for group in groups for prefix in _units(group)]
    if len(units) == 1:
        return groups
    repeated = next((prefix for prefix, count in Counter(units).items() if count > 1), None)
    if repeated is not None:
        raise OptionError(f"{option}: two sources have the base name {repeated!r}; their ids would collide")
    return [[replace(source, prefix=_prefix(source)) for source in group] for group in groups]


def _units(group: Sequence[Source]) -> list[str]:
    prefixes = [_prefix(source) for source in group]
    return prefixes[:1] if group and group[0].kind == "records" else prefixes


def parse_truths(texts: Sequence[str], pictures: Sequence[Sequence[Source]]) -> list[Source]:
    """Parses the sources of masks and gives them the prefixes of the pictures that they belong to.

    Args:
        texts: `--ground_truth` as written, none or as many as `--input`.
        pictures: what `parse_sources` made of `--input`.

    Returns:
        The sources of masks. Several archives behind one `--input` take as many behind its `--ground_truth`, in the
        order of their names.

    Raises:
        OptionError: a source isn't there or is of no known kind, or archives and their masks differ in number.
    """
    truths: list[Source] = []
    for text, group in zip(texts, pictures, strict=False):
        found = _parse(text, "--ground_truth")
        if len(_units(group)) == 1:
            truths += [replace(truth, prefix=group[0].prefix) for truth in found]
        elif len(found) == len(group):
            truths += [replace(truth, prefix=picture.prefix) for truth, picture in zip(found, group, strict=True)]
        else:
            raise OptionError(f"--ground_truth {text}: {len(found)} sources of masks for {len(group)} archives")
    return truths


def _parse(text: str, option: str) -> list[Source]:
    if not text:
        raise OptionError(f"{option}: an empty source")
    if "://" in text and not text.startswith((*storage.REMOTE_SCHEMES, "file://")):
        raise OptionError(f"{option} {text}: unknown kind of storage {text.partition('://')[0]}://")
    uri = storage.absolute(text)
    if text.startswith(TFDS_SCHEME):
        return [Source("records", text, records=file) for file in tfds_files(text)]
    lower = uri.lower()
    try:
        if _RECORDS.search(storage.base_name(lower)) and not (not storage.is_remote(uri) and storage.is_folder(uri)):
            return _records(text, option)
        if _GLOB_CHARACTERS.search(text) and not storage.exists(uri):
            if lower.endswith(ARCHIVE_ENDINGS):
                return [Source("archive", stored.uri) for stored in storage.list_glob(uri)]
            return [Source("glob", uri)]
        if not storage.is_remote(uri) and storage.is_folder(uri):
            return [Source("folder", uri)]
        there = storage.exists(uri)
        for kind, endings in (("archive", ARCHIVE_ENDINGS), ("manifest", MANIFEST_ENDINGS)):
            if there and lower.endswith(endings):
                return [Source(kind, uri)]
        if storage.is_remote(uri) and storage.is_folder(uri):
            return [Source("folder", uri)]
    except OSError as error:
        raise OptionError(f"{option} {text}: can't be looked up: {error.strerror or error}") from error
    if not there:
        raise OptionError(f"{option} {text}: no such file or folder")
    if has_picture_ending(uri):
        return [Source("glob", uri)]
    raise OptionError(
        f"{option} {text}: neither a folder, a glob, a picture, an archive (.tar, .tar.gz, .zip), records"
        " (.tfrecord) nor a manifest (.csv, .jsonl)"
    )


def _records(text: str, option: str) -> list[Source]:
    """The files of a set: the one that is named, or those that match. A number tells records without names apart."""
    uri = storage.absolute(text)
    found = [uri] if storage.exists(uri) else [stored.uri for stored in storage.list_glob(uri)]
    if not found:
        raise OptionError(f"{option} {text}: no such file")
    files = []
    for file in found:
        # `train.tfrecord-00002-of-00005` names its Examples train-00002-17; a file on its own train-17.
        split, _, rest = storage.base_name(file).partition(".tfrecord")
        shard = re.search(r"\d+(?=-of-)", rest)
        unnamed = f"{split}-{shard[0]}" if shard and len(found) > 1 else split
        files.append(Source("records", uri, records=RecordFile(file, unnamed)))
    return files


def _prefix(source: Source) -> str:
    """The base name of a source: the folder's, the file's without its ending, the glob's fixed folder's."""
    if source.kind == "glob":
        return storage.base_name(_fixed_folder(source.uri)) or "root"
    if source.uri.startswith(TFDS_SCHEME):
        return re.split("[/:]", source.uri.removeprefix(TFDS_SCHEME))[0]
    name = storage.base_name(source.uri)
    if source.kind == "folder":
        return name
    if source.kind == "records":
        return _RECORDS.split(name)[0] or name
    ending = next((ending for ending in ARCHIVE_ENDINGS if name.lower().endswith(ending)), None)
    return name[: -len(ending)] if ending else name.rpartition(".")[0]


def _fixed_folder(pattern: str) -> str:
    """The folders before a pattern's first wildcard."""
    match = _GLOB_CHARACTERS.search(pattern)
    return (pattern[: match.start()] if match else pattern).rpartition("/")[0]


def list_source(source: Source) -> Iterator[Listed | Ignored | Failure]:
    """Lists what a source holds.

    Args:
        source: a parsed source.

    Yields:
        The files, a failure for each that can't be named safely or that a manifest's row doesn't name, and at the end
        how many were ignored.

    Raises:
        OSError: the source can't be listed.
    """
    if source.kind == "manifest":
        for row in read_manifest(source.uri):
            yield row if isinstance(row, Failure) else _named(source, row.image_id, row.image, row.mask, row.columns)
        return
    if source.kind == "archive":
        yield from _named_entries(source, source.uri, list_archive(source.uri, source.spool))
        return
    if source.records is not None:
        yield from _named_entries(source, source.records.uri, list_records(source.records, source.spool))
        return
    is_folder = source.kind == "folder"
    root = source.uri if is_folder else _fixed_folder(source.uri)
    ignored = 0
    for stored in storage.list_files(source.uri) if is_folder else storage.list_glob(source.uri):
        if not has_picture_ending(stored.uri):
            ignored += 1
            continue
        relative = stored.uri[len(root) :].lstrip("/")
        yield _named(source, relative, FileRef(stored.uri, stored.size_bytes, stored.version))
    yield Ignored(ignored)


def _named_entries(
    source: Source, uri: str, items: Iterator[Entry | Refused | NoPictures] | Iterator[Entry | Refused]
) -> Iterator[Listed | Ignored | Failure]:
    for item in items:
        if isinstance(item, Entry):
            yield _named(source, item.name, item.file, item.truth)
        elif isinstance(item, NoPictures):
            yield Ignored(item.members)
        else:
            image_id = f"{source.prefix}/{item.name}" if source.prefix and item.name else item.name
            address = f"{uri}!{item.name}" if item.name else uri
            yield Failure(_shown(image_id), _shown(address), "locate", item.error_type, item.message)


def _named(
    source: Source,
    name: str,
    file: FileRef,
    truth: FileRef | None = None,
    columns: tuple[tuple[str, str], ...] = (),
) -> Listed | Failure:
    image_id = f"{source.prefix}/{name}" if source.prefix else name
    fault = unsafe_name(image_id)
    if fault is None:
        return Listed(image_id, file, truth, columns)
    message = f"the name {fault}; no output can bear it"
    return Failure(_shown(image_id), _shown(file.display_uri), "locate", "UnsafeName", message)


def _shown(name: str) -> str:
    """A name that can be written as UTF-8: bytes that are none stand as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def unsafe_name(image_id: str) -> str | None:
    """Says why an id can't be a file's name below the output, or None where it can.

    Args:
        image_id: the id, with `/` between its parts.

    Returns:
        What is wrong, to follow "the name".
    """
    try:
        image_id.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _CONTROL_CHARACTERS.search(image_id):
        return "holds control characters"
    if not image_id:
        return "is empty"
    if image_id.startswith("/") or "\\" in image_id or re.match(r"[A-Za-z]:", image_id):
        return "is absolute or holds a backslash"
    if any(part in ("", ".", "..") for part in image_id.split("/")):
        return "holds empty, '.' or '..' parts"
    return None


def holds_something(source: Source) -> bool:
    """Whether a source names at least one picture; reads no further than the first."""
    return any(not isinstance(item, Ignored) for item in list_source(source))


def has_column(source: Source, column: str) -> bool:
    """Whether a source is a manifest with a column of this name."""
    return source.kind == "manifest" and manifest_has_column(source.uri, column)
