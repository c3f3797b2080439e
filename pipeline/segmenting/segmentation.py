"""Segments single pictures from Python, with the same functions as a job and without Beam."""

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core import scores
from pipeline.core.decode import DEFAULT_MAX_PIXELS, DecodedImage, decode_image
from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.labels import ClassIds
from pipeline.core.overlay import overlay
from pipeline.core.raster import ArrayRaster
from pipeline.core.spec import ModelSpec
from pipeline.core.truth import Labels, decode_truth
from pipeline.engines.backends import AUTO, FLOAT32
from pipeline.engines.base import Engine
from pipeline.engines.load import load_engine
from pipeline.engines.model_folder import open_model
from pipeline.output.encode import encode_mask, palette_of
from pipeline.segmenting.modes import AUTO_MODE, choose_mode, make_mode
from pipeline.segmenting.tta import NO_TTA
from pipeline.segmenting.whole import segment_raster
from pipeline.storage import filesystem

Picture = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A file's path or URI, its bytes, a Pillow image, or an upright (H, W), (H, W, 1) or (H, W, 3) uint8 array."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What a model found in one picture.

    Args:
        spec: the model's.
        pixels: (H, W, channels) uint8, the upright picture.
        mask: (H, W) class ids, uint8 up to 256 classes, else uint16.
        probabilities: (num_classes, H, W) uint8, round(255 · probability); None if they were not requested.
        orientation: the EXIF orientation that was applied to the picture, 1 to 8.
        unused: parts of the picture's file that were not used, values of `pipeline.core.file_formats.Unused`.
    """

    spec: ModelSpec
    pixels: npt.NDArray[np.uint8]
    mask: ClassIds
    probabilities: npt.NDArray[np.uint8] | None = None
    orientation: int = 1
    unused: tuple[str, ...] = ()

    @property
    def area_px(self) -> dict[str, int]:
        """Number of pixels by class name."""
        counts = scores.class_counts(self.mask, self.spec.num_classes)
        return dict(zip(self.spec.class_names, counts.tolist(), strict=True))

    @property
    def area_fraction(self) -> dict[str, float]:
        """Share of the picture's pixels by class name."""
        return {name: area_px / self.mask.size for name, area_px in self.area_px.items()}

    def overlay(self) -> npt.NDArray[np.uint8]:
        """The mask drawn over the picture: (H, W, 3) uint8."""
        return overlay(self.pixels, self.mask, self.spec.classes)

    def mask_png(self) -> bytes:
        """The mask as the job writes it: an indexed PNG, or 16-bit grey over 256 classes."""
        return encode_mask(self.mask, palette_of([spec.color for spec in self.spec.classes][:256]))

    def score(self, truth: Picture) -> dict[str, Any]:
        """Scores the mask against a ground truth.

        Args:
            truth: a mask's file or bytes, whose raw values the model's label map and ignore label translate, or an
                upright (H, W) array of raw values.

        Returns:
            `pixel_accuracy`, `mean_iou`, `mean_dice`, and `iou` and `dice` by class name; None for a class that
            occurs in neither mask.

        Raises:
            PictureError: stage `truth`; it can't be decoded, has another size or unknown values.
        """
        matrix = scores.confusion_matrix(self._class_ids(truth), self.mask, self.spec.num_classes)
        iou, dice = scores.iou_per_class(matrix), scores.dice_per_class(matrix)
        return {
            "pixel_accuracy": _number(scores.pixel_accuracy(matrix)),
            "mean_iou": _number(scores.mean_of_present(iou)),
            "mean_dice": _number(scores.mean_of_present(dice)),
            "iou": dict(zip(self.spec.class_names, map(_number, iou.tolist()), strict=True)),
            "dice": dict(zip(self.spec.class_names, map(_number, dice.tolist()), strict=True)),
        }

    def _class_ids(self, truth: Picture) -> ClassIds:
        info = ArrayRaster(self.pixels, self.orientation).info
        labels = Labels(self.spec.labels(), self.spec.num_classes, self.spec.ignore_label)
        return decode_truth(_encoded(truth), info, labels)


