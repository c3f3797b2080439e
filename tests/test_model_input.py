"""Model inputs: one definition for all callers."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.data.dataset import PairStore, prepare
from model.data.encoded_pairs import EncodedPair
from pipeline.core.errors import PictureError
from pipeline.core.labels import LabelMap
from pipeline.core.model_input import model_input
from pipeline.core.resize import resize_image
from pipeline.core.spec import InputSpec, ModelSpec
from pipeline.core.truth import Labels
from pipeline.engines.base import Batch, Logits
from pipeline.output.encode import encode_mask, encode_png
from pipeline.segmenting.segmentation import Model

SPEC = InputSpec(24, 20, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


def test_bytes_are_resized_and_no_more() -> None:
    taken = model_input(PIXELS, SPEC)
    assert taken.dtype == np.uint8
    np.testing.assert_array_equal(taken, resize_image(PIXELS, 24, 20))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-2.5, 7.0)])
def test_floats_have_the_range_of_the_model(low: float, high: float) -> None:
    taken = model_input(PIXELS, replace(SPEC, dtype="float32", value_range=(low, high)))
    assert taken.dtype == np.float32
    np.testing.assert_allclose(taken, resize_image(PIXELS, 24, 20) / 255 * (high - low) + low, atol=1e-5)


@pytest.mark.parametrize(("bands", "channels"), [(1, 3), (3, 1), (4, 3), (13, 3)])
def test_another_number_of_bands_is_one_clear_failure(bands: int, channels: int) -> None:
    with pytest.raises(PictureError, match=f"{bands} bands and the model takes {channels}") as caught:
        model_input(np.zeros((4, 4, bands), np.uint8), InputSpec(4, 4, channels))
    assert (caught.value.stage, caught.value.error_type) == ("decode", "WrongBands")


class Seen:
    """An engine that keeps what it was given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def logits(self, batch: Batch) -> Logits:
        self.batches.append(batch)
        return np.zeros((len(batch), 4, 4, 3), np.float32)


def test_training_sees_what_serving_sees(tiny_model_spec: ModelSpec) -> None:
    engine = Seen()
    Model(tiny_model_spec, engine).segment(PIXELS)
    image = encode_png(Image.fromarray(PIXELS))
    mask = encode_mask(np.zeros((37, 51), np.uint8), b"")
    labels = Labels(LabelMap.identity(3), 3, None)
    pair = EncodedPair("a", lambda: (image, mask))
    shape = tiny_model_spec.height, tiny_model_spec.width, tiny_model_spec.channels
    (seen, _) = prepare(iter([pair]), labels, PairStore(*shape), shape[2]).store[0]
    np.testing.assert_array_equal(seen[None], engine.batches[0])
