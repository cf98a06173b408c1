"""``sphere_reg evaluate``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sphere_reg_ros.cli.app import DONE
from sphere_reg_ros.cli.common import OptionError, make_folder, say
from sphere_reg_ros.evaluation.cases import open_patient
from sphere_reg_ros.evaluation.methods import MADE
from sphere_reg_ros.evaluation.rows import key_of, read_rows
from sphere_reg_ros.evaluation.runner import remaining, run_tasks
from sphere_reg_ros.evaluation.suite_report import write_suite
from sphere_reg_ros.evaluation.suites import Choice, Task, check_data, split_of, tasks_of
from sphere_reg_ros.evaluation.variants import make_model
from sphere_reg_ros.evaluation.work import perform


@dataclass(frozen=True)
class EvaluateRequest:
    """What the command was asked for."""

    suite: str
    out: Path | None
    choice: Choice
    workers: int | None
    scheduler: str
    check_data: Path | None
    model_steps: int


def evaluate_suite(request: EvaluateRequest, quiet: bool) -> int:
    """Do what is left of a suite, then write its tables, figures and report."""
    if request.check_data is not None:
        print("\n".join(check_data(request.suite, request.check_data)))
        return DONE
    if request.out is None:
        raise OptionError("--out is missing: name a folder for the results")
    tasks = tasks_of(request.suite, request.choice)
    folder = make_folder(request.out)
    split = split_of(request.suite, request.choice).as_json()
    (folder / "split.json").write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    results = folder / "results.csv"
    left = len(remaining(tasks, results))
    models = folder / "models"
    make_models(tasks, models, request.model_steps, request.choice.seed, quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(request.suite, total=len(tasks), completed=len(tasks) - left)
        workers = request.workers or max(1, min(os.cpu_count() or 1, left))
        commit = commit_of_tree()
        work = partial(perform, models=str(models.resolve()))
        run_tasks(tasks, results, workers, commit, lambda _: progress.advance(bar), work, request.scheduler)
    keys = {task.key: number for number, task in enumerate(tasks)}
    rows = sorted((row for row in read_rows(results) if key_of(row) in keys), key=lambda row: keys[key_of(row)])
    write_suite(rows, folder, f"Suite {request.suite}")
    say((folder / "tables.md").read_text(encoding="utf-8"), quiet)
    return DONE


def make_models(tasks: Sequence[Task], folder: Path, steps: int, seed: int, quiet: bool) -> None:
    """Train what the methods need for each CT and is not there yet; a training that was killed goes on."""
    wanted = dict.fromkeys((task.dataset, MADE[task.method]) for task in tasks if task.method in MADE)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, quiet=quiet)) as progress:
        for dataset, model in wanted:
            bar = progress.add_task(f"model {model}", total=None)
            patient = open_patient(dataset)
            told = partial(_tell, progress, bar)
            make_model(folder, model, patient.ct, patient.points_mm.tolist(), steps, seed, told)
            progress.update(bar, completed=1, total=1)


def _tell(progress: Progress, bar: TaskID, done: int, total: int) -> None:
    progress.update(bar, completed=done, total=total)


def commit_of_tree() -> str:
    """The commit of the source tree that this package is run from, ``-`` where it is installed."""
    here = Path(__file__).resolve().parent.parent.parent
    if not (here / ".git").exists():
        return "-"
    try:
        command = ["git", "-C", str(here), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "-"
