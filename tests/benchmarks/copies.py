"""How well copies of pictures are told from different pictures by their thumbnails.

    python -m tests.benchmarks.copies --images FOLDER

Prints the largest correlations between pictures of the folder, and the share of copies that are recognised: as
JPEG of quality 40, and at half the size as JPEG of quality 70.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from model.data.copies import MIN_CORRELATION, thumbnail


def encoded_again(picture: Image.Image, quality: int, scale: float) -> Image.Image:
    """A copy at another size and as JPEG."""
    content = io.BytesIO()
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture.resize(size).save(content, "JPEG", quality=quality)
    return Image.open(content)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--images", required=True)
    arguments = parser.parse_args()
    pictures = [Image.open(path).convert("RGB") for path in sorted(Path(arguments.images).iterdir())]
    originals = np.stack([thumbnail(np.asarray(picture)) for picture in pictures])
    between = originals @ originals.T
    np.fill_diagonal(between, -1)
    largest = ", ".join(f"{one:.3f}" for one in np.sort(between.max(axis=1))[:-9:-1])
    print(f"{len(pictures)} pictures; the largest correlations with another: {largest}")
    for quality, scale in ((40, 1.0), (70, 0.5)):
        copies = np.stack([thumbnail(np.asarray(encoded_again(picture, quality, scale))) for picture in pictures])
        share = ((originals * copies).sum(axis=1) >= MIN_CORRELATION).mean()
        print(f"JPEG of quality {quality} at {scale} of the size: {share:.1%} recognised")


if __name__ == "__main__":
    main()
