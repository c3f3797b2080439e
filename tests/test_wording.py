"""Numbers and foreign text in the report, the terminal and the log."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.core import wording


@pytest.mark.parametrize(
    ("worded", "cases"),
    [
        (wording.count_text, {None: "–", 0: "0", 1_234_567: "1,234,567"}),
        (wording.pictures_text, {0: "0 pictures", 1: "1 picture", 2: "2 pictures", 1_234: "1,234 pictures"}),
        (wording.score_text, {None: "–", 0.0: "0.000", 0.88349: "0.883", 1.0: "1.000"}),
        (wording.interval_text, {None: "–", (0.8706, 0.8944): "0.871–0.894"}),
        (
            wording.share_text,
            {
                **{None: "–", 0.0: "0.0 %", 0.0001: "<0.1 %", 0.000_51: "0.1 %", 0.123: "12.3 %", 0.5: "50.0 %"},
                **{0.9994: "99.9 %", 0.999_96: ">99.9 %", 1.0: "100.0 %"},
            },
        ),
        (
            wording.bytes_text,
            {
                **{0: "0 B", 999: "999 B", 999.4: "999 B", 999.5: "1.00 kB", 1_000: "1.00 kB", 3_400_000: "3.40 MB"},
                **{12_600_000_000: "12.6 GB", 999_400: "999 kB", 999_500: "1.00 MB", 2e12: "2.00 TB", 2e15: "2.00 PB"},
                **{5e18: "5.00e+03 PB"},
            },
        ),
        (
            wording.rate_text,
            {0.0421: "0.042", 0.5: "0.5", 1.0: "1.0", 27.34: "27.3", 99.94: "99.9", 100.0: "100", 1234.5: "1,234"},
        ),
        (
            wording.duration_text,
            {
                **{None: "–", math.inf: "–", math.nan: "–", -1.0: "0.0 s", 0.04: "0.0 s", 9.94: "9.9 s", 9.95: "10 s"},
                **{59.4: "59 s", 59.6: "1 min 00 s", 322: "5 min 22 s", 3599.6: "1 h 00 min", 11_045: "3 h 04 min"},
                **{86_399: "23 h 59 min", 86_400: "1 d 0 h", 190_800: "2 d 5 h"},
            },
        ),
        (
            wording.area_m2_text,
            {
                **{None: "–", 0.5: "0.50 m²", 9.99: "9.99 m²", 9.995: "10.0 m²", 12.34: "12.3 m²", 99.94: "99.9 m²"},
                **{99.95: "100 m²", 9_999: "9,999 m²", 10_000: "1.00 ha", 25_000.0: "2.50 ha", 999_999: "100 ha"},
                **{1e6: "1.00 km²", 3.2e6: "3.20 km²", 4.5e9: "4,500 km²"},
            },
        ),
    ],
)
def test_numbers_as_text(worded: Callable[[Any], str], cases: dict[Any, str]) -> None:
    assert {value: worded(value) for value in cases} == cases


def test_ignored_files_by_their_endings() -> None:
    assert wording.ignored_text({".txt": 1}) == "1 other file is ignored: 1 .txt"
    assert wording.ignored_text({".xml": 1, ".txt": 6, "": 1_200}) == (
        "1,207 other files are ignored: 1,200 without ending, 6 .txt, 1 .xml"
    )
    # The most frequent first, then by name; a name can't steer the terminal.
    many = {".d": 2, ".c": 2, ".\x1b[2J": 9, ".a": 1}
    assert wording.endings_text(many) == r"9 .\x1b[2J, 2 .c, 2 .d, …"
    assert wording.endings_text(many, shown=1) == r"9 .\x1b[2J, …"
    assert wording.endings_text(many, shown=4) == r"9 .\x1b[2J, 2 .c, 2 .d, 1 .a"


def test_foreign_text_cannot_steer_a_terminal() -> None:
    assert wording.printable("naïve 日本 🐈") == "naïve 日本 🐈"
    assert wording.printable("a\x1b[31mb\n\u202ec\udcff\u2028") == r"a\x1b[31mb\n\u202ec\udcff\u2028"
    # A space that is no steering character stays, though Python does not call it printable.
    assert wording.printable("a\u00a0b") == "a\u00a0b"
    assert wording.printable(ValueError("x\ty")) == r"x\ty"
