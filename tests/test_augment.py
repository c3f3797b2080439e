"""What `--augment` varies and what it does not."""

import cv2
import numpy as np
import pytest

from model.data.augment import augment, warp


def test_a_flip_exchanges_left_and_right_alone() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (6, 8, 3), np.uint8), rng.integers(0, 3, (6, 8), np.uint8)
    mirrored = 0
    for number in range(200):
        varied, moved = augment(image, mask, "flip", np.random.default_rng(number))
        is_mirrored = not np.array_equal(varied, image)
        mirrored += is_mirrored
        np.testing.assert_array_equal(varied, image[:, ::-1] if is_mirrored else image)
        np.testing.assert_array_equal(moved, mask[:, ::-1] if is_mirrored else mask)
    assert 70 < mirrored < 130


@pytest.mark.parametrize("kind", ["light", "full"])
def test_half_of_all_views_are_mirrored(kind: str) -> None:
    # The left half is dark, and no turn, zoom or shift of this size changes that.
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 200
    sides = [augment(image, image[..., 0], kind, np.random.default_rng(n))[1][16, [2, -3]] for n in range(200)]
    assert 70 < sum(int(left) > int(right) for left, right in sides) < 130


@pytest.mark.parametrize(("kind", "strength"), [("none", 0.0), ("flip", 0.0), ("light", 0.15), ("full", 0.3)])
def test_colours_vary_by_the_kind_s_strength(kind: str, strength: float) -> None:
    flat, mask = np.full((8, 8, 3), 120, np.uint8), np.zeros((8, 8), np.uint8)
    # A flat picture shows brightness and balance alone: 120 · (1 ± s ± s / 3).
    ratios = [augment(flat, mask, kind, np.random.default_rng(n))[0][4, 4, 0] / 120 for n in range(400)]
    reach = strength * 4 / 3
    assert 1 - reach - 0.01 <= min(ratios) <= 1 - 0.8 * reach
    assert 1 + 0.8 * reach <= max(ratios) <= 1 + reach + 0.01


@pytest.mark.parametrize(("kind", "least", "most"), [("none", 0, 0), ("flip", 0, 0), ("light", 0, 0), ("full", 40, 80)])
def test_blur_comes_with_full_in_15_percent(kind: str, least: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    blurred, blur = [], cv2.GaussianBlur

    def recorded(image: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray:
        blurred.append(sigma)
        return blur(image, size, sigma)

    monkeypatch.setattr(cv2, "GaussianBlur", recorded)
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    for number in range(400):
        augment(image, mask, kind, np.random.default_rng(number))
    assert least <= len(blurred) <= most
    assert all(0.4 <= sigma <= 1.2 for sigma in blurred)


def test_pixels_outside_are_mirrored() -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (10, 12, 3), np.uint8), rng.integers(1, 4, (10, 12), np.uint8)
    moved_image, moved_mask = warp(image, mask, np.array([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]))
    # The last three columns show those left of the last one, in reverse.
    np.testing.assert_array_equal(moved_image[:, 9:], image[:, 8:11][:, ::-1])
    np.testing.assert_array_equal(moved_mask[:, 9:], mask[:, 8:11][:, ::-1])
