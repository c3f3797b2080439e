"""Parses `--input` and `--ground_truth`: the registry of source types, and the prefixes of sources."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.core.errors import OptionError
from pipeline.sources.archive_source import ArchiveSource
from pipeline.sources.folders import FolderSource, GlobSource
from pipeline.sources.manifest import ManifestSource
from pipeline.sources.record_source import RecordSource
from pipeline.sources.source import Address, Source
from pipeline.sources.tfds import TfdsSource
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

SOURCE_TYPES: tuple[type[Source], ...] = (
    TfdsSource, RecordSource, ArchiveSource, ManifestSource, FolderSource, GlobSource,
)  # fmt: skip
"""All types of source; the first one that recognises an address is used."""


def parse_sources(texts: Sequence[str], option: str) -> list[list[Source]]:
    """Parses all sources of an option and sets their prefixes.

    Args:
        texts: the values as written, in order.
        option: `--input` or `--ground_truth`, for messages.

    Returns:
        The sources of each value: usually one; one per archive that a glob matches, one per TFRecord file. If there are
        several in all, ids are prefixed by the base names of their sources.

    Raises:
        OptionError: a source doesn't exist or has an unknown type, or two have the same base name.
    """
    groups = [_parse(text, option) for text in texts]
    # The files of one set of TFRecord files count as one source, the archives of one glob as several.
    units = [name for group in groups for name in _units(group)]
    if len(units) == 1:
        return groups
    repeated = next((name for name, count in Counter(units).items() if count > 1), None)
    if repeated is not None:
        raise OptionError(f"{option}: two sources have the base name {repeated!r}; their ids would collide")
    return [[replace(source, prefix=source.base_name) for source in group] for group in groups]


def _units(group: Iterable[Source]) -> list[str]:
    """The base names of sources, one per set."""
    return list({source.uri: source.base_name for source in group}.values())


def parse_truths(texts: Sequence[str], pictures: Sequence[Sequence[Source]]) -> list[list[Source]]:
    """Parses the sources of masks and sets the prefixes of their pictures.

    Args:
        texts: the values of `--ground_truth` as written; none, or as many as of `--input`.
        pictures: the sources of `--input`, from `parse_sources`.

    Returns:
        The sources of masks of each value. Several archives of one `--input` need as many in its `--ground_truth`, in
        order of their names.

    Raises:
        OptionError: a source doesn't exist or has an unknown type, or the numbers of archives differ.
    """
    truths: list[list[Source]] = []
    for text, group in zip(texts, pictures, strict=False):
        found = _parse(text, "--ground_truth")
        if len(_units(group)) == 1:
            prefixes = [group[0].prefix] * len(found)
        elif len(found) == len(group):
            prefixes = [picture.prefix for picture in group]
        else:
            raise OptionError(f"--ground_truth {text}: {len(found)} sources of masks for {len(group)} archives")
        truths.append(
            [replace(truth, prefix=prefix, is_truth=True) for truth, prefix in zip(found, prefixes, strict=True)]
        )
    return truths


def _parse(text: str, option: str) -> list[Source]:
    if not text:
        raise OptionError(f"{option}: an empty source")
    if "://" in text and not text.startswith((*filesystem.REMOTE_SCHEMES, "file://")):
        raise OptionError(f"{option} {text}: unknown kind of storage {text.partition('://')[0]}://")
    address = Address(option, text)
    with os_errors_as(OptionError, f"{address}: can't be looked up"):
        for source_type in SOURCE_TYPES:
            if (found := source_type.recognise(address)) is not None:
                return list(found)
        exists = address.exists
    if not exists:
        raise OptionError(f"{address}: no such file or folder")
    if filesystem.is_read_only(address.uri):
        raise OptionError(f"{address}: {filesystem.NOT_LISTED}")
    raise OptionError(
        f"{address}: neither a folder, a glob, a picture, an archive (.tar, .tar.gz, .zip), records"
        " (.tfrecord) nor a manifest (.csv, .jsonl)"
    )
