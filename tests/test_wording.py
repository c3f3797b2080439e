"""Numbers and foreign text in the report, the terminal and the log."""

from pipeline.core.wording import area_m2_text, duration_text, printable, rate_text, share_text


def test_numbers_as_text() -> None:
    shares = [None, 0.0, 0.0001, 0.123, 0.99999, 1.0]
    assert [share_text(share) for share in shares] == ["–", "0.0 %", "<0.1 %", "12.3 %", ">99.9 %", "100.0 %"]
    seconds = [None, 0.04, 9.94, 9.96, 59.6, 322, 3599.6, 11_045, 190_800]
    expected = ["–", "0.0 s", "9.9 s", "10 s", "1 min 00 s", "5 min 22 s", "1 h 00 min", "3 h 04 min", "2 d 5 h"]
    assert [duration_text(value) for value in seconds] == expected
    assert [rate_text(value) for value in (0.0421, 27.34, 1234.5)] == ["0.042", "27.3", "1,234"]
    areas = [0.5, 123.4, 25_000.0, 3.2e6]
    assert [area_m2_text(area) for area in areas] == ["0.50 m²", "123 m²", "2.50 ha", "3.20 km²"]
    assert printable("naïve 日本 🐈") == "naïve 日本 🐈"
