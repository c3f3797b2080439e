"""The resizes against slow references written from the definition of half-pixel centres."""

import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core import resize
from pipeline.core.resize import (
    ResizedLogits,
    mask_from_logits,
    probabilities_from_logits,
    resize_image,
    resize_mask_nearest,
)

SIDES = st.integers(1, 40)


def _weights(source: int, target: int) -> npt.NDArray[np.float64]:
    """(target, source): output pixel i samples the source at (i + 1/2) · source / target - 1/2, edges repeated."""
    weights = np.zeros((target, source))
    for index in range(target):
        position = (index + 0.5) * source / target - 0.5
        left = int(np.floor(position))
        share = position - left
        weights[index, min(max(left, 0), source - 1)] += 1 - share
        weights[index, min(max(left + 1, 0), source - 1)] += share
    return weights


def _resized(logits: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float64]:
    rows, columns = _weights(logits.shape[0], height), _weights(logits.shape[1], width)
    planes = [rows @ logits[..., plane].astype(np.float64) @ columns.T for plane in range(logits.shape[2])]
    return np.stack(planes, axis=-1)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_mask_from_logits_is_the_definition(h: int, w: int, height: int, width: int, classes: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(h, w, classes)).astype(np.float32)
    mask = mask_from_logits(logits, height, width)
    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8
    reference = _resized(logits, height, width)
    # float32 may decide otherwise only where the two best are equal to its own precision.
    chosen = np.take_along_axis(reference, mask[..., None].astype(np.intp), axis=2)[..., 0]
    np.testing.assert_allclose(chosen, reference.max(axis=2), atol=1e-5)
    clear = reference.max(axis=2) - np.sort(reference, axis=2)[..., -min(2, classes)] > 1e-5
    np.testing.assert_array_equal(mask[clear], reference.argmax(axis=2)[clear])


@pytest.mark.parametrize(("height", "width"), [(128, 96), (475, 500), (50, 300), (31, 17)])
def test_mask_from_logits_enlarging_and_shrinking(height: int, width: int) -> None:
    logits = np.random.default_rng(0).normal(size=(128, 96, 3)).astype(np.float32)
    reference = _resized(logits, height, width).argmax(axis=2)
    assert np.mean(mask_from_logits(logits, height, width) == reference) > 0.9999


def test_ties_take_the_lowest_id() -> None:
    logits = np.zeros((4, 4, 5), np.float32)
    assert not mask_from_logits(logits, 9, 7).any()
    logits[..., 2] = logits[..., 4] = 1.0
    np.testing.assert_array_equal(mask_from_logits(logits, 9, 7), np.full((9, 7), 2))


def test_one_size_is_plain_argmax() -> None:
    logits = np.random.default_rng(1).integers(0, 3, (20, 30, 6)).astype(np.float32)
    np.testing.assert_array_equal(mask_from_logits(logits, 20, 30), logits.argmax(axis=2))


@pytest.mark.parametrize(("classes", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16), (700, np.uint16)])
def test_many_classes_take_sixteen_bits(classes: int, dtype: type) -> None:
    logits = np.random.default_rng(2).normal(size=(6, 5, classes)).astype(np.float32)
    logits[3, 3, classes - 1] = 99.0
    mask = mask_from_logits(logits, 6, 5)
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, logits.argmax(axis=2))


def test_logits_may_be_read_only_and_a_slice_of_a_batch() -> None:
    batch = np.random.default_rng(3).normal(size=(2, 8, 8, 4)).astype(np.float32)
    batch.setflags(write=False)
    reversed_classes = batch[1, ..., ::-1]
    np.testing.assert_array_equal(
        mask_from_logits(reversed_classes, 20, 20), mask_from_logits(reversed_classes.copy(), 20, 20)
    )


def test_very_long_pictures() -> None:
    logits = np.full((4, 4, 2), 0.5, np.float32)
    logits[..., 1] = [0.0, 0.0, 1.0, 1.0]
    mask = mask_from_logits(logits, 2, 70_000)
    assert not mask[:, :34_999].any()
    assert mask[:, 35_001:].all()


def _line(values: list[np.float32], target: int, *, edge_alone: bool) -> list[np.float32]:
    """A line of samples at another length, one rounding to float32 after each multiplication and addition."""
    scale = 1.0 / (target / len(values))
    resized = []
    for index in range(target):
        position = np.float32((index + 0.5) * scale - 0.5)
        before = int(np.floor(position))
        f = np.float32(position - np.float32(before))
        if edge_alone and not 0 <= before < len(values) - 1:
            f = np.float32(0)
        first, second = (values[min(max(each, 0), len(values) - 1)] for each in (before, before + 1))
        resized.append(np.float32(np.float32(first * np.float32(1 - f)) + np.float32(second * f)))
    return resized


