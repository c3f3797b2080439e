"""`--image_size auto`: the cheapest input size at which the masks keep their detail, from the data alone.

A mask that is shrunk to the model's size and enlarged as the job does loses thin and small objects, whatever the
network. What perfect masks keep is measured for sizes of rising cost, on a sample of the pictures that are not kept
for the end.
"""

import hashlib
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.data.dataset import LoadedPair, load_or_fault, map_in_order
from model.data.encoded_pairs import EncodedPair
from pipeline.core.labels import ClassIds
from pipeline.core.resize import mask_from_logits
from pipeline.core.scores import confusion_matrix, iou_per_class, mean_of_present
from pipeline.core.truth import Labels
from pipeline.core.wording import pictures_text

MIN_KEPT = 0.985
"""The `global_mean_iou` that perfect masks must keep."""
REFERENCE_SIDE = 128
"""Cost 1 is the work on a square of this side, px."""
MAX_COST = 12.5
"""The most work an automatically chosen size may take: 448×448 or 384×512 px."""

_NEAR_BEST = 0.005
"""Where no size within the bound keeps `MIN_KEPT`, a size this close to the best one is as good."""
_SAME_COST = 1.1
"""Costs up to this ratio count as the same: a square and a rectangle are rounded to multiples of the step."""
_SIDES = (128, 160, 192, 224, 256, 320, 384, 448)
_MAX_DISTORTION = 1.12
"""Rectangles whose proportions differ more from the pictures', because of the rounding to steps, are not tried."""
_SAMPLE_PICTURES = 100
_MAX_SAMPLE_PIXELS = 1 << 21
"""Of larger masks the middle is measured, at the scale of the whole: at most 400 MB of masks are in memory."""

Size = tuple[int, int]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SizeScore:
    """What an input size keeps and costs.

    Attributes:
        size: height and width, px.
        kept: the `global_mean_iou` of perfect masks after the way through this size, 0 to 1.
    """

    size: Size
    kept: float

    @property
    def cost(self) -> float:
        """The work, relative to 128×128; that of a convolutional network grows with the pixels."""
        return cost_of(self.size)


@dataclass(frozen=True, slots=True)
class ChosenSize:
    """The result of `choose_image_size`.

    Attributes:
        size: height and width, px.
        lines: what was measured and chosen, for people.
    """

    size: Size
    lines: tuple[str, ...]


def cost_of(size: Size) -> float:
    """The work on an input of this height and width, px, relative to 128×128."""
    return size[0] * size[1] / REFERENCE_SIDE**2


def candidate_sizes(picture: Size, step: int, smallest: int, max_cost: float = MAX_COST) -> list[Size]:
    """The sizes that are tried, the cheapest first.

    Args:
        picture: the typical height and width of the pictures, px.
        step: the network takes multiples of this, px.
        smallest: the side of the smallest square, px; a smaller one keeps masks that are coarse, but a network
            recognises less in it.
        max_cost: no size costs more, unless it is the only one.

    Returns:
        Squares and, of about as many pixels, rectangles in the pictures' proportions; multiples of `step`; not
        empty. None is larger than the pictures, rounded up to `step`, in both directions.
    """
    limit = tuple(step * math.ceil(side / step) for side in picture)
    proportion = math.sqrt(picture[0] / picture[1])
    sizes: set[Size] = set()
    for side in (smallest, *(side for side in _SIDES if side > smallest)):
        for height, width in ((side, side), (side * proportion, side / proportion)):
            rounded = (max(step, step * round(height / step)), max(step, step * round(width / step)))
            if abs(math.log(rounded[0] / rounded[1] * width / height)) > math.log(_MAX_DISTORTION):
                continue
            # Beyond the pictures' own size nothing is gained.
            sizes.add(limit if rounded[0] >= limit[0] and rounded[1] >= limit[1] else rounded)  # type: ignore[arg-type]
    by_cost = sorted(sizes, key=lambda size: (cost_of(size), size))
    return [size for size in by_cost if cost_of(size) <= max_cost] or by_cost[:1]


