"""Runs tasks in worker processes; every row arrives once, also where a worker is killed on the way."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from pathlib import Path

from sphere_reg_ros.evaluation.cluster import cluster_rows
from sphere_reg_ros.evaluation.errors import WorkerLostError
from sphere_reg_ros.evaluation.rows import RowWriter, key_of, read_rows
from sphere_reg_ros.evaluation.suites import Task

MAX_LOSSES = 5
"""Worker deaths in a row, without any row between them, after which the run gives up."""

Group = tuple[Task, ...]
Perform = Callable[[Task, str], dict[str, str]]


def remaining(tasks: Sequence[Task], path: Path) -> list[Task]:
    """The tasks that have no row yet."""
    done = {key_of(row) for row in read_rows(path)}
    return [task for task in tasks if task.key not in done]


def run_tasks(
    tasks: Sequence[Task],
    path: Path,
    workers: int,
    commit: str,
    on_row: Callable[[dict[str, str]], None],
    perform: Perform,
    scheduler: str = "",
) -> None:
    """Do the tasks that have no row yet, and append their rows.

    Args:
        path: the results file; only this process writes it.
        workers: processes; 1 works in this one.
        perform: makes a row of a task and the commit; importable by a worker.
        scheduler: address of a Dask scheduler, whose workers do the work instead.

    Raises:
        SchedulerError: it does not answer, or no longer.
        ResultsWriteError: a row could not be written.
        WorkerLostError: workers died five times without a row between.
    """
    left = remaining(tasks, path)
    writer = RowWriter(path)
    if workers == 1 and not scheduler:
        for task in left:
            row = perform(task, commit)
            writer.write(row)
            on_row(row)
        return
    losses = 0
    while left:
        written = 0
        try:
            groups = _groups(left)
            rows = cluster_rows(groups, scheduler, commit, _perform_group, perform) if scheduler else None
            for row in rows or _rows(groups, workers, commit, perform):
                writer.write(row)
                on_row(row)
                written += 1
        except BrokenProcessPool:
            losses = 0 if written else losses + 1
            if losses >= MAX_LOSSES:
                raise WorkerLostError(
                    f"{path}: worker processes died {losses} times in a row (out of memory?); run again with fewer --workers"
                ) from None
        left = remaining(tasks, path)


def _groups(tasks: Sequence[Task]) -> list[Group]:
    """Tasks of one X-ray together, which a worker simulates once."""
    return [tuple(group) for _, group in groupby(tasks, key=lambda task: (task.dataset, task.seed, task.spread, task.case))]


def _rows(groups: Sequence[Group], workers: int, commit: str, perform: Perform) -> Iterator[dict[str, str]]:
    # spawn: numba's and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        pending: set[Future[list[dict[str, str]]]] = {pool.submit(_perform_group, group, commit, perform) for group in groups}
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield from future.result()


def _perform_group(group: Group, commit: str, perform: Perform) -> list[dict[str, str]]:
    return [perform(task, commit) for task in group]


def _one_thread() -> None:
    """Workers share the cores: one thread each, or they fight over them."""
    import numba
    import torch

    torch.set_num_threads(1)
    numba.set_num_threads(1)
