"""``sphere_reg replay``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from sphere_reg_ros.cli.app import DONE
from sphere_reg_ros.cli.common import load_case, make_folder, say, with_progress
from sphere_reg_ros.errors import InputError
from sphere_reg_ros.evaluation import metrics
from sphere_reg_ros.evaluation.report import summary_rows, write_report
from sphere_reg_ros.imaging.landmarks import Landmarks
from sphere_reg_ros.models.checkpoint import find_model
from sphere_reg_ros.registration.device import choose_device
from sphere_reg_ros.registration.fallback import FallbackPipeline
from sphere_reg_ros.registration.overlay import overlay_rgb
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.result import RegistrationResult
from sphere_reg_ros.registration.settings import RegistrationSettings
from sphere_reg_ros.ros.bags import RecordedXray, read_xrays

MAX_PICTURES = 40
COLUMNS = (
    "stamp", "accepted", "reasons", "mtre_mm", "time_ms", "iterations", "mpe_mm", "mrpe_mm", "dgeo_mm",
    "expected_error_mm", "similarity", "start",
)  # fmt: skip


@dataclass(frozen=True)
class ReplayRequest:
    """The options of the command."""

    bag: Path
    ct: str
    out: Path
    model: Path | None
    labels: Path | None
    landmarks: Path | None
    sdd_mm: float | None
    device: str
    seed: int


def replay_bag(request: ReplayRequest, quiet: bool) -> int:
    """Register every X-ray of a bag; rows are written as they come, so that a stop loses none."""
    choose_device(request.device)
    recorded = read_xrays(request.bag, request.sdd_mm)
    ct, landmarks = load_case(request.ct, request.labels, request.landmarks)
    model = find_model(ct.sha256, request.model)
    out = make_folder(request.out)
    pipeline = FallbackPipeline(ct, RegistrationSettings(seed=request.seed), request.device, model)
    pipeline.prepare()
    rows: list[dict[str, str]] = []
    pictures: list[tuple[str, np.ndarray]] = []
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for one in with_progress(recorded, "registering", quiet):
            row, picture = _register(pipeline, one, landmarks)
            writer.writerow(row)
            file.flush()
            rows.append(row)
            if picture is not None and len(pictures) < MAX_PICTURES:
                verdict = "accepted" if row["accepted"] == "True" else row["reasons"]
                pictures.append((f"{row['stamp']}: {verdict} {row['mtre_mm']}", picture))
    facts, errors = _facts(request, rows, landmarks)
    write_report(out / "report.html", f"Replay of {request.bag.name}", facts, rows, pictures, errors)
    if pictures:
        cv2.imwrite(str(out / "overlay.png"), cv2.cvtColor(pictures[0][1], cv2.COLOR_RGB2BGR))
    for name, value in facts:
        say(f"{name:<34} {value}", quiet)
    return DONE


def _register(
    pipeline: RegistrationPipeline, one: RecordedXray, landmarks: Landmarks | None
) -> tuple[dict[str, str], np.ndarray | None]:
    row = dict.fromkeys(COLUMNS, "")
    row["stamp"] = f"{one.stamp_ns / 1e9:.9f}"
    row["start"] = "prior" if one.T_prior is not None else "search"
    try:
        result = pipeline.register(one.xray, one.camera, None if one.T_prior is None else one.T_prior.numpy())
    except InputError as error:
        # One X-ray that cannot be used does not end the replay of the others.
        return {**row, "accepted": "False", "reasons": str(error)}, None
    row.update(
        accepted=str(result.accepted),
        reasons="; ".join(result.reasons),
        time_ms=f"{result.timings_ms['total']:.1f}",
        iterations=str(result.iterations),
        expected_error_mm=f"{result.expected_error_mm:.4f}",
        similarity=f"{result.scores.get('similarity', float('nan')):.4f}",
    )
    row.update(_errors(result, one, landmarks))
    return row, overlay_rgb(one.xray, pipeline.drr(result.T_camera_ct, one.camera))


def _errors(result: RegistrationResult, one: RecordedXray, landmarks: Landmarks | None) -> dict[str, str]:
    if one.T_truth is None:
        return {}
    estimate = torch.from_numpy(result.T_camera_ct)
    found: dict[str, float] = {"dgeo_mm": metrics.geodesic_mm(estimate, one.T_truth, one.camera.sdd_mm)}
    if landmarks is not None:
        points = landmarks.points_mm
        found["mtre_mm"] = metrics.mtre_mm(estimate, one.T_truth, points)
        found["mpe_mm"] = metrics.mean_projection_error_mm(estimate, one.T_truth, points, one.camera)
        found["mrpe_mm"] = metrics.mean_reprojection_distance_mm(estimate, one.T_truth, points)
    return {name: f"{value:.6f}" for name, value in found.items()}


def _facts(
    request: ReplayRequest, rows: list[dict[str, str]], landmarks: Landmarks | None
) -> tuple[list[tuple[str, str]], list[float]]:
    measured: list[Any] = [row for row in rows if row["mtre_mm"]]
    if measured:
        errors = [float(row["mtre_mm"]) for row in measured]
        decisions = [row["accepted"] == "True" for row in measured]
        times = [float(row["time_ms"]) for row in measured]
        return [("bag", str(request.bag)), *summary_rows(metrics.summarise(errors, decisions, times))], errors
    why = "no landmarks were given" if landmarks is None else "the bag has no ground truth"
    accepted = sum(row["accepted"] == "True" for row in rows)
    times = [float(row["time_ms"]) for row in rows if row["time_ms"]]
    return [
        ("bag", str(request.bag)),
        ("images", str(len(rows))),
        ("accepted", f"{accepted} of {len(rows)}"),
        ("time per image, median [ms]", f"{np.median(times):.0f}" if times else "-"),
        ("mTRE", f"not measured: {why}"),
    ], []