def _rounded_once_each(plane: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    wide = np.array([_line(list(row), width, edge_alone=True) for row in plane])
    return np.array([_line(list(column), height, edge_alone=False) for column in wide.T]).T


def _near_ties(h: int, w: int, classes: int, seed: int) -> npt.NDArray[np.float32]:
    """Logits of which the last bit of an interpolation decides."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(h, w, 1)) * (1 + 1e-7 * rng.normal(size=(h, w, classes)))
    return logits.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(2, 4), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_mask_is_exact_to_the_last_bit(
    h: int, w: int, height: int, width: int, classes: int, is_halved: bool, seed: int
) -> None:
    if is_halved:
        h, w = 2 * height, 2 * width
    logits = _near_ties(h, w, classes, seed)
    planes = [_rounded_once_each(logits[..., class_id], height, width) for class_id in range(classes)]
    np.testing.assert_array_equal(mask_from_logits(logits, height, width), np.argmax(planes, axis=0))
    with mock.patch.object(resize, "_OPENCV_MAX_PIXELS", 0):  # by rows
        np.testing.assert_array_equal(mask_from_logits(logits, height, width), np.argmax(planes, axis=0))


@pytest.mark.parametrize("opencv_max_pixels", [0, 1 << 22])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 4), (37, 90), (3, 60)])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_probabilities_are_the_softmax(
    monkeypatch: pytest.MonkeyPatch, classes: int, height: int, width: int, opencv_max_pixels: int
) -> None:
    monkeypatch.setattr(resize, "_OPENCV_MAX_PIXELS", opencv_max_pixels)
    monkeypatch.setattr(resize, "_BLOCK_VALUES", 1)  # several blocks
    # Of any magnitude: exp would overflow without the subtraction of the maximum.
    logits = (np.random.default_rng(7).normal(size=(10, 8, classes)) * 3 + 200).astype(np.float32)
    found = probabilities_from_logits(logits, height, width)
    assert (found.shape, found.dtype) == ((classes, height, width), np.uint8)
    exponents = _resized(logits, height, width)
    shares = np.exp(exponents - exponents.max(axis=2, keepdims=True))
    expected = 255 * shares / shares.sum(axis=2, keepdims=True)
    assert np.abs(found - expected.transpose(2, 0, 1)).max() < 0.51


def test_opencv_resizes_without_ipp_and_the_switch_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    if not resize._opencv_is_exact():
        pytest.skip("this build of OpenCV rounds otherwise")
    with_ipp: list[bool] = []
    resized = cv2.resize

    def recording(*arguments: object, **options: object) -> object:
        with_ipp.append(cv2.ipp.useIPP())
        return resized(*arguments, **options)

    monkeypatch.setattr(cv2, "resize", recording)
    before = cv2.ipp.useIPP()
    try:
        for switch in (True, False):
            cv2.ipp.setUseIPP(switch)
            switched = cv2.ipp.useIPP()  # off where this build has no IPP
            mask_from_logits(np.zeros((4, 6, 2), np.float32), 2, 3)
            assert cv2.ipp.useIPP() == switched
    finally:
        cv2.ipp.setUseIPP(before)
    assert with_ipp == [False] * 8  # two classes, one side at a time, twice


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 90), st.integers(1, 90), st.integers(1, 4), st.data())
def test_rows_in_any_blocks_are_the_whole(
    h: int, w: int, height: int, width: int, classes: int, data: st.DataObject
) -> None:
    logits = _near_ties(h, w, classes, height)
    cuts = data.draw(st.lists(st.integers(0, height), max_size=5).map(lambda inner: sorted({0, height, *inner})))
    resized = ResizedLogits(logits, height, width)
    pairs = list(itertools.pairwise(cuts))
    masks = [resized.mask(top, bottom) for top, bottom in pairs]
    np.testing.assert_array_equal(np.concatenate(masks), mask_from_logits(logits, height, width))
    probabilities = [resized.probabilities(top, bottom) for top, bottom in pairs]
    np.testing.assert_array_equal(
        np.concatenate(probabilities, axis=1), probabilities_from_logits(logits, height, width)
    )


@pytest.mark.parametrize("block_values", [1, 1000, 1 << 18])
@pytest.mark.parametrize(("height", "width"), [(128, 96), (475, 500), (64, 48), (31, 17)])
def test_a_build_of_opencv_that_rounds_differently_is_not_used(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, block_values: int
) -> None:
    logits = _near_ties(128, 96, 3, 0)
    expected = mask_from_logits(logits, height, width), probabilities_from_logits(logits, height, width)
    resize._opencv_is_exact.cache_clear()
    monkeypatch.setattr(resize, "_BLOCK_VALUES", block_values)
    monkeypatch.setattr(resize, "_opencv_resize", lambda plane, out: out)
    try:
        assert not resize._opencv_is_exact()
        np.testing.assert_array_equal(mask_from_logits(logits, height, width), expected[0])
        np.testing.assert_array_equal(probabilities_from_logits(logits, height, width), expected[1])
    finally:
        resize._opencv_is_exact.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other builds may fuse multiplication and addition")
def test_opencv_is_used_where_it_rounds_as_promised() -> None:
    resize._opencv_is_exact.cache_clear()
    assert resize._opencv_is_exact()


def test_ipp_is_left_as_it_was() -> None:
    before = cv2.ipp.useIPP()
    try:
        for wanted in (True, False):
            cv2.ipp.setUseIPP(wanted)
            uses_ipp = cv2.ipp.useIPP()  # False where the build has none
            mask_from_logits(_near_ties(8, 8, 3, 0), 20, 30)
            assert cv2.ipp.useIPP() == uses_ipp
    finally:
        cv2.ipp.setUseIPP(before)


_DIGEST_OF_MASKS = """
import hashlib
import numpy as np
from pipeline.core.resize import mask_from_logits
digest = hashlib.sha256()
for seed, (height, width) in enumerate([(475, 500), (128, 128), (64, 64), (50, 300), (2100, 2050)]):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(128, 128, 1)) * (1 + 1e-7 * rng.normal(size=(128, 128, 3)))
    digest.update(mask_from_logits(logits.astype(np.float32), height, width).tobytes())
