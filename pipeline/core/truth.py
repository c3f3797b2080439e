"""From a mask's file to class ids: one definition of ground truth for training, the job and the Python interface."""

from dataclasses import dataclass

from pipeline.core.decode import DEFAULT_MAX_PIXELS, decode_mask
from pipeline.core.labels import ClassIds, IgnoreLabel, LabelMap
from pipeline.core.raster import RasterInfo


@dataclass(frozen=True, slots=True)
class Labels:
    """How raw mask values become class ids.

    Args:
        label_map: raw value to class id.
        num_classes: number of classes; also the id of pixels to ignore.
        ignore_label: the raw value of pixels to ignore, None where there is none.
    """

    label_map: LabelMap
    num_classes: int
    ignore_label: IgnoreLabel | None


def decode_truth(
    data: bytes, info: RasterInfo, labels: Labels, *, max_pixels: int | None = DEFAULT_MAX_PIXELS
) -> ClassIds:
    """Decodes the ground truth of a picture.

    Args:
        data: the mask's whole file.
        info: the picture's; the mask must have its size.
        labels: translate the mask's values.
        max_pixels: a larger mask is refused before it is decoded; None for no limit.

    Returns:
        (height, width) class ids, as `LabelMap.to_class_ids` gives them; `num_classes` where ignored.

    Raises:
        PictureError: stage `truth`; the mask can't be decoded, has another size or unknown values.
    """
    raw = decode_mask(
        data,
        max_pixels=max_pixels,
        picture_orientation=info.orientation,
        expected_size=(info.width, info.height),
    )
    return labels.label_map.to_class_ids(raw, labels.num_classes, labels.ignore_label)
