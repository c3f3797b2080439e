"""How visible tiles are: shifted crops, disagreement along tiles' edges, and IoU against plain tiles and the stretch.

python tests/benchmarks/seams.py --dataset out/field_test --model out/field_model --side 1200 --pictures 4

Of each picture a square is taken, so that it fits the time at hand.
- Shift: the square is segmented again without its first rows and columns, so that tiles are elsewhere over the same
  pixels; the masks are compared at least a tile's side from the square's edges.
- Edges: the errors against the ground truth within 4 px of an edge of a tile, over the errors elsewhere; 1.0 without
  seams.
- IoU: global_mean_iou of the overlapping tiles, of tiles side by side, and of the whole square stretched to the model.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core import scores
from pipeline.segmenting.segmentation import Model, load_model
from pipeline.segmenting.tile_axis import TileAxis

_SHIFTS = ((1, 1), (7, 13), (40, 25), (64, 64))
_NEAR_PX = 4
_Mask = npt.NDArray[np.uint8]


def near_edges(height: int, width: int, model: Model, overlap: float) -> npt.NDArray[np.bool_]:
    """Which pixels are within `_NEAR_PX` of an edge of a tile, beyond the margin of the picture."""
    near = np.zeros((height, width), bool)
    for axis, (length, tile) in enumerate(((height, model.spec.height), (width, model.spec.width))):
        tiles = TileAxis.of(length, tile, overlap)
        for index in range(tiles.count):
            for edge in (tiles.start(index), tiles.start(index) + tile):
                if _NEAR_PX < edge < length - _NEAR_PX:
                    place = slice(edge - _NEAR_PX, edge + _NEAR_PX)
                    near[place if axis == 0 else np.s_[:, place]] = True
    return near


def shifted_difference(model: Model, pixels: _Mask, mask: _Mask, overlap: float) -> dict[tuple[int, int], float]:
    """The share of unequal pixels, by shift."""
    margin = max(model.spec.height, model.spec.width)
    found = {}
    for down, right in _SHIFTS:
        shifted = model.segment(pixels[down:, right:], mode="tile", tile_overlap=overlap).mask
        inner = np.s_[margin:-margin, margin:-margin]
        found[down, right] = float((mask[down:, right:][inner] != shifted[inner]).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="a folder with images/ and masks/ of class ids")
    parser.add_argument("--model", required=True)
    parser.add_argument("--side", type=int, default=1200, help="of the square that is taken of each picture, px")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--tile_overlap", type=float, default=0.25)
    values = parser.parse_args()
    model, overlap = load_model(values.model), values.tile_overlap
    classes = model.spec.num_classes
    ways = {
        f"tiles, overlap {overlap:g}": {"mode": "tile", "tile_overlap": overlap},
        "tiles, overlap 0.5": {"mode": "tile", "tile_overlap": 0.5},
        "tiles side by side": {"mode": "tile", "tile_overlap": 0.0},
        "tiles, overlap 0.25, flip": {"mode": "tile", "tile_overlap": 0.25, "tta": "flip"},
        "stretched": {"mode": "resize"},
    }
    matrices = {way: np.zeros((classes, classes), np.int64) for way in ways}
    seconds = dict.fromkeys(ways, 0.0)
    at_edges = {way: np.zeros((2, 2), np.int64) for way in list(ways)[:3]}
    differences: dict[float, list[dict[tuple[int, int], float]]] = {overlap: [], 0.0: []}
    for path in sorted((values.dataset / "images").iterdir())[: values.pictures]:
        pixels = np.asarray(Image.open(path).convert("RGB"))[: values.side, : values.side]
        truth = np.asarray(Image.open(values.dataset / "masks" / f"{path.stem}.png"))[: values.side, : values.side]
        masks = {}
        for way, options in ways.items():
            begin = time.thread_time()
            masks[way] = model.segment(pixels, **options).mask  # type: ignore[arg-type]
            seconds[way] += time.thread_time() - begin
            matrices[way] += scores.confusion_matrix(truth, masks[way], classes)
        for way, counts in at_edges.items():
            near = near_edges(*truth.shape, model, float(ways[way]["tile_overlap"]))
            wrong = masks[way] != truth
            counts += np.array([[(wrong & near).sum(), near.sum()], [(wrong & ~near).sum(), (~near).sum()]])
        for share, found in differences.items():
            of_share = next(masks[way] for way, options in ways.items() if options.get("tile_overlap") == share)
            found.append(shifted_difference(model, pixels, of_share, share))
    for share, found in differences.items():
        means = {shift: np.mean([each[shift] for each in found]) for shift in _SHIFTS}
        print(f"unequal pixels of shifted crops, overlap {share:g}: " + ", ".join(
            f"{down},{right} px {value:.3%}" for (down, right), value in means.items()
        ))  # fmt: skip
    for way, ((near_wrong, near_px), (far_wrong, far_px)) in at_edges.items():
        near_share, far_share = near_wrong / near_px, far_wrong / far_px
        shares = f"{near_share:.3%}, elsewhere {far_share:.3%}, ratio {near_share / far_share:.2f}"
        print(f"errors near tiles' edges, {way}: {shares}")
    for way, matrix in matrices.items():
        iou = scores.iou_per_class(matrix)
        named = ", ".join(f"{name} {value:.3f}" for name, value in zip(model.spec.class_names, iou, strict=True))
        print(
            f"{way}: global_mean_iou {scores.mean_of_present(iou):.4f} ({named}), {seconds[way]:.1f} s of the processor"
        )


if __name__ == "__main__":
    main()
