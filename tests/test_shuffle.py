"""The elements that cross shuffles: pictures' locations and records, in few bytes, and never pixels."""

import pytest
from shuffled import Shuffle, measured_shuffles
from small_archive import CLASS_NAMES, Archive, run_job

LOCATION_MAX_BYTES = 1_000
ROW_MAX_BYTES = 300 + 40 * len(CLASS_NAMES)


@pytest.fixture(scope="module")
def shuffles(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shuffle]:
    """The shuffles of one scored run over twenty pictures of 40 to 200 px."""
    # As long as real paths are: dates, sensors, sites.
    place = tmp_path_factory.mktemp("shuffle") / "archive-of-a-long-campaign" / "site-0042" / "2026-03-04"
    place.mkdir(parents=True)
    for name, folder in (("images", archive.images), ("masks", archive.masks)):
        (place / name).symlink_to(folder)
    with measured_shuffles() as found:
        finished = run_job(place / "out", f"--input={place}/images", f"--ground_truth={place}/masks")
    assert finished.status == 0, finished.err
    return found


def test_a_location_is_less_than_a_kilobyte(archive: Archive, shuffles: dict[str, Shuffle]) -> None:
    count = len(archive.image_ids)
    join = shuffles["Locate/JoinByKey"]
    assert join.elements == 2 * count  # pictures and masks
    assert join.largest_bytes < LOCATION_MAX_BYTES / 2


def test_a_row_is_less_than_300_bytes_and_40_a_class(archive: Archive, shuffles: dict[str, Shuffle]) -> None:
    rows = shuffles["WriteTables/GroupByShard"]
    assert rows.elements == len(archive.image_ids) + 1  # the shard's own place
    assert rows.largest_bytes < ROW_MAX_BYTES


def test_nothing_else_grows_with_the_pictures(archive: Archive, shuffles: dict[str, Shuffle]) -> None:
    """Sums cross as one accumulator a bundle, of a size that the classes decide."""
    for name, shuffle in shuffles.items():
        if name.startswith(("Locate/", "Segment/", "WriteTables/GroupByShard")):
            continue
        assert shuffle.elements < len(archive.image_ids), name
        assert shuffle.largest_bytes < 20_000 * len(CLASS_NAMES) + 20_000, name


def test_pixels_would_be_seen(archive: Archive, shuffles: dict[str, Shuffle]) -> None:
    fewest = min(archive.pixels(image_id).nbytes for image_id in archive.image_ids)
    assert fewest > 4 * max(shuffle.largest_bytes for name, shuffle in shuffles.items() if "Sum" not in name)
