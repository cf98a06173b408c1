"""The HTML report: parsed as a browser would, with nothing outside the file."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphere_reg_ros.evaluation.metrics import summarise
from sphere_reg_ros.evaluation.report import summary_rows, write_report

ROWS = [
    {"stamp": "1.000", "accepted": "True", "mtre_mm": "0.123"},
    {"stamp": "2.000", "accepted": "False", "mtre_mm": "<b>5</b> & more"},
]
FACTS = [("images", "2"), ("bag", "/a <path> & 'more'")]


class Page(HTMLParser):
    """Cells, pictures and everything that would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.images: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.title = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "img":
            self.images.append(values.get("src") or "")
        elif "src" in values or "href" in values or tag in ("script", "link"):
            self.fetched.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if self.open and self.open[-1] == "title":
            self.title += data


def written(folder: Path, errors_mm: list[float], pictures: int = 2) -> Page:
    overlays = [(f"image {index} <first>", np.full((20, 30, 3), 40 * index, np.uint8)) for index in range(pictures)]
    for _, picture in overlays:
        picture[5, 7] = (255, 10, 20)
    write_report(folder / "report.html", "Replay of <bag>", FACTS, ROWS, overlays, errors_mm)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def decoded(source: str) -> np.ndarray:
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))


def test_it_needs_no_other_file_and_shows_every_figure(tmp_path: Path) -> None:
    page = written(tmp_path, [0.1, 5.0])
    assert page.title == "Replay of <bag>"
    assert not page.fetched
    for name, value in FACTS:
        assert name in page.cells and value in page.cells
    for row in ROWS:
        for value in row.values():
            assert value in page.cells, "escaped, not interpreted"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_overlays_keep_their_colours(tmp_path: Path) -> None:
    pictures = [decoded(source) for source in written(tmp_path, []).images]
    assert len(pictures) == 2
    for index, picture in enumerate(pictures):
        assert picture.shape == (20, 30, 3)
        # OpenCV decodes to blue, green, red.
        assert picture[5, 7].tolist() == [20, 10, 255] and picture[0, 0].tolist() == [40 * index] * 3


def test_the_cumulative_plot_is_there_where_errors_are(tmp_path: Path) -> None:
    assert len(written(tmp_path, [], pictures=0).images) == 0
    page = written(tmp_path, [0.0, 0.4, 0.5, 800.0], pictures=0)
    assert len(page.images) == 1
    assert decoded(page.images[0]).std() > 5


def test_no_row_is_no_table(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", "empty", FACTS, [], [], [])
    assert "stamp" not in Page((tmp_path / "report.html").read_text()).cells


def test_the_summary_names_what_the_numbers_are() -> None:
    table = dict(summary_rows(summarise([0.1, 0.2, 3.0, 20.0], [True, False, True, False], [10.0, 20.0, 30.0, 40.0])))
    low, middle, high = np.percentile([0.1, 0.2, 3.0, 20.0], (50, 75, 95))
    assert table["images"] == "4"
    assert table["mTRE 50 / 75 / 95 % [mm]"] == f"{low:.3f} / {middle:.3f} / {high:.3f}"
    assert float(table["SMSR (mTRE < 1 mm) [%]"]) == pytest.approx(50.0)
    assert float(table["accepted [%]"]) == pytest.approx(50.0)
    assert float(table["wrongly accepted (> 2 mm) [%]"]) == pytest.approx(25.0)
    assert float(table["wrongly rejected (< 1 mm) [%]"]) == pytest.approx(25.0)
    assert float(table["time per image, median [ms]"]) == pytest.approx(25.0)
