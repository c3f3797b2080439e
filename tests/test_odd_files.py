"""Hostile input: every odd file comes to its verdict, in bounded memory and time, and no byte brings anything down."""

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from memory_growth import growth
from odd_files import OK, OddFile, encoded, mutations, odd_files, png
from PIL import Image
from small_archive import run_job

from pipeline.core.decode import decode_image, decode_mask
from pipeline.core.errors import PictureError

MAX_PIXELS = 10_000_000
REFUSING_BYTES = 64 << 20
BYTES_A_PIXEL = 24
ODD_FILES = {odd.name: odd for odd in odd_files()}


def verdict_of(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    try:
        decode_image(data, max_pixels=max_pixels)
    except PictureError as error:
        fault = error
    else:
        return OK
    assert fault.stage == "decode"
    assert 0 < len(fault.message) < 500
    return fault.error_type


def test_there_are_eighty_kinds_and_more() -> None:
    assert len(ODD_FILES) >= 80


@pytest.mark.parametrize("odd", ODD_FILES.values(), ids=lambda odd: odd.name)
def test_verdict_memory_and_time(odd: OddFile) -> None:
    started = time.process_time()
    with growth() as grown:
        verdict = verdict_of(odd.data)
    assert verdict == odd.verdict
    assert grown[0] < REFUSING_BYTES + 4 * len(odd.data) + BYTES_A_PIXEL * 3000 * (verdict == OK)
    assert time.process_time() - started < 10


def test_as_masks_they_come_to_verdicts_too() -> None:
    stages = set()
    for odd in ODD_FILES.values():
        try:
            decode_mask(odd.data, max_pixels=MAX_PIXELS)
        except PictureError as error:
            stages.add(error.stage)
    assert stages == {"truth"}


@pytest.mark.parametrize(
    "data",
    [
        png(3000, 3300),
        png(3000, 3300, depth=16, color=0),
        encoded("JPEG", progressive=True),
        encoded("JPEG", "CMYK"),
        encoded("GIF", "P"),
        pytest.param(encoded("TIFF", "F"), marks=pytest.mark.full),
        pytest.param(encoded("TIFF", "I"), marks=pytest.mark.full),
        pytest.param(encoded("TIFF", "LAB"), marks=pytest.mark.full),
        pytest.param(encoded("WEBP", lossless=True), marks=pytest.mark.full),
        pytest.param(encoded("AVIF"), marks=pytest.mark.full),
        pytest.param(encoded("JPEG2000"), marks=pytest.mark.full),
    ],
    ids="png png16 jpeg cmyk gif float int lab webp avif jpeg2000".split(),
)
def test_what_is_decoded_costs_24_bytes_a_pixel_at_most(data: bytes) -> None:
    picture = Image.open(io.BytesIO(data))
    if picture.width < 1000:  # the same kind, large, turned by its EXIF where the format has one
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif} if picture.format in ("JPEG", "WEBP", "AVIF") else {}
        options |= {"progressive": True} if picture.format == "JPEG" else {}
        picture.resize((3000, 3300)).save(buffer, picture.format, **options)
        data = buffer.getvalue()
    with growth() as grown:
        decode_image(data, max_pixels=3000 * 3300)
    assert grown[0] < REFUSING_BYTES + 4 * len(data) + BYTES_A_PIXEL * 3000 * 3300


def test_a_job_over_all_of_them_ends_with_a_line_for_each_that_fails(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, odd in ODD_FILES.items():
        (pictures / f"{name.replace('^', '').replace(',', '')}.jpg").write_bytes(odd.data)
    finished = run_job(
        tmp_path / "out", "--input", pictures, "--max_failure_ratio", 1, "--max_pixels", MAX_PIXELS, "--batch_size", 16
    )
    assert finished.status == 0
    images = finished.summary["images"]
    assert images["found"] == len(ODD_FILES) == images["segmented"] + images["failed"]
    failed = {failure["image_id"]: failure["error_type"] for failure in finished.failures}
    assert len(failed) == images["failed"]
    for name, odd in ODD_FILES.items():
        assert failed.get(f"{name.replace('^', '').replace(',', '')}.jpg", OK) == odd.verdict
    assert len(list((tmp_path / "out/masks").iterdir())) == images["segmented"]
    for line in (tmp_path / "out/failures.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"image_id", "source_uri", "stage", "error_type", "message"}


def seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker" * 20
    files = [encoded(name) for name in "JPEG PNG WEBP TIFF BMP AVIF JPEG2000 PPM TGA ICO PCX SGI DDS".split()]
    files += [encoded("GIF", "P"), encoded("JPEG", progressive=True, exif=exif), encoded("PNG", "P", exif=exif)]
    files += [encoded("TIFF", compression="tiff_lzw"), encoded("WEBP", lossless=True, exif=exif), encoded("PNG", "1")]
    return files


def fuzz(count: int, seed: int, most_s: float) -> tuple[int, int]:
    """Decodes so many mutated files, or what time allows; gives how many, and how many were still pictures."""
    tried = good = 0
    deadline = time.monotonic() + most_s
    for data in mutations(seeds(), count, seed):
        started = time.process_time()
        verdict = verdict_of(data, 4_000_000)
        decoded_s = time.process_time() - started
        assert decoded_s < 10, f"{decoded_s:.1f} s, seed {seed}, file {tried}: {verdict}"
        tried += 1
        good += verdict == OK
        if time.monotonic() > deadline:
            break
    return tried, good


def test_mutated_files_end_as_pictures_or_as_failures() -> None:
    with growth() as grown:
        tried, good = fuzz(400, 1, 10)
    assert tried > 50
    assert 0 < good < tried
    assert grown[0] < REFUSING_BYTES + BYTES_A_PIXEL * 4_000_000


@pytest.mark.full
def test_fifty_thousand_mutated_files() -> None:
    with growth() as grown:
        tried, good = fuzz(50_000, int(os.environ.get("FUZZ_SEED", "2")), 1500)
    print(f"{tried} mutated files, {good} of them still pictures, memory rose by {grown[0] >> 20} MiB")
    assert tried == 50_000
    assert grown[0] < REFUSING_BYTES + BYTES_A_PIXEL * 4_000_000


def test_pixels_of_odd_files_are_right() -> None:
    np.testing.assert_array_equal(decode_image(ODD_FILES["png with a greedy exif"].data).pixels, 0)
    exact = decode_image(encoded("PNG")).pixels
    np.testing.assert_array_equal(decode_image(ODD_FILES["png with words behind its end"].data).pixels, exact)
