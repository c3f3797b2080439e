"""Pairing: each picture gets its mask, in any order; ambiguous ones are failures."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.records import FileRef, Located
from pipeline.sources.pairing import Grouping, Paired, pair
from pipeline.sources.source import Listed

A_MASK, B_MASK = FileRef("/masks/a.png"), FileRef("/masks/a.gif")


def picture(image_id: str, uri: str = "", **more: object) -> Listed:
    return Listed(image_id, FileRef(uri or f"/in/{image_id}"), **more)  # type: ignore[arg-type]


def test_a_picture_and_its_mask() -> None:
    assert pair([picture("a.jpg")], [A_MASK]) == Paired([Located("a.jpg", FileRef("/in/a.jpg"), A_MASK)])


def test_no_mask_is_no_fault() -> None:
    assert pair([picture("a.jpg")], []) == Paired([Located("a.jpg", FileRef("/in/a.jpg"))])


def test_a_mask_without_a_picture_is_counted() -> None:
    assert pair([], [A_MASK]) == Paired(unpaired_truth=1)
    assert pair([], [A_MASK, B_MASK]) == Paired(unpaired_truth=2)
    assert pair([], []) == Paired()


def test_pictures_of_equal_stem_share_the_mask() -> None:
    paired = pair([picture("a.png"), picture("a.jpg")], [A_MASK])
    assert [(located.image_id, located.truth) for located in paired.located] == [("a.jpg", A_MASK), ("a.png", A_MASK)]
    assert paired.failures == []
    assert paired.unpaired_truth == 0


def test_two_masks_are_a_truth_failure_that_names_both() -> None:
    paired = pair([picture("a.jpg")], [B_MASK, A_MASK])
    assert paired.located == [Located("a.jpg", FileRef("/in/a.jpg"))]
    assert paired.failures == []
    (failure,) = paired.truth_failures
    assert (failure.image_id, failure.stage, failure.error_type) == ("a.jpg", "truth", "AmbiguousTruth")
    assert "/masks/a.png" in failure.message
    assert "/masks/a.gif" in failure.message
    assert paired.unpaired_truth == 0


def test_the_same_mask_named_twice_is_one() -> None:
    assert pair([picture("a.jpg")], [A_MASK, A_MASK]).located[0].truth == A_MASK


def test_of_equal_ids_the_first_by_address_is_done() -> None:
    pictures = [picture("a.jpg", uri) for uri in ("/in/3", "/in/1", "/in/2")]
    paired = pair(pictures, [A_MASK])
    assert [located.image.uri for located in paired.located] == ["/in/1"]
    assert [(f.image_id, f.source_uri, f.stage, f.error_type) for f in paired.failures] == [
        ("a.jpg", "/in/2", "locate", "DuplicateId"),
        ("a.jpg", "/in/3", "locate", "DuplicateId"),
    ]
    assert "/in/1" in paired.failures[0].message


def test_a_manifests_mask_is_taken_where_there_is_no_other() -> None:
    named = picture("a.jpg", truth=FileRef("/named.png"))
    assert pair([named], []).located[0].truth == FileRef("/named.png")
    assert pair([named], [A_MASK]).located[0].truth == A_MASK


def test_the_group_is_a_column_of_the_manifest_or_a_part_of_the_id() -> None:
    pictures = [picture("north/a.jpg", columns=(("site", "hill"), ("year", "2024"))), picture("b.jpg")]

    def groups(grouping: Grouping | None) -> dict[str, str]:
        return {located.image_id: located.group for located in pair(pictures, [], grouping).located}

    assert groups(Grouping(column="site")) == {"north/a.jpg": "hill", "b.jpg": ""}
    assert groups(Grouping(regex="^([a-z]+)/")) == {"north/a.jpg": "north", "b.jpg": ""}
    assert groups(None) == {"north/a.jpg": "", "b.jpg": ""}


members = st.builds(
    Listed, st.sampled_from(["a.jpg", "a.png", "a"]), st.sampled_from([FileRef(f"/{n}") for n in "1234"])
)
masks = st.lists(st.sampled_from([A_MASK, B_MASK, FileRef("/tar", 5, offset_bytes=512, member="a.png")]), max_size=3)


@given(st.lists(members, max_size=5), masks, st.randoms(use_true_random=False))
def test_the_order_never_matters_and_nothing_is_lost(
    pictures: list[Listed], truths: list[FileRef], random: object
) -> None:
    paired = pair(pictures, truths)
    shuffled_pictures, shuffled_truths = pictures[:], truths[:]
    random.shuffle(shuffled_pictures)  # type: ignore[attr-defined]
    random.shuffle(shuffled_truths)  # type: ignore[attr-defined]
    assert pair(shuffled_pictures, shuffled_truths) == paired
    assert len(paired.located) + len(paired.failures) == len(pictures)
    ids = [located.image_id for located in paired.located]
    is_ambiguous = len(set(truths)) > 1
    assert [failure.image_id for failure in paired.truth_failures] == (ids if is_ambiguous else [])
    assert all((located.truth is None) == (is_ambiguous or not truths) for located in paired.located)
    assert len(ids) == len(set(ids))