class Model:
    """A loaded model for single pictures; threads may share it.

    Args:
        spec: the model's.
        engine: the loaded engine.
    """

    def __init__(self, spec: ModelSpec, engine: Engine) -> None:
        self.spec = spec
        self._engine = engine

    def segment(
        self,
        picture: Picture,
        *,
        probabilities: bool = False,
        mode: str = AUTO_MODE,
        tile_overlap: float | None = None,
        tta: str = NO_TTA,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
    ) -> Segmentation:
        """Segments one picture.

        Args:
            picture: see `Picture`.
            probabilities: whether they are wanted, too.
            mode: `resize`, `tile` for full resolution, or `auto` for the mode that the model's metadata name.
            tile_overlap: the share of a tile that it has in common with the next, 0 to 0.9; None for the metadata's,
                else 0.25.
            tta: test-time augmentation: `none`, `flip` or `d4`.
            max_pixels: a larger file is refused before it is decoded; None for no limit.

        Returns:
            The mask at the picture's own size, the same that a job writes.

        Raises:
            PictureError: the picture can't be read or decoded.
            OptionError: there is no such mode or augmentation, or it doesn't suit the model.
            ValueError: an array of another shape or dtype.
        """
        name, overlap = choose_mode(mode, tile_overlap, self.spec)
        chosen = make_mode(name, self.spec, tile_overlap=overlap, tta=tta)
        image = self._decoded(picture, max_pixels)
        raster = ArrayRaster(image.pixels)
        masks: list[npt.NDArray[Any]] = []
        planes: list[npt.NDArray[np.uint8]] = []
        for rows in segment_raster(raster, self._engine, self.spec, chosen):
            masks.append(rows.mask)
            if probabilities:
                planes.append(rows.probabilities())
        return Segmentation(
            self.spec,
            image.pixels,
            np.concatenate(masks),
            np.concatenate(planes, axis=1) if probabilities else None,
            image.orientation,
            image.unused,
        )

    def _decoded(self, picture: Picture, max_pixels: int | None) -> DecodedImage:
        if isinstance(picture, np.ndarray):
            return DecodedImage(_with_channels(picture, self.spec.channels), 1)
        if isinstance(picture, Image.Image):
            mode = "L" if self.spec.channels == 1 else "RGB"
            return DecodedImage(_with_channels(np.asarray(picture.convert(mode)), self.spec.channels), 1)
        return decode_image(_encoded(picture), channels=self.spec.channels, max_pixels=max_pixels)


def load_model(
    name_or_folder: str | os.PathLike[str], *, backend: str = AUTO, precision: str = FLOAT32, threads: int = 1
) -> Model:
    """Loads a model.

    Args:
        name_or_folder: a model folder, local or in a bucket, or the name of a carried model such as `pets`.
        backend: what runs it: `auto`, `litert` or `tensorflow`.
        precision: `float32` or `int8`.
        threads: number of pictures that can be segmented in parallel.

    Returns:
        The model, which has passed a self-test.

    Raises:
        OptionError: the model, backend or precision does not exist.
        EngineError: the engine can't run it.
    """
    folder = open_model(os.fspath(name_or_folder), backend=backend, precision=precision)
    return Model(folder.spec, load_engine(folder, threads))


def _encoded(picture: Picture) -> bytes:
    """A file's bytes; an array or image as the PNG that holds its values unchanged."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, np.ndarray | Image.Image):
        return _png(picture)
    try:
        return filesystem.read_bytes(filesystem.absolute(os.fspath(picture)))
    except OSError as error:
        raise PictureError("read", ErrorType.UNREADABLE, f"can't be read: {error.strerror or error}") from error


def _png(picture: npt.NDArray[Any] | Image.Image) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _with_channels(pixels: npt.NDArray[Any], channels: int) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"a picture is a (H, W) or (H, W, C) array of uint8, not {pixels.shape} of {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] not in (1, 3) or not pixels.size:
        raise ValueError(f"a picture has 1 or 3 channels and at least one pixel, not the shape {pixels.shape}")
    if pixels.shape[2] < channels:
        return np.repeat(pixels, channels, axis=2)
    if pixels.shape[2] > channels:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
