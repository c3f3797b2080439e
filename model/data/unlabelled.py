"""The pictures of `--unlabelled`: a source of the job without masks."""

from collections.abc import Iterator

from model.data.encoded_pairs import EncodedPair, list_source, spool_output, tfds_pairs
from pipeline.core.errors import OptionError
from pipeline.sources.reading import FileReader
from pipeline.sources.sources import parse_sources

OPTION = "--unlabelled"


def open_unlabelled(source: str) -> Iterator[EncodedPair]:
    """Lists a source's pictures; masks that it may have are not read.

    Args:
        source: as the job's `--input`, or `tfds:NAME[/CONFIG][:VERSION]/SPLIT`.

    Returns:
        Pairs whose mask is empty.

    Raises:
        OptionError: the source doesn't exist or has no picture.
    """
    if source.startswith("tfds:"):
        for pair in tfds_pairs(source):
            yield EncodedPair(pair.pair_id, lambda pair=pair: (pair.read()[0], b""))  # type: ignore[misc]
        return
    read, found = FileReader(spool_output()), False
    for group in parse_sources([source], OPTION):
        for one in group:
            for listed in list_source(one):
                found = True
                yield EncodedPair(listed.image_id, lambda file=listed.file: (read(file), b""))  # type: ignore[misc]
    if not found:
        raise OptionError(f"{OPTION} {source}: no pictures")
