"""Pairs pictures with their masks: a pure function of the files with one pairing key."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.core.errors import TRUTH_STAGE, ErrorType
from pipeline.core.records import Failure, FileRef, Located
from pipeline.sources.source import Listed


@dataclass(frozen=True, slots=True)
class Grouping:
    """How a picture's group is determined: by a column or by a regular expression.

    Args:
        column: name of a manifest's column.
        regex: searched for in the id; its first group is the picture's group.
    """

    column: str | None = None
    regex: str | None = None

    def group_of(self, picture: Listed) -> str:
        """The picture's group; "" if the manifest's row or the regular expression has none."""
        if self.column is not None:
            return dict(picture.columns).get(self.column, "")
        match = re.search(self.regex or "", picture.image_id)
        return (match[1] or "") if match else ""


@dataclass(slots=True)
class Paired:
    """The result of pairing the files of one key.

    Args:
        located: pictures to segment.
        failures: pictures that can't be segmented.
        truth_failures: for pictures that are located without a truth because several masks match.
        unpaired_truth: number of masks without a picture.
    """

    located: list[Located] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    truth_failures: list[Failure] = field(default_factory=list)
    unpaired_truth: int = 0


def pair(pictures: Iterable[Listed], truths: Sequence[FileRef], grouping: Grouping | None = None) -> Paired:
    """Pairs the pictures of one key with their mask.

    Args:
        pictures: the listed pictures with one pairing key.
        truths: the masks of `--ground_truth` with the same key; they take precedence over those of a manifest.
        grouping: how a picture's group is determined; None without groups.

    Returns:
        Located pictures and failures. Of pictures with the same id, the first by address is located; the others are
        failures. If several masks match, the pictures are located without a truth, each with a truth failure.
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
            message = f"{len(candidates)} masks match: {names}"
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