def best_size(scores: Sequence[SizeScore], min_kept: float = MIN_KEPT) -> SizeScore:
    """The cheapest size that keeps enough.

    Args:
        scores: at least one, all within the bound on cost.
        min_kept: what a size must keep.

    Returns:
        Of the sizes that keep `min_kept`, or, if none does, at most 0.005 less than the best one, the cheapest; of
        those that cost up to 10 % more, the one that keeps most.
    """
    best = max(one.kept for one in scores)
    wanted = min_kept if best >= min_kept else best - _NEAR_BEST
    enough = [one for one in scores if one.kept >= wanted]
    bound = _SAME_COST * min(one.cost for one in enough)
    return min((one for one in enough if one.cost <= bound), key=lambda one: (-one.kept, one.cost, one.size))


def class_shares(mask: ClassIds, classes: Sequence[int], size: Size) -> npt.NDArray[np.float32]:
    """The logits of a perfect network: each class's share of the pixels around every logit.

    Args:
        mask: (H, W) class ids.
        classes: the ids to take, ascending.
        size: the model's input height and width, px.

    Returns:
        (height, width, classes) in 0..1, shrunk as pictures are: Pillow's antialiased bilinear filter.
    """
    height, width = size
    planes = [Image.fromarray((mask == class_id).astype(np.float32)) for class_id in classes]
    small = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(small, axis=-1)


def kept_score(masks: Iterable[ClassIds], scales: Iterable[tuple[float, float]], num_classes: int, size: Size) -> float:
    """The `global_mean_iou` of masks against themselves after the way through a size.

    Args:
        masks: (H, W) class ids each, `num_classes` where ignored.
        scales: of each mask its share of its picture's height and width: 1 for a whole picture.
        num_classes: how many classes.
        size: the model's input height and width, px, for a whole picture.

    Returns:
        0 to 1; NaN if there is no pixel to score.
    """
    total = np.zeros((num_classes, num_classes), np.int64)
    for mask, (down, across) in zip(masks, scales, strict=True):
        # Classes that are absent take part in no comparison of logits.
        present = np.flatnonzero(np.bincount(mask.ravel(), minlength=num_classes)[:num_classes])
        if not len(present):
            continue
        part = (max(1, round(size[0] * down)), max(1, round(size[1] * across)))
        found = mask_from_logits(class_shares(mask, present.tolist(), part), mask.shape[0], mask.shape[1])
        back: ClassIds = present.astype(np.uint16)[found]
        total += confusion_matrix(mask, back, num_classes)
    return float(mean_of_present(iou_per_class(total)))


def choose_image_size(
    pairs: Iterator[EncodedPair],
    labels: Labels,
    channels: int,
    step: int,
    default: Size,
    is_kept: Callable[[str], bool],
) -> ChosenSize:
    """Measures a sample of the masks and chooses the cheapest size that keeps enough of them.

    Args:
        pairs: the source.
        labels: how its raw mask values become class ids.
        channels: the model's input channels.
        step: the network takes multiples of this, px.
        default: height and width where nothing can be measured, px; no smaller square is tried.
        is_kept: whether a picture, by its id, is kept for the end and must decide nothing.

    Returns:
        The size, and lines that say what was measured. Pictures and masks that can't be used are counted in a line.
    """
    sampled, count = sample_by_hash(pairs, is_kept)
    masks: list[ClassIds] = []
    scales: list[tuple[float, float]] = []
    sizes: list[Size] = []
    broken: list[str] = []
    for pair, loaded in map_in_order(iter(sampled), lambda one: load_or_fault(one, labels, channels)):
        if isinstance(loaded, LoadedPair):
            middle = _middle(loaded.mask)
            masks.append(middle)
            height, width = loaded.mask.shape
            sizes.append((height, width))
            scales.append((middle.shape[0] / height, middle.shape[1] / width))
        else:
            broken.append(f"{pair.pair_id}: {loaded.message}")
    lines = []
    if broken:
        named = f"{len(broken)} of {pictures_text(len(sampled))} can't be used ({broken[0]})"
        lines.append(f"warning: --image_size auto: {named}")
    if not masks:
        lines.append(f"warning: --image_size auto: nothing to measure, so {_text(default)}")
        return ChosenSize(default, tuple(lines))
    typical = typical_size(sizes)
    tried: list[SizeScore] = []
    enough_at = math.inf
    for size in candidate_sizes(typical, step, max(default)):
        if cost_of(size) > _SAME_COST * enough_at:
            break
        kept = kept_score(masks, scales, labels.num_classes, size)
        if math.isnan(kept):
            lines.append(f"warning: --image_size auto: all pixels are ignored, so {_text(default)}")
            return ChosenSize(default, tuple(lines))
        tried.append(SizeScore(size, kept))
        if kept >= MIN_KEPT:
            enough_at = min(enough_at, cost_of(size))
    chosen = best_size(tried)
    lines += _described(chosen, tried, typical, len(masks), count)
    return ChosenSize(chosen.size, tuple(lines))


