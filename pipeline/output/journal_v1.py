"""Reading the journal of version 1, so that a job can resume an output of an early version of maskbeam.

Its members begin with a header that names the fields of records and failures; an entry has the values in that order.
Its one fingerprint covered everything, including the options for the written files.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pipeline.core.recipe import Recipe, identity_of
from pipeline.core.records import Failure, Located, PictureRecord

VERSION_1 = "1:"
"""Prefix of version 1's fingerprints in entries that were converted to the present form."""

MEASURES_V1 = ("area_px", "confusion")
"""The measures of version 1."""

_MASK_FORMATS = ("png", "tar", "none")


def keyed_entry(header: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """Converts an entry to the present form.

    Args:
        header: the header of its member.
        values: the entry.

    Returns:
        The fields by name, including `kind`.

    Raises:
        ValueError: it is not an entry of version 1.
    """
    if not isinstance(values, list) or not values or not isinstance(header.get(values[0]), list):
        raise ValueError("not an entry of the journal")
    kind, *fields = values
    entry = {"kind": kind, **dict(zip(header[kind], fields, strict=True))}
    entry["fingerprint"] = f"{VERSION_1}{entry['fingerprint']}" if entry.get("fingerprint") else ""
    if kind == "record":
        measured = (("area_px", entry.pop("area_px", None)), ("confusion", entry.pop("confusion", None)))
        entry.setdefault("values", [[name, value] for name, value in measured if value is not None])
        mask_bytes, mask_uri = entry.pop("mask_bytes", 0), entry.pop("mask_uri", "")
        if mask_uri:
            entry["files"] = [{"output": "mask", "digest": "", "size_bytes": mask_bytes}]
    return entry


@dataclass(frozen=True, slots=True)
class OptionsV1:
    """The options of a run of version 1 that chose what it wrote.

    Args:
        has_mask: whether it wrote masks.
        outputs: names of the other outputs that it wrote for the picture.
    """

    has_mask: bool
    outputs: tuple[str, ...]


class FingerprintsV1:
    """Version 1's fingerprints of the present recipe, for each combination of its output options.

    Version 1 did not include the input section of `metadata.json`, so changes of that section can't be detected.

    Args:
        recipe: the job's.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._settings: list[tuple[str, bool, bool]] = []
        for mask_format, probabilities in product(_MASK_FORMATS, (False, True)):
            settings = (
                recipe.model_digest,
                sorted(recipe.label_map.to_metadata().items()),
                recipe.ignore_label,
                recipe.max_pixels,
                mask_format,
                probabilities,
                recipe.backend,
                recipe.spec.class_names,
                [one.color for one in recipe.spec.classes],
            )
            digest = hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()
            self._settings.append((digest, mask_format != "none", probabilities))

    def options_of(self, outcome: PictureRecord | Failure, picture: Located) -> OptionsV1 | None:
        """The options with which an outcome was recorded, if the picture and the recipe have not changed since.

        Args:
            outcome: of `picture`, with a fingerprint of version 1.
            picture: as it is now.

        Returns:
            The options; None if the outcome is no longer valid.
        """
        # A failure's group was not recorded; it is the present one unless the options for groups were changed.
        group = outcome.group if isinstance(outcome, PictureRecord) else picture.group
        truth = picture.truth and identity_of(picture.truth)
        for (digest, has_mask, probabilities), overlay in product(self._settings, (False, True)):
            parts = (identity_of(picture.image), truth, group, overlay, digest)
            fingerprint = hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
            if outcome.fingerprint == VERSION_1 + fingerprint:
                names = (("probabilities", probabilities), ("overlay", overlay))
                return OptionsV1(has_mask, tuple(name for name, is_written in names if is_written))
        return None
