"""What decides a picture's outcome, its files' names, and the digest that tells whether it must be done again."""

import hashlib
from dataclasses import dataclass

from pipeline.core.labels import LabelMap
from pipeline.core.records import FileRef, Located
from pipeline.core.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """All that decides what a picture's outcome is; the same for every picture of a job.

    Args:
        spec: the model's.
        model_digest: SHA-256 of the model file.
        label_map: raw mask values to class ids.
        ignore_label: the raw value that counts for nothing, None for none.
        output: absolute folder or bucket prefix.
        max_pixels: larger pictures are refused before they are decoded.
        mask_format: `png`, `tar` (packed at the end) or `none`.
        probabilities: whether a plane a class is written too.
        backend: the engine.
    """

    spec: ModelSpec
    model_digest: str
    label_map: LabelMap
    ignore_label: int | None
    output: str
    max_pixels: int
    mask_format: str = "png"
    probabilities: bool = False
    backend: str = "litert"

    def digest(self) -> str:
        """A digest of everything that changes results, the output's place left out."""
        parts = (
            self.model_digest,
            sorted(self.label_map.to_metadata().items()),
            self.ignore_label,
            self.max_pixels,
            self.mask_format,
            self.probabilities,
            self.backend,
            self.spec.class_names,
            [c.color for c in self.spec.classes],
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def mask_name(image_id: str) -> str:
    """The name of a picture's mask below the output."""
    return f"masks/{image_id}.png"


def names_beside(mask: str) -> tuple[str, ...]:
    """The names of what else may be written of a mask's picture."""
    name = mask.partition("/")[2]
    return f"overlays/{name}", f"probabilities/{name}"


def fingerprint(picture: Located, settings_digest: str) -> str:
    """A digest of one picture's inputs: equal fingerprints mean equal outcomes, so the work need not be done again."""
    truth = picture.truth and _identity(picture.truth)
    parts = (_identity(picture.image), truth, picture.group, picture.overlay, settings_digest)
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _identity(file: FileRef) -> tuple[str, int, str, int, str]:
    return file.uri, file.size_bytes, file.version, file.offset_bytes, file.member
