"""What determines a picture's results, and the digests that show whether they must be computed again."""

import hashlib
from dataclasses import dataclass

from pipeline.core.addresses import unsigned_address
from pipeline.core.labels import IgnoreLabel, LabelMap
from pipeline.core.measures.measures import measures_for
from pipeline.core.records import FileRef, Located
from pipeline.core.spec import ModelSpec
from pipeline.core.truth import Labels

PREPROCESSING_VERSION = 1
"""To be raised when a change to decoding, resizing or the step from logits to mask changes results."""


_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines the results of a picture; the same for every picture of a job.

    Args:
        spec: the model's.
        model_digest: SHA-256 of the model file that the engine runs.
        label_map: raw mask values to class ids.
        ignore_label: the raw value of pixels to ignore, None for none.
        max_pixels: larger pictures are refused before they are decoded.
        backend: the engine; engines differ in the last bits of their logits, and so may their masks.
        mode: how a picture is converted to the model's size.
        tile_overlap: the share of a tile that it has in common with its neighbour, 0 to 1; 0.0 without tiles.
        tta: test-time augmentation, `none` for none.
        preprocessing: the version of decoding, resizing and the step from logits to mask.
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
        """A digest of everything that changes a picture's logits or the class ids that follow from them.

        What is added here later has to be left out at its default, else the pictures of all outputs are inferred again.
        """
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
        return digest_of(sorted(self.label_map.to_metadata().items()), self.ignore_label, self.preprocessing)

    def measures_digest(self) -> str:
        """A digest of what is measured."""
        return digest_of(self.measure_names)

    @property
    def labels(self) -> Labels:
        """How raw mask values become class ids."""
        return Labels(self.label_map, self.spec.num_classes, self.ignore_label)

    @property
    def measure_names(self) -> tuple[str, ...]:
        """The names of what is measured of every picture."""
        return tuple(measure.name for measure in measures_for(self.spec.num_classes))


class Fingerprints:
    """Digests of pictures' inputs under one recipe: while they are equal, nothing has to be computed again.

    Args:
        recipe: the job's.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._inference = recipe.inference_digest()
        self._truth = recipe.truth_digest()
        self._measures = recipe.measures_digest()
        self._max_pixels = recipe.max_pixels

    def of_image(self, picture: Located) -> str:
        """The digest of what determines a picture's class ids and probabilities: the file's, then the inference's."""
        return digest_of(identity_of(picture.image)) + self._inference

    def of_measures(self, picture: Located) -> str:
        """The digest of what else determines a picture's values: its ground truth and what is measured."""
        truth = (identity_of(picture.truth), self._truth) if picture.truth else None
        return digest_of(self._measures, truth)

    def of_failure(self, picture: Located) -> str:
        """The digest of everything that determines whether a picture fails."""
        return digest_of(self.of_image(picture), self._max_pixels)

    def is_of_other_recipe(self, fingerprint: str, picture: Located) -> bool:
        """Whether a fingerprint of `of_image` is of the same file under another recipe."""
        present = self.of_image(picture)
        return fingerprint != present and fingerprint[:_DIGEST_CHARACTERS] == present[:_DIGEST_CHARACTERS]


def digest_of(*parts: object) -> str:
    """A digest of values whose `repr` is unambiguous: numbers, text, tuples and lists of them.

    Returns:
        16 hexadecimal digits.
    """
    size_bytes = _DIGEST_CHARACTERS // 2
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=size_bytes).hexdigest()


def identity_of(file: FileRef) -> tuple[str, int, str, int, str]:
    """What identifies a version of a file; a new signature of a signed URL changes nothing."""
    return unsigned_address(file.uri), file.size_bytes, file.version, file.offset_bytes, file.member