print(digest.hexdigest())
"""


def test_masks_are_equal_for_every_code_path_of_opencv() -> None:
    def digest(**switches: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **switches}
        command = [sys.executable, "-c", _DIGEST_OF_MASKS]
        run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return run.stdout.split()[-1]

    usual = digest()
    assert digest(OPENCV_IPP="disabled") == usual
    assert digest(OPENCV_CPU_DISABLE="AVX512-SKX,AVX2,FMA3,AVX,FP16,SSE4.2,SSE4.1") == usual


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 3]))
def test_resize_image_is_pillows(h: int, w: int, height: int, width: int, channels: int) -> None:
    pixels = np.random.default_rng(h * w).integers(0, 256, (h, w, channels), dtype=np.uint8)
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    expected = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    resized = resize_image(pixels, height, width)
    assert resized.shape == (height, width, channels)
    np.testing.assert_array_equal(resized, expected.reshape(height, width, channels))
    assert resize_image(pixels, h, w) is pixels


def test_resize_image_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(resize_image(stripes, 8, 8)[:, 1:-1]) <= 2


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.integers(1, 90), st.integers(1, 90))
def test_nearest_takes_the_pixel_under_the_centre(h: int, w: int, height: int, width: int) -> None:
    mask = np.arange(h * w, dtype=np.uint16).reshape(h, w)
    rows = [(2 * row + 1) * h // (2 * height) for row in range(height)]
    columns = [(2 * column + 1) * w // (2 * width) for column in range(width)]
    expected = np.array([[mask[row, column] for column in columns] for row in rows])
    resized = resize_mask_nearest(mask, height, width)
    assert resized.dtype == np.uint16
    np.testing.assert_array_equal(resized, expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_nearest_is_pillows_but_for_ties(source: int, target: int) -> None:
    # Where a centre falls on the edge between two pixels, Pillow's rounding takes one or the other; we take the later,
    # as TensorFlow and PyTorch's nearest-exact do. Everywhere else the two are equal.
    line = np.arange(source, dtype=np.uint16)[None]
    pillow = np.asarray(Image.fromarray(line.astype(np.int32)).resize((target, 1), Image.Resampling.NEAREST))
    tie = (2 * np.arange(target) + 1) * source % (2 * target) == 0
    ours = resize_mask_nearest(line, 1, target)
    np.testing.assert_array_equal(ours[:, ~tie], pillow[:, ~tie])
    assert set((ours[:, tie] - pillow[:, tie]).ravel().tolist()) <= {0, 1}
