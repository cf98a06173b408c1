"""``sphere_reg evaluate`` as a user calls it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_a_suite_leaves_all_files_and_goes_on(run: Run, phantom_path: Path, tmp_path: Path) -> None:
    """A user's CT, one method; the second call adds one image and keeps the rows of the first."""
    common = ("evaluate", "--suite", "quick", "--ct", phantom_path, "--method", "photometric", "--workers", 1, "--out", tmp_path)
    first = run(*common, "--images", 1)
    assert first.code == 0, first.err
    assert "mTRE" in first.out and "not projected" in first.out
    kept = (tmp_path / "results.csv").read_text()
    assert run(*common, "--images", 2, "--quiet").out == ""
    text = (tmp_path / "results.csv").read_text()
    assert text.startswith(kept)
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["case"] for row in rows] == ["0", "1"]
    assert float(rows[0]["mtre_mm"]) < float(rows[0]["start_mm"])
    for name in ("tables.md", "tables.tex", "report.html", "plots/cumulative.png", "plots/success_by_start.png", "plots/box.png"):
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--suite", "quik"), "did you mean 'quick'"),
        (("--suite", "quick", "--method", "adam"), "did you mean 'adam-ncc'"),
        (("--suite", "deepfluoro"), "--data"),
        (("--suite", "deepfluoro", "--data", "/nowhere/full.h5"), "no such file"),
        (("--suite", "deepfluoro", "--check-data", "/nowhere/full.h5"), "CC BY-NC"),
        (("--suite", "quick", "--check-data", "/nowhere"), "needs no data"),
    ],
)
def test_bad_input_is_one_line(run: Run, tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    assert word in run("evaluate", *options, "--out", tmp_path).complaint()


def test_a_folder_for_the_results_is_needed(run: Run) -> None:
    assert "--out" in run("evaluate", "--suite", "quick").complaint()
