"""Raw mask values to class ids: what the label map, the ignore label and unknown values do."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.decode import RawMask
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.labels import IgnoreLabel, LabelMap, checked_ignore_label, class_id_dtype, parse_ignore_label


def _grey(*values: int, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> RawMask:
    numbers = np.array([values], np.uint16)
    return RawMask(numbers if dtype is np.uint16 else numbers.astype(np.uint8), False)


def _color(*values: int) -> RawMask:
    return RawMask(np.array([values], np.uint32), True)


def _unknown(label_map: LabelMap, raw: RawMask, num_classes: int, ignore_label: IgnoreLabel | None = None) -> str:
    with pytest.raises(PictureError) as caught:
        label_map.to_class_ids(raw, num_classes, ignore_label)
    assert (caught.value.stage, caught.value.error_type) == ("truth", "UnknownLabels")
    return caught.value.message


def test_parse_reads_values_and_colours() -> None:
    label_map = LabelMap.parse("1=0, 2=1,#FF00aa=2,65535=255")
    assert label_map.class_of_value == {1: 0, 2: 1, 65535: 255}
    assert label_map.class_of_color == {0xFF00AA: 2}
    assert label_map.to_metadata() == {"1": 0, "2": 1, "65535": 255, "#ff00aa": 2}
    assert LabelMap.from_metadata(label_map.to_metadata()) == label_map


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "RAW=CLASS_ID"),
        ("1", "'1' is not of the form"),
        ("1=", "RAW=CLASS_ID"),
        ("1=a", "RAW=CLASS_ID"),
        ("1=-1", "RAW=CLASS_ID"),
        ("1=0,", "RAW=CLASS_ID"),
        ("=0", "'' is neither"),
        ("a=0", "'a' is neither"),
        ("-1=0", "'-1' is neither"),
        ("65536=0", "'65536' is neither"),
        ("#ff00=0", "'#ff00' is neither"),
        ("#ggffff=0", "neither"),
        ("1=0,1=1", "1 occurs twice"),
        ("1=0,01=1", "01 occurs twice"),
        ("#ABCDEF=0,#abcdef=1", "occurs twice"),
    ],
)
def test_parse_refuses(text: str, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        LabelMap.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_holds_targets_against_the_classes() -> None:
    LabelMap.parse("1=0,2=1,3=255").check(2, 255)
    for text in ("1=0,2=2", "1=0,3=255", "#0000ff=2"):
        with pytest.raises(OptionError, match="not one of the model's 0 to 1"):
            LabelMap.parse(text).check(2, None)
    # Two meanings of one ignore label: the raw value 2, or what 3 becomes?
    with pytest.raises(OptionError, match="2 is the ignore label and the raw value of class 1"):
        LabelMap.parse("1=0,2=1,3=2").check(2, 2)
    LabelMap.parse("1=0,2=1,3=2").check(3, 3)
    # The value 255 and the colour #0000ff are the same number and different keys.
    with pytest.raises(OptionError, match="class id 99"):
        LabelMap.parse("255=99,#0000ff=0").check(2, None)
    with pytest.raises(OptionError, match="class id -1"):
        LabelMap.from_metadata({"1": -1}).check(2, None)


def test_the_pets_map() -> None:
    class_ids = LabelMap.parse("1=0,2=1,3=2").to_class_ids(_grey(1, 2, 3, 2), 3, None)
    assert class_ids.dtype == np.uint8
    np.testing.assert_array_equal(class_ids, [[0, 1, 2, 1]])


@pytest.mark.parametrize(
    ("text", "ignore_label", "expected"),
    [
        # As a raw value, as a target, as both, and against a pair that says otherwise: the option wins.
        ("1=0,2=1", 3, [0, 1, 2]),
        ("1=0,2=1,3=255", 255, [0, 1, 2]),
        ("1=0,2=1,3=3", 3, [0, 1, 2]),
        ("1=0,2=1,3=1", 3, [0, 1, 2]),
    ],
)
def test_ignored_pixels_hold_num_classes(text: str, ignore_label: int, expected: list[int]) -> None:
    label_map = LabelMap.parse(text)
    np.testing.assert_array_equal(label_map.to_class_ids(_grey(1, 2, 3), 2, ignore_label), [expected])


def test_an_ignore_label_that_equals_a_class_id_ignores_the_raw_value_alone() -> None:
    class_ids = LabelMap.parse("1=0,2=1").to_class_ids(_grey(0, 1, 2), 2, 0)
    np.testing.assert_array_equal(class_ids, [[2, 0, 1]])


def test_an_ignored_colour_is_left_out_of_colour_masks() -> None:
    colors = LabelMap.parse("#ff0000=0,#00ff00=1")
    raw = _color(0xFF0000, 0xFF00FF, 0x00FF00)
    np.testing.assert_array_equal(colors.to_class_ids(raw, 2, "#ff00ff"), [[0, 2, 1]])
    # The option wins over the map.
    np.testing.assert_array_equal(colors.to_class_ids(_color(0xFF0000, 0x00FF00), 2, "#00ff00"), [[0, 2]])
    assert "#ff00ff" in _unknown(colors, raw, 2, "#00ff00")
    # RGB masks of grey levels, where only what is ignored has a colour.
    grey = _color(0x000000, 0xFF00FF, 0x010101)
    np.testing.assert_array_equal(LabelMap.identity(2).to_class_ids(grey, 2, "#ff00ff"), [[0, 2, 1]])
    assert _unknown(LabelMap.identity(2), grey, 2, "#0000ff").endswith(": #ff00ff")
    # The colour #0000ff and the value 255 are the same number and different things.
    assert "255" in _unknown(LabelMap.identity(2), _grey(0, 255), 2, "#0000ff")


@pytest.mark.parametrize("ignore_label", [-1, -9999, -(2**31)])
def test_a_negative_value_can_be_ignored(ignore_label: int) -> None:
    raw = RawMask(np.array([[0, ignore_label, 1, 65_535]], np.int32), False)
    label_map = LabelMap.parse("0=0,1=1,65535=1")
    np.testing.assert_array_equal(label_map.to_class_ids(raw, 2, ignore_label), [[0, 2, 1, 1]])
    assert _unknown(label_map, raw, 2).endswith(f": {ignore_label}")
    assert _unknown(label_map, raw, 2, -7).endswith(f": {ignore_label}")
    np.testing.assert_array_equal(label_map.to_class_ids(_grey(0, 1), 2, ignore_label), [[0, 1]])


def test_ignore_labels_are_values_or_colours() -> None:
    for text, expected in (("255", 255), ("-1", -1), ("0", 0), (" #FF00ff", "#ff00ff"), ("-2147483648", -(2**31))):
        assert parse_ignore_label(text) == expected
    for text in ("", "x", "1.5", "65536", "-2147483649", "#ff00f", "ff00ff", "1=2", "1,2"):
        with pytest.raises(OptionError, match="is neither a value from -2147483648 to 65535 nor #rrggbb"):
            parse_ignore_label(text)


def test_ignore_labels_have_bounds() -> None:
    assert [checked_ignore_label(value) for value in (-(2**31), 65_535)] == [-(2**31), 65_535]
    for value in (-(2**31) - 1, 65_536, True, None, 1.0):
        with pytest.raises(OptionError, match="neither a value from"):
            checked_ignore_label(value)


def test_a_colour_to_ignore_is_no_value_of_a_signed_mask() -> None:
    raw = RawMask(np.array([[5, 0]], np.int32), False)
    assert LabelMap({0: 1, 5: 0}, {}).to_class_ids(raw, 2, "#000005").tolist() == [[0, 1]]


def test_a_map_may_have_values_that_the_mask_can_not_have() -> None:
    label_map = LabelMap({1: 0, 255: 1, 256: 1, 65_535: 1}, {})
    assert label_map.to_class_ids(_grey(1, 255), 2, None).tolist() == [[0, 1]]
    assert label_map.to_class_ids(_grey(256, 65_535, dtype=np.uint16), 2, None).tolist() == [[1, 1]]


def test_a_colour_or_a_negative_value_contradicts_no_label_map() -> None:
    LabelMap.parse("1=0,2=1,#ff0000=1").check(2, "#ff0000")
    LabelMap.parse("1=0,2=1").check(2, -1)
    with pytest.raises(OptionError, match="class id 255"):
        LabelMap.parse("1=0,2=255").check(2, -1)


def test_identity() -> None:
    np.testing.assert_array_equal(LabelMap.identity(3).to_class_ids(_grey(0, 1, 2, 255), 3, 255), [[0, 1, 2, 3]])
    assert "3" in _unknown(LabelMap.identity(3), _grey(0, 3), 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_that_nothing_names_are_named(dtype: type[np.uint8] | type[np.uint16]) -> None:
    message = _unknown(LabelMap.parse("1=0"), _grey(9, 1, 7, 7, dtype=dtype), 1)
    assert message.endswith(": 7, 9")
    assert "255" in _unknown(LabelMap.parse("1=0"), _grey(255, dtype=dtype), 1)


def test_many_unknown_values_are_counted() -> None:
    message = _unknown(LabelMap.parse("0=0"), RawMask(np.arange(256, dtype=np.uint8).reshape(16, 16), False), 1)
    assert message.endswith("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 243 more")


@pytest.mark.parametrize("num_classes", [254, 255, 256, 300, 65_533, 65_534])
def test_many_classes(num_classes: int) -> None:
    raw = _grey(0, num_classes - 1, 65_535, dtype=np.uint16)
    class_ids = LabelMap.identity(num_classes).to_class_ids(raw, num_classes, 65_535)
    assert class_ids.dtype == class_id_dtype(num_classes)
    np.testing.assert_array_equal(class_ids, [[0, num_classes - 1, num_classes]])
    assert str(num_classes) in _unknown(
        LabelMap.identity(num_classes), _grey(num_classes, dtype=np.uint16), num_classes
    )


def test_colours() -> None:
    label_map = LabelMap.parse("#000000=0,#ff0000=1,#ffffff=255")
    class_ids = label_map.to_class_ids(_color(0xFF0000, 0, 0xFFFFFF), 2, 255)
    np.testing.assert_array_equal(class_ids, [[1, 0, 2]])
    assert _unknown(label_map, _color(0, 0x00FF00, 0xABCDEF), 2, 255).endswith(": #00ff00, #abcdef")
    # A grey mask beside a map of colours alone.
    assert "7" in _unknown(label_map, _grey(7), 2)


def test_grey_levels_in_three_equal_channels_are_values() -> None:
    label_map = LabelMap.parse("1=0,2=1")
    np.testing.assert_array_equal(label_map.to_class_ids(_color(0x010101, 0x020202, 0xFFFFFF), 2, 255), [[0, 1, 2]])
    assert _unknown(label_map, _color(0x010101, 0x030303), 2).endswith(": 3")


def test_a_colour_mask_beside_a_map_without_colours() -> None:
    assert _unknown(LabelMap.parse("1=0"), _color(0x010101, 0x00FF00), 1).endswith(": #00ff00")


def test_masks_may_be_read_only_and_strided() -> None:
    wide = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    wide.setflags(write=False)
    strided = wide[::2, ::3]
    np.testing.assert_array_equal(LabelMap.identity(3).to_class_ids(RawMask(strided, False), 3, None), strided)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_lookup_against_plain_python(data: st.DataObject) -> None:
    num_classes = data.draw(st.sampled_from([1, 3, 254, 255, 256]))
    is_color = data.draw(st.booleans())
    pool = data.draw(st.lists(st.integers(0, 0xFFFFFF if is_color else 65_535), min_size=1, max_size=8, unique=True))
    mapping = {value: data.draw(st.integers(0, num_classes - 1)) for value in pool}
    values = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=20))
    label_map = LabelMap({}, mapping) if is_color else LabelMap(mapping, {})
    raw: npt.NDArray[Any] = np.array([values], np.uint32 if is_color else np.uint16)
    class_ids = label_map.to_class_ids(RawMask(raw, is_color), num_classes, None)
    assert class_ids.tolist() == [[mapping[value] for value in values]]
