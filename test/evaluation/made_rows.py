"""Rows without any registration, made by functions that worker processes can import."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sphere_reg_ros.evaluation import rows
from sphere_reg_ros.evaluation.suites import Task

ERRORS = {"photometric": 0.2, "adam-ncc": 3.0}


def made_row(task: Task, commit: str) -> dict[str, str]:
    """A row without any registration."""
    names = dict(zip(rows.KEY, task.key, strict=True))
    error = ERRORS[task.method] + 0.01 * task.case
    figures = {name: str(error) for name in rows.FIELDS if name.endswith("_mm")}
    trace = json.dumps([[0, 0.0, 50.0], [7, 90.0, error]])
    rest = {"iterations": "7", "time_ms": "100", "accepted": "1", "version": "0", "commit": commit, "device": "cpu"}
    poses = {name: "[]" for name in ("T_camera_ct", "T_start", "T_true")}
    return {**names, **figures, **rest, **poses, "trace": trace}


def one_dies(task: Task, commit: str) -> dict[str, str]:
    """As :func:`made_row`, but the worker that first meets case 3 is killed, as by the system for memory."""
    mark = Path(os.environ["KILLED_ONCE"])
    if task.case == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return made_row(task, commit)


def always_dies(task: Task, commit: str) -> dict[str, str]:
    """A task that no worker survives."""
    os.kill(os.getpid(), 9)
    return made_row(task, commit)
