"""Suites, the runner and the results file: every row once, whatever happens on the way."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sphere_reg_ros.evaluation import rows, runner, tables
from sphere_reg_ros.evaluation.errors import (
    DatasetFileError,
    MethodNameError,
    ResultsFileError,
    ResultsWriteError,
    SuiteNameError,
    WorkerLostError,
)
from sphere_reg_ros.evaluation.suite_report import write_suite
from sphere_reg_ros.evaluation.suites import Choice, Task, tasks_of

ERRORS = {"photometric": 0.2, "adam-ncc": 3.0}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Functions that make rows, where a worker process finds them too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield importlib.import_module("made_rows")


def some_tasks(images: int = 6) -> list[Task]:
    return tasks_of("quick", Choice(methods=tuple(ERRORS), seed=1, images=images))


def test_a_suite_is_every_method_on_every_image() -> None:
    tasks = some_tasks()
    assert len(tasks) == len(set(tasks)) == 12
    assert {(task.method, task.case) for task in tasks} == {(name, case) for name in ERRORS for case in range(6)}
    assert len({task.method for task in tasks_of("quick", Choice())}) >= 3
    assert len(tasks_of("builtin", Choice(methods=("photometric",)))) >= 100


def test_unknown_names_get_the_nearest_one() -> None:
    with pytest.raises(SuiteNameError, match="did you mean 'quick'"):
        tasks_of("quik", Choice())
    with pytest.raises(MethodNameError, match="did you mean 'photometric'"):
        tasks_of("quick", Choice(methods=("fotometric",)))
    with pytest.raises(DatasetFileError, match="--data"):
        tasks_of("deepfluoro", Choice())


def test_a_stopped_run_goes_on(made: ModuleType, tmp_path: Path) -> None:
    path, tasks, seen = tmp_path / "results.csv", some_tasks(), []
    runner.run_tasks(tasks[:5], path, 1, "a", seen.append, made.made_row)
    with path.open("a") as file:
        file.write("photometric,chest,2,1,0.5,half a row")
    runner.run_tasks(tasks, path, 1, "b", seen.append, made.made_row)
    read = rows.read_rows(path)
    assert [rows.key_of(row) for row in read] == [task.key for task in tasks]
    assert [row["commit"] for row in read] == ["a"] * 5 + ["b"] * 7
    assert len(seen) == 12


def test_a_killed_worker_costs_no_row(made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILLED_ONCE", str(tmp_path / "killed"))
    path, tasks = tmp_path / "results.csv", some_tasks()
    runner.run_tasks(tasks, path, 2, "a", lambda row: None, made.one_dies)
    assert (tmp_path / "killed").exists()
    assert sorted(rows.key_of(row) for row in rows.read_rows(path)) == sorted(task.key for task in tasks)


def test_workers_that_always_die_end_the_run(made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_LOSSES", 1)
    with pytest.raises(WorkerLostError, match="fewer --workers"):
        runner.run_tasks(some_tasks(1), tmp_path / "results.csv", 2, "a", lambda row: None, made.always_dies)


def test_a_full_disk_leaves_the_rows_before(made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tasks = tmp_path / "results.csv", some_tasks()
    runner.run_tasks(tasks[:3], path, 1, "a", lambda row: None, made.made_row)
    whole = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsWriteError, match="No space left"):
        runner.run_tasks(tasks, path, 1, "a", lambda row: None, made.made_row)
    assert path.read_bytes() == whole


def test_a_foreign_file_is_not_overwritten(made: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("stamp,accepted\n1,0\n")
    with pytest.raises(ResultsFileError, match="columns"):
        runner.run_tasks(some_tasks(), path, 1, "a", lambda row: None, made.made_row)
    assert path.read_text() == "stamp,accepted\n1,0\n"


def test_figures_of_the_table(made: ModuleType) -> None:
    lines = [made.made_row(task, "a") for task in some_tasks(20)]
    ours, other = tables.lines_of(lines)
    assert (ours.method, ours.summary.images, ours.summary.smsr, ours.p_value) == ("photometric", 20, 100.0, None)
    assert ours.summary.percentiles_mm[0] == pytest.approx(0.2 + 0.01 * 9.5)
    assert other.summary.smsr == 0.0
    # 20 differences of one sign: 2 of the 2^20 sign patterns are as extreme.
    assert other.p_value is not None and other.p_value < 1e-3
    text = tables.markdown([ours, other])
    assert "photometric" in text and "not projected, not rescaled" in text
    assert tables.latex([ours, other]).count(r"\\") == 3


def test_the_bootstrap_interval_is_that_of_the_binomial() -> None:
    """50 of 100: the normal approximation says 50 ± 9.8."""
    low, high = tables.smsr_interval([0.5] * 50 + [5.0] * 50)
    assert (low, high) == (pytest.approx(40.2, abs=1.5), pytest.approx(59.8, abs=1.5))


def test_a_test_of_too_few_pairs_is_not_made() -> None:
    assert tables.paired_p([(1.0, 2.0)] * 5) is None
    generator = np.random.default_rng(0)
    noise = generator.normal(size=50)
    assert (tables.paired_p([(1.0 + one, 1.0) for one in noise]) or 0.0) > 0.05


def test_a_report_needs_no_other_file(made: ModuleType, tmp_path: Path) -> None:
    write_suite([made.made_row(task, "a") for task in some_tasks()], tmp_path, "Suite quick")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "plots").glob("*.png"))) == 5
    assert "src='http" not in page and "Wilcoxon" in page
    assert (tmp_path / "tables.tex").exists()
