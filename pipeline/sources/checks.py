"""Checks of sources before any work: whether they have pictures, and whether masks pair with them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest

from pipeline.core.errors import OptionError
from pipeline.core.records import Failure
from pipeline.core.wording import ignored_text
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Listed, Source

MAX_COMPARED = 10_000
"""Sources with more files than this are not listed completely before the job starts."""


def check_pictures(address: str, sources: Sequence[Source]) -> None:
    """Checks that sources have a picture; stops listing at the first.

    Args:
        address: the option and its value, for messages.
        sources: the sources of that value.

    Raises:
        OptionError: they have none, or can't be listed.
    """
    found, failure, ignored = _first(address, sources)
    if found is None and failure is None:
        raise OptionError(f"{address}: has no picture{_ignored(ignored)}")


def check_truths(address: str, truths: Sequence[Source], pictures: Sequence[Source]) -> None:
    """Checks that sources have a mask, and if listing is cheap, that at least one mask pairs with a picture.

    Args:
        address: the option and its value, for messages.
        truths: the sources of masks of that value.
        pictures: the sources of the pictures that the masks belong to.

    Raises:
        OptionError: no mask can be used, or the sources can't be listed.
    """
    found, failure, ignored = _first(address, truths)
    if found is None:
        reason = f" that can be read: {failure.message}" if failure else _ignored(ignored)
        raise OptionError(f"{address}: has no mask{reason}")
    if all(source.is_index for source in (*truths, *pictures)) and (apart := _without_common_key(truths, pictures)):
        mask, picture = apart
        raise OptionError(
            f"{address}: no mask pairs with a picture: for example {mask.image_id!r} and {picture.image_id!r} have"
            " different paths below their sources, without the ending"
        )


def _ignored(by_ending: Counter[str]) -> str:
    return f"; {ignored_text(by_ending)}" if by_ending else ""


def _first(address: str, sources: Sequence[Source]) -> tuple[Listed | None, Failure | None, Counter[str]]:
    """The first file of sources, the first failure before it, and the ignored files before it, by ending."""
    failure, ignored = None, Counter[str]()
    try:
        for source in sources:
            for item in source.items():
                if isinstance(item, Listed):
                    return item, failure, ignored
                if isinstance(item, Ignored):
                    ignored.update(dict(item.by_ending))
                else:
                    failure = failure or item
    except OSError as error:
        raise OptionError(f"{address}: can't be listed: {error.strerror or error}") from error
    except OptionError as error:
        raise OptionError(f"{address}: {error}") from error
    return None, failure, ignored


def _without_common_key(truths: Sequence[Source], pictures: Sequence[Source]) -> tuple[Listed, Listed] | None:
    """The first mask and the first picture if no mask pairs with a picture; None if one does, or may.

    Both sides are listed alternately, so that the first pair is found quickly if both have the same order.
    """
    sides: tuple[dict[str, Listed], dict[str, Listed]] = {}, {}
    turns = zip_longest(*(islice(_listed(side), MAX_COMPARED) for side in (truths, pictures)))
    for number, turn in enumerate(turns, start=1):
        for own, other, item in ((*sides, turn[0]), (*sides[::-1], turn[1])):
            if item is not None:
                if item.pairing_key in other:
                    return None
                own[item.pairing_key] = item
        if number == MAX_COMPARED:
            return None
    first_mask, first_picture = (next(iter(side.values()), None) for side in sides)
    return (first_mask, first_picture) if first_mask and first_picture else None


def _listed(sources: Sequence[Source]) -> Iterator[Listed]:
    return (item for source in sources for item in source.items() if isinstance(item, Listed))
