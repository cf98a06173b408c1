"""Tasks on several Dask workers, each a process of its own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sphere_reg_ros.evaluation import rows, runner
from sphere_reg_ros.evaluation.errors import SchedulerError
from sphere_reg_ros.evaluation.suites import Choice, Task, tasks_of

distributed = pytest.importorskip("distributed", reason="distributed is not installed: pip install 'sphere_reg_ros[evaluate]'")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Functions that make rows, where a worker process finds them too."""
    folder = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((folder, os.environ.get("PYTHONPATH", ""))))
    yield importlib.import_module("made_rows")


def some_tasks() -> list[Task]:
    return tasks_of("quick", Choice(methods=("photometric", "adam-ncc"), images=6))


def test_a_killed_worker_of_the_cluster_costs_no_row(made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three is killed in the middle: the scheduler gives its task to another, and every row arrives once."""
    monkeypatch.setenv("KILLED_ONCE", str(tmp_path / "killed"))
    path, tasks, seen = tmp_path / "results.csv", some_tasks(), []
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster:
        runner.run_tasks(tasks, path, 1, "a", seen.append, made.one_dies, cluster.scheduler_address)
    assert (tmp_path / "killed").exists()
    assert len(seen) == len(tasks)
    assert sorted(rows.key_of(row) for row in rows.read_rows(path)) == sorted(task.key for task in tasks)


def test_nobody_at_the_address(made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sphere_reg_ros.evaluation import cluster

    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(SchedulerError, match="dask scheduler"):
        runner.run_tasks(some_tasks(), tmp_path / "results.csv", 1, "a", lambda row: None, made.made_row, "tcp://127.0.0.1:9")
    with pytest.raises(SchedulerError, match="no Dask scheduler answers"):
        runner.run_tasks(some_tasks(), tmp_path / "results.csv", 1, "a", lambda row: None, made.made_row, "nowhere at all")
