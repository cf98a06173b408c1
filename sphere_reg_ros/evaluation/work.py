"""One task, from its names to its row; a worker process keeps the CT and the methods between tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from sphere_reg_ros import __version__
from sphere_reg_ros.errors import SphereRegError
from sphere_reg_ros.evaluation import metrics
from sphere_reg_ros.evaluation.cases import Case, Patient, open_patient
from sphere_reg_ros.evaluation.methods import make_method
from sphere_reg_ros.evaluation.problem import Answer, Method, Problem, TracePoint
from sphere_reg_ros.evaluation.suites import Task
from sphere_reg_ros.registration.pyramid import VolumePyramid

TRACE_POINTS = 60


@lru_cache(maxsize=1)
def _patient(dataset: str) -> tuple[Patient, VolumePyramid]:
    patient = open_patient(dataset)
    return patient, VolumePyramid(patient.ct, "cpu", torch.device("cpu"))


@lru_cache(maxsize=8)
def _method(name: str, dataset: str, models: str) -> Method:
    patient, volumes = _patient(dataset)
    return make_method(name, patient.ct, volumes, patient.points_mm, Path(models))


@lru_cache(maxsize=2)
def _case(dataset: str, seed: int, start: str, index: int) -> Case:
    return _patient(dataset)[0].case(index, seed, start)


def perform(task: Task, commit: str, models: str = "") -> dict[str, str]:
    """Make the X-ray, register it, and measure the result; the clock runs in the method alone, whose kernels are compiled."""
    patient, _ = _patient(task.dataset)
    method = _method(task.method, task.dataset, models)
    case = _case(task.dataset, task.seed, task.spread, task.case)
    problem = Problem(case.xray, case.camera, case.T_start, task.seed * 100_003 + task.case)
    _warm(task.method, task.dataset, problem)
    began = perf_counter()
    try:
        answer = method(problem)
    except SphereRegError:
        # A method that refuses the X-ray or the start has failed on it: its row counts, with the start as its estimate.
        answer = Answer(problem.T_start, False, 0, (TracePoint(0, 0.0, problem.T_start),))
    time_ms = 1e3 * (perf_counter() - began)
    return row_of(task, answer, case, patient.points_mm, time_ms, commit)


_WARM: set[tuple[str, str]] = set()


def _warm(name: str, dataset: str, problem: Problem) -> None:
    # Volumes and kernels belong to the CT, not to the X-ray: every method has them before its clock runs.
    if (name, dataset) in _WARM:
        return
    _, volumes = _patient(dataset)
    for voxel_mm, step_mm in ((4.0, 4.0), (2.0, 2.5)):
        renderer = volumes.renderer(voxel_mm)
        renderer.render(problem.T_start[None], problem.camera, step_mm)
        renderer.render_with_jacobian(problem.T_start[None], problem.camera, torch.zeros(3, dtype=torch.float64), step_mm)
    _WARM.add((name, dataset))


def row_of(task: Task, answer: Answer, case: Case, points: Tensor, time_ms: float, commit: str) -> dict[str, str]:
    """The row of a result, all figures of the metrics' definitions."""
    truth, estimate = case.T_true, answer.T_camera_ct.double()
    stride = max(1, len(answer.trace) // TRACE_POINTS)
    chosen = [*answer.trace[::stride], answer.trace[-1]]
    trace = [
        [point.iteration, round(point.time_ms, 1), round(metrics.mtre_mm(point.T_camera_ct, truth, points), 4)]
        for point in chosen
    ]
    figures: Mapping[str, float] = {
        "start_mm": metrics.mtre_mm(case.T_start, truth, points),
        "mtre_mm": metrics.mtre_mm(estimate, truth, points),
        "mpe_mm": metrics.mean_projection_error_mm(estimate, truth, points, case.camera),
        "mrpe_mm": metrics.mean_reprojection_distance_mm(estimate, truth, points),
        "dgeo_mm": metrics.geodesic_mm(estimate, truth, case.camera.sdd_mm),
        "time_ms": time_ms,
    }
    names = dict(zip(("method", "dataset", "case", "seed", "spread"), task.key, strict=True))
    return {
        **names,
        **{name: f"{value:.5g}" for name, value in figures.items()},
        "iterations": str(answer.iterations),
        "accepted": str(int(answer.accepted)),
        "version": __version__,
        "commit": commit,
        "device": f"cpu, {torch.get_num_threads()} threads",
        "T_camera_ct": json.dumps(estimate.tolist()),
        "T_start": json.dumps(case.T_start.tolist()),
        "T_true": json.dumps(truth.tolist()),
        "trace": json.dumps(trace),
    }
