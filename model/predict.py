"""`python -m model predict`: masks and overlays of single pictures, with LiteRT only."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.core.decode import has_picture_ending
from pipeline.core.errors import OptionError, PictureError
from pipeline.segmenting.modes import AUTO_MODE
from pipeline.segmenting.segmentation import load_model
from pipeline.segmenting.tta import NO_TTA
from pipeline.storage import filesystem


def predict(
    model: str,
    pictures: Sequence[str],
    output: Path,
    precision: str,
    *,
    mode: str = AUTO_MODE,
    tile_overlap: float | None = None,
    tta: str = NO_TTA,
) -> tuple[int, list[str]]:
    """Segments pictures one after the other.

    Args:
        model: a model folder, or a carried model's name.
        pictures: files, and folders of pictures.
        output: the folder of `masks/NAME.png` and `overlays/NAME.jpg`.
        precision: `float32` or `int8`.
        mode: as in `pipeline.segmenting.segmentation.Model.segment`, like the next two.
        tile_overlap: the share of a tile that it has in common with the next.
        tta: test-time augmentation.

    Returns:
        How many pictures were segmented, and a line for each that could not be.

    Raises:
        OptionError: the model, the mode or the output can't be used, a file is missing, or two pictures have the same
            name.
    """
    named = _names(pictures)
    segmenter = load_model(model, precision=precision)
    failures = []
    for name, path in named.items():
        try:
            found = segmenter.segment(path, mode=mode, tile_overlap=tile_overlap, tta=tta)
        except PictureError as error:
            failures.append(f"{path}: {error.message}")
            continue
        try:
            filesystem.write_bytes(str(output / "masks" / f"{name}.png"), found.mask_png())
            (output / "overlays").mkdir(exist_ok=True)
            Image.fromarray(found.overlay()).save(output / "overlays" / f"{name}.jpg", quality=90)
        except OSError as error:
            raise OptionError(f"--output {output} can't be written: {error.strerror or error}") from error
    return len(named) - len(failures), failures


def _names(pictures: Sequence[str]) -> dict[str, Path]:
    """The pictures by the name of their mask."""
    named: dict[str, Path] = {}
    for text in pictures:
        path = Path(text)
        if not path.exists():
            raise OptionError(f"{text}: no such file or folder")
        found = sorted(one for one in path.iterdir() if has_picture_ending(one.name)) if path.is_dir() else [path]
        for one in found:
            if one.name in named:
                raise OptionError(f"two pictures have the name {one.name}: {named[one.name]} and {one}")
            named[one.name] = one
    if not named:
        raise OptionError("no pictures in " + ", ".join(pictures))
    return named
