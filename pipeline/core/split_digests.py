"""Which pictures a model was trained on: `split.json` of its folder, compact digests of the pictures' files."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ModelError
from pipeline.core.ranged_file import RangedFile

SPLIT_FILE = "split.json"
TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
"""Pictures that the weights were fitted to, that the best epoch was chosen by, and that the scores come from."""

SCHEMA_VERSION = 1
_DIGEST = "the first 8 bytes of the SHA-256 of a picture's file"
_PIECE_BYTES = 1 << 22
_BIG_ENDIAN = np.dtype(">u8")

Digests = npt.NDArray[np.uint64]


def picture_digest(data: bytes | RangedFile) -> int:
    """The digest by which a picture is recognised under any name: the first 64 bits of the SHA-256 of its file.

    Of a million pictures, none of which is among a hundred thousand others, one is taken for one of these with a
    probability of 5e-9.

    Args:
        data: the file as it is stored; in an archive, the member. It may be read in pieces.

    Returns:
        0 to 2^64 - 1.
    """
    digest = hashlib.sha256()
    if isinstance(data, bytes):
        digest.update(data)
    else:
        for offset in range(0, data.size_bytes, _PIECE_BYTES):
            digest.update(data.read_at(offset, _PIECE_BYTES))
    return int.from_bytes(digest.digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class SplitDigests:
    """The digests of a model's pictures, by part.

    Args:
        digests: part, one of `PARTS`, to (n,) uint64 ascending without duplicates.
    """

    digests: Mapping[str, Digests]

    @staticmethod
    def of(parts: Mapping[str, Iterable[int]]) -> "SplitDigests":
        """Sorts the digests of each part; a part that is not given is empty."""
        return SplitDigests({part: np.unique(np.fromiter(parts.get(part, ()), np.uint64)) for part in PARTS})

    def part_of(self, digest: int) -> str | None:
        """The part of a picture, the first of `PARTS` that has it; None if none has."""
        for part in PARTS:
            known = self.digests[part]
            place = int(np.searchsorted(known, np.uint64(digest)))
            if place < known.size and int(known[place]) == digest:
                return part
        return None

    def shared(self, one: str, other: str) -> int:
        """How many different pictures two parts have in common."""
        return int(np.intersect1d(self.digests[one], self.digests[other], assume_unique=True).size)

    def to_json(self) -> str:
        """The file's text: the digests of a part as one run of 8 bytes each, big-endian, in base64."""
        parts = {part: base64.b64encode(self.digests[part].astype(_BIG_ENDIAN).tobytes()).decode() for part in PARTS}
        return json.dumps({"schema_version": SCHEMA_VERSION, "digest": _DIGEST, **parts}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> "SplitDigests":
        """Reads the file's text.

        Raises:
            ModelError: it is not of this form.
        """
        try:
            document = json.loads(text)
            if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
                raise ModelError(f"{SPLIT_FILE} is not a split of schema_version {SCHEMA_VERSION}")
            parts = {part: base64.b64decode(document[part], validate=True) for part in PARTS}
            return SplitDigests.of({part: np.frombuffer(data, _BIG_ENDIAN).tolist() for part, data in parts.items()})
        except (ValueError, TypeError, KeyError, binascii.Error) as error:
            raise ModelError(f"{SPLIT_FILE} can't be read: {error}") from error
