"""Joining pictures to their masks by key: a pure function of one key's group."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.core.errors import TRUTH_STAGE, ErrorType
from pipeline.core.records import Failure, FileRef, Located
from pipeline.sources.source import Listed


@dataclass(frozen=True, slots=True)
class Grouping:
    """How a picture's group is found: by one of the two.

    Args:
        column: a manifest's column.
        regex: a regular expression that is searched for in the id; its first group is the picture's.
    """

    column: str | None = None
    regex: str | None = None

    def group_of(self, picture: Listed) -> str:
        """The picture's group, "" where the manifest's row or the regular expression names none."""
        if self.column is not None:
            return dict(picture.columns).get(self.column, "")
        match = re.search(self.regex or "", picture.image_id)
        return (match[1] or "") if match else ""


@dataclass(slots=True)
class Paired:
    """What one key's group comes to.

    Args:
        located: the pictures to do.
        failures: the pictures that can't be done.
        truth_failures: pictures that are located without a truth because several masks could be meant.
        unpaired_truth: masks that no picture claims.
    """

    located: list[Located] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    truth_failures: list[Failure] = field(default_factory=list)
    unpaired_truth: int = 0


def pair(pictures: Iterable[Listed], truths: Sequence[FileRef], grouping: Grouping | None = None) -> Paired:
    """Gives each picture its mask.

    Args:
        pictures: the listed pictures of one pairing key.
        truths: the masks of the same key, from `--ground_truth`; where there are any they win over a manifest's.
        grouping: how a picture's group is found, None where there are no groups.

    Returns:
        What is to be done, and what can't be. Of pictures with the same id the first by address is done; each further
        one is a failure. With two masks for one key its pictures are done without a truth, each with a truth failure.
    """
    paired = Paired()
    candidates = sorted(set(truths), key=_address)
    seen: dict[str, Listed] = {}
    for picture in sorted(pictures, key=lambda listed: (listed.image_id, _address(listed.file))):
        uri = picture.file.display_uri
        if picture.image_id in seen:
            first = seen[picture.image_id].file.display_uri
            message = f"another picture has this id: {first}"
            paired.failures.append(Failure(picture.image_id, uri, "locate", ErrorType.DUPLICATE_ID.value, message))
            continue
        seen[picture.image_id] = picture
        if len(candidates) > 1:
            names = ", ".join(truth.display_uri for truth in candidates)
            message = f"{len(candidates)} masks could be meant: {names}"
            paired.truth_failures.append(
                Failure(picture.image_id, uri, TRUTH_STAGE, ErrorType.AMBIGUOUS_TRUTH.value, message)
            )
            truth = None
        else:
            truth = candidates[0] if candidates else picture.truth
        group = grouping.group_of(picture) if grouping else ""
        paired.located.append(Located(picture.image_id, picture.file, truth, group))
    if not seen:
        paired.unpaired_truth = len(candidates)
    return paired


def overlay_rank(image_id: str) -> int:
    """The rank of a picture for overlays: a hash of its id, so that overlays are spread over the archive."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big") >> 1


def _address(file: FileRef) -> tuple[str, int, str]:
    return file.uri, file.offset_bytes, file.member
