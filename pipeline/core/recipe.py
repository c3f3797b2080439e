"""What decides a picture's results, and the digests that tell whether they must be made again."""

import hashlib
from dataclasses import dataclass

from pipeline.core.labels import IgnoreLabel, LabelMap
from pipeline.core.records import FileRef, Located
from pipeline.core.spec import ModelSpec

PREPROCESSING_VERSION = 1
"""To be raised when decoding, resizing or the way from logits to a mask changes results."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the results of a picture; the same for every picture of a job.

    Args:
        spec: the model's.
        model_digest: SHA-256 of the model file that the engine runs.
        label_map: raw mask values to class ids.
        ignore_label: the raw value that counts for nothing, None for none.
        max_pixels: larger pictures are refused before they are decoded.
        backend: the engine; engines differ in the last bits of their logits, and so may their masks.
        mode: how a picture is brought to the model's size.
        tile_overlap: the share of a tile that it has in common with its neighbour, 0 to 1; 0.0 without tiles.
        tta: test-time augmentation, `none` for none.
        preprocessing: the version of decoding, resizing and the way from logits to a mask.
    """

    spec: ModelSpec
    model_digest: str
    label_map: LabelMap
    ignore_label: IgnoreLabel | None
    max_pixels: int
    backend: str = "litert"
    mode: str = "resize"
    tile_overlap: float = 0.0
    tta: str = "none"
    preprocessing: int = PREPROCESSING_VERSION

    def inference_digest(self) -> str:
        """A digest of everything that changes a picture's logits or the class ids that follow from them."""
        return digest_of(
            sorted(self.spec.input_document().items()),
            self.spec.num_classes,
            self.model_digest,
            self.backend,
            self.mode,
            self.tile_overlap,
            self.tta,
            self.preprocessing,
        )

    def truth_digest(self) -> str:
        """A digest of everything that changes the class ids of a ground truth."""
        return digest_of(
            sorted(self.label_map.to_metadata().items()),
            self.ignore_label,
            self.spec.num_classes,
            self.preprocessing,
        )


def digest_of(*parts: object) -> str:
    """A digest of values whose `repr` tells them apart: numbers, text, tuples and lists of them.

    Returns:
        32 hexadecimal digits.
    """
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def fingerprint(picture: Located, digest: str) -> str:
    """A digest of one picture's inputs: equal fingerprints mean equal outcomes, so the work need not be done again.

    Args:
        picture: where it is, and which version of it.
        digest: of everything else that decides the outcome, the same for all pictures of a job.
    """
    truth = picture.truth and _identity(picture.truth)
    parts = (_identity(picture.image), truth, picture.group, picture.overlay, digest)
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _identity(file: FileRef) -> tuple[str, int, str, int, str]:
    return file.uri, file.size_bytes, file.version, file.offset_bytes, file.member
