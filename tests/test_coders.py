"""Coders: what crosses a shuffle comes back equal, and stays small."""

from dataclasses import replace
from typing import Any

import pytest
from apache_beam.coders import typecoders
from apache_beam.typehints import schemas
from hypothesis import given
from hypothesis import strategies as st
from records_of import record_of

from pipeline.core.records import Failure, FileRef, Located, OutputFile, PictureRecord, Spooled, Update, ZipMember
from pipeline.core.totals import Totals
from pipeline.transforms import coders

texts = st.text(max_size=40)
integers = st.integers(-1, 2**62)
packings = st.none() | st.builds(ZipMember, integers, integers, integers) | st.builds(Spooled, texts, integers)
files = st.builds(FileRef, texts, integers, texts, integers, texts, packings)
written = st.builds(OutputFile, texts, texts, integers, integers, texts, integers)
several = st.lists(written, max_size=3).map(tuple)
located = st.builds(Located, texts, files, st.none() | files, texts, st.booleans(), several)
counts = st.lists(st.integers(0, 2**50), max_size=8).map(tuple)
records = st.builds(
    PictureRecord,
    image_id=texts,
    source_uri=texts,
    group=texts,
    width=integers,
    height=integers,
    source_bytes=integers,
    fingerprint=texts,
    values=st.lists(st.tuples(texts, counts), max_size=3).map(tuple),
    measured=texts,
    files=several,
    pixel_area_m2=st.none() | st.floats(allow_nan=False),
)
updates = st.builds(Update, located, records, st.none() | written, st.lists(texts, max_size=2).map(tuple))
failures = st.builds(Failure, texts, texts, texts, texts, texts, texts)


def coder_of(record_type: type) -> Any:
    return typecoders.registry.get_coder(record_type)


@given(located | records | failures | updates)
def test_every_record_comes_back_equal(record: Any) -> None:
    coder = coder_of(type(record))
    encoded = coder.encode(record)
    assert isinstance(encoded, bytes)
    decoded = coder.decode(encoded)
    assert decoded == record
    assert type(decoded) is type(record)
    assert coder.encode(decoded) == encoded


@given(files | located | records | failures | updates)
def test_packing_leaves_primitives_alone(record: Any) -> None:
    def primitive(value: Any) -> bool:
        return (
            value is None
            or type(value) in (bool, int, float, str)
            or (type(value) is tuple and all(map(primitive, value)))
        )

    packed = coders.pack(record)
    assert primitive(packed)
    assert coders.unpack(packed, type(record)) == record


def test_the_coders_are_registered_and_deterministic() -> None:
    for record_type, coder_type in (
        (Located, coders.LocatedCoder),
        (PictureRecord, coders.PictureRecordCoder),
        (Failure, coders.FailureCoder),
        (Update, coders.UpdateCoder),
    ):
        coder = coder_of(record_type)
        assert type(coder) is coder_type
        assert coder.is_deterministic()
        assert coder == coder_type()
        assert hash(coder) == hash(coder_type())
        assert coder.to_type_hint() is record_type


def test_a_record_of_another_type_is_no_match() -> None:
    with pytest.raises(ValueError, match="not a Failure"):
        coders.unpack(coders.pack(FileRef("a")), Failure)


def test_a_location_takes_less_than_a_kilobyte() -> None:
    packing = ZipMember(8, 2**40, 2**32 - 1)
    path = "s3://a-bucket-with-a-long-name/archives/2024/" + "/".join(["folder_with_a_long_name"] * 6)
    image = FileRef(f"{path}.tar", 2**40, "0123456789abcdef" * 2, 2**45, "deep/" * 20 + "picture.jpg", packing)
    element = Located("deep/" * 20 + "picture.jpg", image, image, "a group with a name")
    assert len(coder_of(Located).encode(element)) < 1_000
    plain = FileRef("/data/archive/pets/images/abyssinian_100.jpg", 120_000, "1795345799841388581")
    assert len(coder_of(Located).encode(Located("abyssinian_100.jpg", plain, plain))) < 220


@pytest.mark.parametrize(("classes", "present"), [(2, 2), (3, 3), (21, 5), (150, 8)])
def test_a_row_takes_less_than_300_bytes_and_40_a_class(classes: int, present: int) -> None:
    matrix = [
        [4_000_000 + 1000 * row + column if row < present and column < present else 0 for column in range(classes)]
        for row in range(classes)
    ]
    image_id = "north/2024/" + "a_picture_with_a_long_name" * 2 + ".jpg"
    record = record_of(image_id, matrix)
    element = replace(
        record,
        source_uri=f"/data/archive/{image_id}",
        fingerprint="f" * 24,
        measured="f" * 24,
        files=(OutputFile("mask", "f" * 16, 6_500, 2**32 - 1),),
    )
    assert len(coder_of(PictureRecord).encode(element)) < 300 + 40 * classes


def test_beam_can_take_the_types_of_totals_apart() -> None:
    # It does so for the inputs of `WriteSummary`, in an order that differs from run to run.
    assert len(schemas.typing_to_runner_api(Totals).row_type.schema.fields) == len(Totals.__dataclass_fields__)
