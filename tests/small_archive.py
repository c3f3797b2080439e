"""A small archive of pictures whose masks tests can compute themselves, and the command run on it.

The model tests/data/tiny_model classifies a pixel by its brightest channel, so the expected mask needs only numpy.
"""

import contextlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, ImageOps

TINY_MODEL = Path(__file__).resolve().parent / "data" / "tiny_model"
MODEL_SIDE_PX = 32
CLASS_NAMES = ("red", "green", "blue")
EXIF_ORIENTATION = 0x0112

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Archive:
    """Pictures with masks in two folders.

    Args:
        images: the folder of pictures; it also has one file that is not a picture.
        masks: the folder of masks, indexed PNG.
        image_ids: all pictures' ids, sorted.
    """

    images: Path
    masks: Path
    image_ids: tuple[str, ...]

    def pixels(self, image_id: str) -> Pixels:
        """The upright RGB pixels of a picture, decoded without the pipeline."""
        return upright_pixels(self.images / image_id)

    def truth(self, image_id: str) -> Pixels:
        """The upright class ids of a picture's mask."""
        return np.asarray(Image.open(self.mask_path(image_id)))

    def mask_path(self, image_id: str) -> Path:
        """The file of a picture's mask."""
        return (self.masks / image_id).with_suffix(".png")


@dataclass(frozen=True)
class Finished:
    """The results of a run of the command.

    Args:
        status: the exit status.
        out: standard output.
        err: standard error.
        output: the folder given as `--output`.
    """

    status: int
    out: str
    err: str
    output: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return json.loads((self.output / "summary.json").read_text("utf-8"))

    @property
    def failures(self) -> list[dict[str, str]]:
        """The lines of failures.jsonl."""
        return [json.loads(line) for line in (self.output / "failures.jsonl").read_text("utf-8").splitlines()]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all Parquet shards, sorted by id."""
        shards = sorted((self.output / "images").glob("*.parquet"))
        rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
        return sorted(rows, key=lambda row: row["image_id"])

    @property
    def masks(self) -> dict[str, Pixels]:
        """The written masks by image id."""
        folder = self.output / "masks"
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)).removesuffix(".png"): np.asarray(Image.open(path)) for path in paths}

    def contents(self) -> dict[str, bytes]:
        """The files that must not depend on how a job is run: masks, tables and failures."""
        wanted = [*self.output.glob("masks/**/*"), *self.output.glob("images/*"), self.output / "failures.jsonl"]
        return {str(path.relative_to(self.output)): path.read_bytes() for path in wanted if path.is_file()}


def packed_masks(output: Path) -> dict[str, bytes]:
    """The masks in an output's tar files by `TAR!MEMBER`, as Python's own tarfile reads them; no member twice."""
    masks: dict[str, bytes] = {}
    for path in sorted((output / "masks").rglob("*.tar")):
        with tarfile.open(path) as tar:
            members = {f"{path.relative_to(output)}!{member.name}": tar.extractfile(member) for member in tar}
            assert len(members) == len(tar.getnames())
            masks |= {name: file.read() for name, file in members.items() if file is not None}
    return masks


def upright_pixels(path: Path) -> Pixels:
    """Reads a picture upright, with Pillow only.

    Returns:
        (height, width, 3) uint8.
    """
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def expected_mask(pixels: Pixels) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """The expected mask of the tiny model, computed by matrix products in float64.

    Args:
        pixels: (height, width, 3) uint8, upright.

    Returns:
        Class ids, and where they are sure: the two brightest channels differ by more than float32 can blur, or are
        the same to the last digit, where the lowest id wins.
    """
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize((MODEL_SIDE_PX, MODEL_SIDE_PX), Image.Resampling.BILINEAR)
    values = np.asarray(small, np.float64) / 255.0
    rows, columns = _interpolation(height), _interpolation(width)
    large = np.stack([rows @ values[..., channel] @ columns.T for channel in range(3)], axis=-1)
    ordered = np.sort(large, axis=-1)
    margin = ordered[..., -1] - ordered[..., -2]
    return large.argmax(axis=-1).astype(np.uint8), (margin > 1e-4) | (margin == 0)


def _interpolation(size: int) -> npt.NDArray[np.float64]:
    """The matrix of linear interpolation from the model's side to `size` px, half-pixel centres, edges repeated."""
    places = np.clip((np.arange(size) + 0.5) * MODEL_SIDE_PX / size - 0.5, 0, MODEL_SIDE_PX - 1)
    low = np.minimum(places.astype(int), MODEL_SIDE_PX - 2)
    matrix = np.zeros((size, MODEL_SIDE_PX))
    matrix[np.arange(size), low] = 1 - (places - low)
    matrix[np.arange(size), low + 1] += places - low
    return matrix


