"""Reading a picture's files: the limit of their size, what is not read at all, and a mask that can't be read."""

from collections import defaultdict
from dataclasses import replace

import pytest

from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.limits import max_file_bytes
from pipeline.core.records import FileRef, Located
from pipeline.segmenting.fetcher import Fetcher, expected_bytes

LIMIT = max_file_bytes(1)
PICTURE = Located("a.png", FileRef("/in/a.png", 3, "v1"), FileRef("/truth/a.png", 5, "t1"))


class Files:
    """Gives the same answer for each file and records what was read."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.read: list[str] = []

    def __call__(self, file: FileRef) -> bytes:
        self.read.append(file.uri)
        return self.answer


def test_a_file_of_the_limit_is_read_and_a_larger_one_is_not() -> None:
    files = Files(b"123")
    alone = replace(PICTURE, truth=None)
    most = replace(alone, image=replace(PICTURE.image, size_bytes=LIMIT))
    assert Fetcher(files, 1).fetch(most, defaultdict(float)).image == b"123"
    more = replace(alone, image=replace(PICTURE.image, size_bytes=LIMIT + 1))
    with pytest.raises(PictureError, match="larger than any picture") as raised:
        Fetcher(files, 1).fetch(more, defaultdict(float))
    assert (raised.value.stage, raised.value.error_type) == ("read", ErrorType.FILE_TOO_LARGE)
    assert files.read == ["/in/a.png"]


def test_a_file_of_unknown_size_may_have_the_limit_and_no_more() -> None:
    unknown = replace(PICTURE, image=replace(PICTURE.image, size_bytes=-1), truth=None)
    assert len(Fetcher(Files(bytes(LIMIT)), 1).fetch(unknown, defaultdict(float)).image) == LIMIT
    with pytest.raises(PictureError, match="larger than any picture"):
        Fetcher(Files(bytes(LIMIT + 1)), 1).fetch(unknown, defaultdict(float))


def test_a_mask_that_is_too_large_costs_no_picture() -> None:
    large = replace(PICTURE, truth=FileRef("/truth/a.png", LIMIT + 1, "t1"))
    fetched = Fetcher(Files(b"123"), 1).fetch(large, defaultdict(float))
    assert fetched.image == b"123"
    assert isinstance(fetched.truth, PictureError)
    assert (fetched.truth.stage, fetched.truth.error_type) == ("truth", ErrorType.FILE_TOO_LARGE)
    assert fetched.size_bytes == 3


def test_what_is_expected_counts_both_files_and_no_unknown_size() -> None:
    assert expected_bytes(PICTURE) == 8
    assert expected_bytes(replace(PICTURE, truth=None)) == 3
    assert expected_bytes(replace(PICTURE, image=replace(PICTURE.image, size_bytes=-1))) == 5