def sample_by_hash(
    pairs: Iterator[EncodedPair], is_kept: Callable[[str], bool], limit: int = _SAMPLE_PICTURES
) -> tuple[list[EncodedPair], int]:
    """The pictures with the lowest hashes of their ids: the same whatever the order, and few in memory.

    Args:
        pairs: the source.
        is_kept: pictures for which this is true are taken only if there are no others.
        limit: how many are taken.

    Returns:
        At most `limit` pairs, by hash, and how many could have been taken.
    """
    lowest: dict[bool, list[tuple[int, int, EncodedPair]]] = {False: [], True: []}
    counts = {False: 0, True: 0}
    for number, pair in enumerate(pairs):
        kept = is_kept(pair.pair_id)
        counts[kept] += 1
        digest = int.from_bytes(hashlib.sha256(pair.pair_id.encode()).digest()[:8], "big")
        # A heap's first is its lowest, so that with negated hashes the highest is replaced.
        entry = (-digest, -number, pair)
        heap = lowest[kept]
        if len(heap) < limit:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    kept = not lowest[False]
    return [pair for _, _, pair in sorted(lowest[kept], key=lambda entry: -entry[0])], counts[kept]


def typical_size(sizes: Sequence[Size]) -> Size:
    """Height and width of a picture of the median pixel count and of the median proportion, px."""
    pixels = float(np.median([height * width for height, width in sizes]))
    proportion = math.exp(float(np.median([math.log(height / width) for height, width in sizes])))
    return max(1, round(math.sqrt(pixels * proportion))), max(1, round(math.sqrt(pixels / proportion)))


def _middle(mask: ClassIds) -> ClassIds:
    """The mask, or of a large one a part of its middle in the same proportions."""
    height, width = mask.shape
    share = math.sqrt(_MAX_SAMPLE_PIXELS / max(mask.size, _MAX_SAMPLE_PIXELS))
    rows, columns = max(1, int(height * share)), max(1, int(width * share))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle: ClassIds = mask[top : top + rows, left : left + columns].copy()
    return middle


def _described(
    chosen: SizeScore, tried: Sequence[SizeScore], typical: Size, measured: int, count: int
) -> Iterator[str]:
    if chosen.kept >= MIN_KEPT:
        reason = f"the cheapest that keeps {MIN_KEPT}"
    else:
        reason = f"none up to cost {MAX_COST:g} keeps {MIN_KEPT}; larger ones gain less than {_NEAR_BEST}"
    yield (
        f"input size {_text(chosen.size)} px (--image_size auto): {reason} of perfect masks' global_mean_iou"
        f" ({measured:,} of {pictures_text(count)} measured, typically {_text(typical)} px)"
    )
    for one in tried:
        mark = "  <- chosen" if one is chosen else ""
        yield f"  {_text(one.size):>9}  keeps {one.kept:.4f}  cost {one.cost:.1f}{mark}"
    if chosen.kept < MIN_KEPT:
        yield (
            f"warning: at {_text(chosen.size)} px even perfect masks reach {chosen.kept:.3f}: thin or small objects are"
            " lost; --image_size HxW chooses a larger size, smaller pictures hold less"
        )


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