def draw_picture(seed: int, width: int, height: int) -> Pixels:
    """A soft background with a few coloured rectangles; the same seed gives the same pixels.

    Returns:
        (height, width, 3) uint8.
    """
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 60, width)[None, :, None] * random.random(3) + random.integers(20, 120, 3)
    pixels = np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8).copy()
    for _ in range(4):
        left, top = random.integers(0, width // 2), random.integers(0, height // 2)
        right, bottom = left + random.integers(8, width // 2), top + random.integers(8, height // 2)
        pixels[top:bottom, left:right] = random.permutation([230, 90, 40])
    return pixels


def draw_truth(mask: Pixels, seed: int) -> Pixels:
    """A plausible truth beside an expected mask: right but for one rectangle."""
    random = np.random.default_rng(seed + 1_000)
    truth = mask.copy()
    height, width = mask.shape
    top, left = random.integers(0, height - 8), random.integers(0, width - 8)
    truth[top : top + height // 4, left : left + width // 4] = random.integers(0, len(CLASS_NAMES))
    return truth


def save_mask(path: Path, mask: Pixels) -> None:
    """Writes class ids as an indexed PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(mask)
    # Pillow keeps no more bits of a value than the length of the palette asks for.
    picture.putpalette(bytes((192, 32, 32, 32, 192, 32, 32, 32, 192)).ljust(3 * 256, b"\0"))
    picture.save(path)


def make_archive(root: Path) -> Archive:
    """Writes twenty pictures of 40 to 200 px, in folders, PNG and JPEG, odd ones among them, and their masks."""
    images, masks = root / "images", root / "masks"
    names = [f"{('', 'north/', 'north/deep/')[n % 3]}picture_{n:02d}.{('png', 'jpg')[n % 2]}" for n in range(15)]
    for seed, name in enumerate(names):
        _save_picture(images / name, draw_picture(seed, 40 + 11 * seed, 200 - 9 * seed))
    sideways = Image.fromarray(draw_picture(20, 120, 70))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    sideways.save(images / "sideways.jpg", exif=exif, quality=95)
    Image.fromarray(draw_picture(21, 64, 48)).save(images / "a_png_in_truth.jpg", "PNG")
    Image.fromarray(draw_picture(22, 90, 44)).convert("P", colors=16).save(images / "palette.gif")
    Image.fromarray(draw_picture(23, 50, 50)).convert("L").save(images / "grey.png")
    alpha = np.full((41, 63, 1), 128, np.uint8)
    Image.fromarray(np.concatenate([draw_picture(24, 63, 41), alpha], axis=2)).save(images / "ünï cödé.png")
    names += ["sideways.jpg", "a_png_in_truth.jpg", "palette.gif", "grey.png", "ünï cödé.png"]
    (images / "notes.txt").write_text("no picture\n")
    for seed, name in enumerate(names):
        mask, _ = expected_mask(upright_pixels(images / name))
        save_mask((masks / name).with_suffix(".png"), draw_truth(mask, seed))
    return Archive(images, masks, tuple(sorted(names)))


def _save_picture(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def run_job(output: Path, *arguments: object, model: Path | str = TINY_MODEL) -> Finished:
    """Runs the command in this process, in which Beam is imported but once.

    Args:
        output: the value of `--output`.
        arguments: all other options but `--model`; paths and numbers are turned to text.
        model: the value of `--model`.

    Returns:
        Status and texts.
    """
    from pipeline.app.launcher import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*map(str, arguments), "--model", str(model), "--output", str(output)])
    return Finished(status, out.getvalue(), err.getvalue(), output)
