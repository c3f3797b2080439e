"""From what stands behind `--input` to named files. Only names and sizes are read here, never pictures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.core.decode import has_picture_ending
from pipeline.core.errors import OptionError
from pipeline.core.records import Failure, FileRef
from pipeline.stages import storage
from pipeline.stages.manifest import MANIFEST_ENDINGS, read_manifest

_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
_LATER_KINDS = (".tar", ".tar.gz", ".tgz", ".zip")


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed `--input` or `--ground_truth`.

    Args:
        kind: `folder`, `glob` or `manifest`.
        uri: absolute path, URI or pattern.
        prefix: what stands before every id, "" for a lone source.
    """

    kind: str
    uri: str
    prefix: str = ""


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
        return self.image_id.rpartition(".")[0] if has_picture_ending(self.image_id) else self.image_id


@dataclass(frozen=True, slots=True)
class Ignored:
    """Files of a source that are no pictures by their names.

    Args:
        files: how many.
    """

    files: int


def parse_sources(texts: Sequence[str], option: str) -> list[Source]:
    """Parses all sources of an option and gives them their prefixes.

    Args:
        texts: what the user wrote, in order.
        option: `--input` or `--ground_truth`, for messages.

    Returns:
        A source a text; with several, each id is prefixed by its source's base name.

    Raises:
        OptionError: a source isn't there or is of no known kind, or two have the same base name.
    """
    sources = [_parse(text, option) for text in texts]
    if len(sources) == 1:
        return sources
    prefixes = [_prefix(source) for source in sources]
    for prefix in prefixes:
        if prefixes.count(prefix) > 1:
            raise OptionError(f"{option}: two sources have the base name {prefix!r}; their ids would collide")
    return [Source(source.kind, source.uri, prefix) for source, prefix in zip(sources, prefixes, strict=True)]


def _parse(text: str, option: str) -> Source:
    if not text:
        raise OptionError(f"{option}: an empty source")
    if "://" in text and not text.startswith((*storage.REMOTE_SCHEMES, "file://")):
        raise OptionError(f"{option} {text}: unknown kind of storage {text.partition('://')[0]}://")
    uri = storage.absolute(text)
    if text.startswith("tfds:") or re.search(r"\.tfrecords?\b", storage.base_name(text).lower()):
        raise OptionError(f"{option} {text}: TFRecord and TFDS sources can't be read yet")
    if _GLOB_CHARACTERS.search(text) and not storage.exists(uri):
        return Source("glob", uri)
    if not storage.is_remote(uri) and storage.is_folder(uri):
        return Source("folder", uri)
    lower = uri.lower()
    if lower.endswith(_LATER_KINDS):
        raise OptionError(f"{option} {text}: archives can't be read yet")
    if lower.endswith(MANIFEST_ENDINGS):
        if not storage.exists(uri):
            raise OptionError(f"{option} {text}: no such file")
        return Source("manifest", uri)
    if storage.is_remote(uri) and storage.is_folder(uri):
        return Source("folder", uri)
    if not storage.exists(uri):
        raise OptionError(f"{option} {text}: no such file or folder")
    if has_picture_ending(uri):
        return Source("glob", uri)
    raise OptionError(f"{option} {text}: neither a folder, a glob, a picture nor a manifest (.csv, .jsonl)")


def _prefix(source: Source) -> str:
    """The base name of a source: the folder's, the manifest's without its ending, the glob's fixed folder's."""
    if source.kind == "glob":
        return storage.base_name(_fixed_folder(source.uri)) or "root"
    name = storage.base_name(source.uri)
    return name if source.kind == "folder" else name.rpartition(".")[0]


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
    shown, uri = (text.encode("utf-8", "backslashreplace").decode() for text in (image_id, file.display_uri))
    return Failure(shown, uri, "locate", "UnsafeName", f"the name {fault}; no output can bear it")


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
