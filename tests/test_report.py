"""The report and the classes' table: whole, harmless, and true to the summary."""

import csv
import io
from html.parser import HTMLParser

import pandas as pd
import pytest
from summaries import make_summary

from pipeline.core.records import Failure
from pipeline.core.wording import printable
from pipeline.output.summary_csv import summary_csv
from pipeline.report.page import ReportPicture, report_html

VOID = {"meta", "link", "img", "br", "col", "input", "hr"}
HOSTILE = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Reads a page, and holds that every element is closed in its place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.mark.parametrize("count", [2, 3, 9, 41])
def test_the_page_is_well_formed_and_holds_every_class(count: int) -> None:
    names = [f"class number {k}" for k in range(count)]
    page = Page(report_html(make_summary(names, groups=["north", "south"]), []))
    for name in names:
        assert name in page.text
    for heading in ("Scores", "Classes", "Confusions", "Groups", "The run", "north", "south"):
        assert heading in page.text


def test_the_page_loads_nothing_from_other_files() -> None:
    picture = ReportPicture("a.png", "IoU 0.5", b"\x89PNG")
    page = Page(report_html(make_summary(["a", "b"]), [], [picture]))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"}
    sources = [attributes[key] for _, attributes in page.tags for key in ("src", "xlink:href") if key in attributes]
    assert sources == ["data:image/png;base64,iVBORw=="]
    assert not any("://" in str(attributes.get("href", "")) for _, attributes in page.tags)
    policy = next(attributes for _, attributes in page.tags if "http-equiv" in attributes)
    assert "default-src 'none'" in str(policy["content"])


def test_what_comes_from_outside_is_escaped() -> None:
    summary = make_summary([HOSTILE, '" onload="x', "none"], groups=[HOSTILE])
    summary["run"]["model"]["name"] = HOSTILE
    summary["run"]["options"]["input"] = [HOSTILE]
    summary["run"]["stages"] = {HOSTILE: 1.0}
    summary["run"]["status"] = HOSTILE
    summary["run"]["started"] = HOSTILE
    summary["classes"][0]["color"] = f'"/>{HOSTILE}'
    summary["images"]["failed"] = 1
    failure = Failure(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    text = report_html(summary, [failure], [ReportPicture(HOSTILE, HOSTILE, b"")])
    assert "<script" not in text
    page = Page(text)
    assert HOSTILE in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_names_that_are_no_utf8_can_be_written() -> None:
    failure = Failure("a\udcff\x1b[31m.png", "", "read", "Unreadable", "two\nlines")
    page = report_html(make_summary(["a", "b"]), [failure]).encode("utf-8").decode()
    assert r"a\udcff\x1b[31m.png" in page
    assert r"two\nlines" in page


def test_a_null_is_a_dash() -> None:
    summary = make_summary(["a", "b", "never"])
    assert summary["classes"][2]["iou"] is None
    row = report_html(summary, []).split("</svg>never</th>")[1].split("</tr>")[0]
    assert row.count(">–<") == 4
    assert "None" not in Page(report_html(summary, [])).text


def test_without_truth_one_sentence_replaces_the_scores() -> None:
    summary = make_summary(["a", "b"], truth=False, groups=["north"])
    assert summary["confusion_matrix"]["counts"] is None
    page = Page(report_html(summary, []))
    assert "No picture has ground truth" in page.text
    assert "IoU" not in page.text
    assert "Confusions" not in page.text
    assert "north" in page.text


def test_without_a_single_picture_there_is_a_page() -> None:
    summary = make_summary(["a", "b"], pictures=0)
    summary["run"]["seconds"] = 0.0
    assert "0 pictures segmented" in Page(report_html(summary, [])).text


def test_scores_and_counts_are_the_summarys() -> None:
    summary = make_summary(["a", "b", "c"], pictures=12)
    text = Page(report_html(summary, [])).text
    assert f"{summary['metrics']['global_mean_iou']:.3f}" in text
    low, high = summary["classes"][0]["iou_ci95"]
    assert f"{low:.3f}–{high:.3f}" in text
    for row in summary["confusion_matrix"]["counts"]:
        for count in row:
            assert f"{count:,}" in text
    assert "4 March 2026, 05:06–05:07 UTC" in text


def test_an_interval_that_is_missing_says_why() -> None:
    summary = make_summary(["a", "b", "c"], pictures=4)
    note = summary["classes"][0]["iou_ci95_note"]
    assert note == "too few pictures: 4, and an interval needs 10"
    page = report_html(summary, [])
    # Below each metric, and on hovering over a dash of each of the two classes that occur.
    assert page.count(f"<small>{note}</small>") == 6
    assert page.count(f'<small title="{note}">–</small>') == 2 * 2


def test_a_hundred_failures_are_shown_and_all_are_counted() -> None:
    summary = make_summary(["a", "b"])
    failures = [Failure(f"broken-{n:03}.png", "", "decode", "Truncated", "cut off") for n in range(150)]
    summary["images"] |= {"found": 156, "failed": 150}
    text = Page(report_html(summary, failures)).text
    assert "150 failures" in text
    assert "The first 100 of 150" in text
    assert "broken-099.png" in text
    assert "broken-100.png" not in text
    # A job hands over the first hundred, and how many there are of each type.
    summary["run"]["failures_by_type"] = {"Truncated": 149, "Empty": 1}
    text = Page(report_html(summary, failures[:100])).text
    assert "Empty" in text
    assert "149" in text


def test_physical_areas_show_where_they_are_known() -> None:
    assert "km²" not in report_html(make_summary(["a", "b"]), [])
    assert "m²" in report_html(make_summary(["a", "b"], m2=0.25), [])


def test_the_table_of_classes_reads_back() -> None:
    summary = make_summary(["sky", 'a, b "c"\nd', "never"], pictures=12, m2=2.0)
    text = summary_csv(summary)
    assert text.endswith("\n")
    assert "\r" not in text
    frame = pd.read_csv(io.StringIO(text))
    assert list(frame.columns[:7]) == [
        "class_id",
        "name",
        "color",
        "area_px",
        "area_fraction",
        "area_m2",
        "images_present",
    ]
    assert frame["name"].tolist() == ["sky", r'a, b "c"\nd', "never"]
    for entry, (_, row) in zip(summary["classes"][:2], list(frame.iterrows())[:2], strict=True):
        assert row["area_px"] == entry["area"]["px"]
        assert row["fraction_p95"] == entry["area"]["fraction_p95"]
        assert (row["iou"], row["iou_ci95_low"], row["iou_ci95_high"]) == (entry["iou"], *entry["iou_ci95"])
        assert (row["dice"], row["samplewise_dice"]) == (entry["dice"], entry["samplewise_dice"])
        assert row["union_px"] == entry["union_px"]
    assert pd.isna(frame.loc[2, "iou"])
    assert pd.isna(frame.loc[2, "iou_ci95_low"])


def test_every_number_of_a_class_has_a_column() -> None:
    summary = make_summary(["a", "b"], pictures=12)
    entry, columns = summary["classes"][0], set(next(csv.reader(io.StringIO(summary_csv(summary)))))
    areas = {{"px": "area_px", "fraction": "area_fraction", "m2": "area_m2"}.get(key, key) for key in entry["area"]}
    plain = set(entry) - {"area", "iou_ci95", "dice_ci95"}
    plain = {name for name in plain if not name.endswith("_note")}
    intervals = {f"{score}_ci95_{end}" for score in ("iou", "dice") for end in ("low", "high")}
    assert columns == areas | plain | intervals
    # Notes on intervals are for people who read the JSON; the table's columns are the same with and without them.
    noted = make_summary(["a", "b"], pictures=1)
    assert "iou_ci95_note" in noted["classes"][0]
    assert set(next(csv.reader(io.StringIO(summary_csv(noted))))) == columns


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_name_is_no_formula_for_a_spreadsheet(name: str) -> None:
    row = next(csv.DictReader(io.StringIO(summary_csv(make_summary([name, "b"])), newline="")))
    assert row["name"] == f"'{printable(name)}"


def test_without_truth_the_tables_scores_are_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(summary_csv(make_summary(["a", "b"], truth=False)))))
    for column in ("iou", "iou_ci95_low", "precision", "truth_px", "samplewise_iou"):
        assert [row[column] for row in rows] == ["", ""]
    assert rows[0]["area_px"] != ""
