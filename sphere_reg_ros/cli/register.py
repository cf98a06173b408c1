"""``sphere_reg register``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sphere_reg_ros.cli.app import DONE, FAILED
from sphere_reg_ros.cli.common import OptionError, load_case, make_folder, say
from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.camera_formats import CalibratedView, checked_transform, read_camera_yaml
from sphere_reg_ros.imaging.readers import read_xray
from sphere_reg_ros.imaging.xray import XrayImage, validate_xray
from sphere_reg_ros.models.checkpoint import find_model
from sphere_reg_ros.registration.device import choose_device
from sphere_reg_ros.registration.fallback import FallbackPipeline
from sphere_reg_ros.registration.overlay import convergence_figure, overlay_rgb
from sphere_reg_ros.registration.pipeline import View
from sphere_reg_ros.registration.result import RegistrationResult
from sphere_reg_ros.registration.settings import RegistrationSettings


class PoseFileError(InputError):
    """An initial pose file that cannot be used."""


@dataclass(frozen=True)
class RegisterRequest:
    """The options of the command."""

    ct: str
    xrays: tuple[Path, ...]
    out: Path
    sdd_mm: float | None
    pixel_pitch_mm: float | None
    camera: Path | None
    init: Path | None
    model: Path | None
    labels: Path | None
    landmarks: Path | None
    device: str
    seed: int


def register_files(request: RegisterRequest, quiet: bool) -> int:
    """Register, write ``result.json``, ``overlay.png`` and ``convergence.png``; 0 accepted, 1 rejected."""
    choose_device(request.device)
    T_initial = read_pose(request.init) if request.init is not None else None
    xrays = [read_xray(path) for path in request.xrays]
    views = _calibrated(request, xrays)
    for xray, view in zip(xrays, views, strict=True):
        validate_xray(xray, view.camera)
    ct, landmarks = load_case(request.ct, request.labels, request.landmarks)
    model = find_model(ct.sha256, request.model)
    out = make_folder(request.out)
    pipeline = FallbackPipeline(ct, RegistrationSettings(seed=request.seed), request.device, model)
    further = [View(xray, view.camera, view.T_camera_reference) for xray, view in zip(xrays[1:], views[1:], strict=True)]
    result = pipeline.register(xrays[0], views[0].camera, T_initial, further_views=further)
    content = result_to_json(result)
    if landmarks is not None:
        pixels = _projected(result, landmarks.points_mm, views[0].camera)
        content["landmarks_px"] = dict(zip(landmarks.names, pixels, strict=True))
    (out / "result.json").write_text(json.dumps(content, indent=2) + "\n")
    picture = overlay_rgb(xrays[0], pipeline.drr(result.T_camera_ct, views[0].camera))
    cv2.imwrite(str(out / "overlay.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    convergence_figure(result, out / "convergence.png")
    verdict = "accepted" if result.accepted else "rejected: " + "; ".join(result.reasons)
    figures = f"expected error {result.expected_error_mm:.2f} mm; {result.timings_ms['total']:.0f} ms"
    say(f"{verdict}; {figures}; {out / 'result.json'}", quiet)
    return DONE if result.accepted else FAILED


def read_pose(path: Path) -> np.ndarray:
    """``T_camera_ct`` in mm from ``pose.json``.

    Raises:
        PoseFileError: unreadable, or without the key.
        TransformError: no rigid transform.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PoseFileError(f"{path}: initial pose cannot be read ({error})") from error
    if not isinstance(content, dict) or "T_camera_ct" not in content:
        raise PoseFileError(f"{path}: lacks the key 'T_camera_ct', a 4x4 matrix in mm")
    return checked_transform(content["T_camera_ct"], f"{path}: T_camera_ct").numpy()


def result_to_json(result: RegistrationResult) -> dict[str, Any]:
    """The content of ``result.json``."""
    return {
        "T_camera_ct": result.T_camera_ct.tolist(),
        "accepted": result.accepted,
        "reasons": list(result.reasons),
        "covariance": result.covariance.tolist(),
        "probability": result.probability,
        "expected_error_mm": result.expected_error_mm,
        "scores": result.scores,
        "timings_ms": result.timings_ms,
        "iterations": result.iterations,
        "centre_ct": result.centre_ct.tolist(),
        "ct_sha256": result.ct_sha256,
        "model_id": result.model_id,
        "version": result.version,
    }


def _calibrated(request: RegisterRequest, xrays: list[XrayImage]) -> list[CalibratedView]:
    if request.camera is not None:
        if request.sdd_mm is not None or request.pixel_pitch_mm is not None:
            raise OptionError("give either --camera or --sdd and --pixel-pitch, not both")
        views = read_camera_yaml(request.camera)
        if len(views) != len(xrays):
            raise OptionError(f"--camera {request.camera} describes {len(views)} views, --xray was given {len(xrays)} times")
        return views
    if len(xrays) > 1:
        raise OptionError("several X-rays need --camera with T_camera_reference of each further view")
    return [CalibratedView(_camera(request, xrays[0]), checked_transform(np.eye(4), "identity"))]


def _camera(request: RegisterRequest, xray: XrayImage) -> Camera:
    height, width = xray.pixels.shape
    if request.sdd_mm is None and request.pixel_pitch_mm is None:
        if xray.camera is None:
            raise OptionError(f"{xray.source} does not state its geometry; give --sdd and --pixel-pitch, or --camera")
        return xray.camera
    known = xray.camera
    sdd_mm = request.sdd_mm if request.sdd_mm is not None else (known.sdd_mm if known else None)
    if sdd_mm is None:
        raise OptionError("--pixel-pitch was given without --sdd")
    if request.pixel_pitch_mm is not None:
        pitch = (request.pixel_pitch_mm, request.pixel_pitch_mm)
    elif known is not None:
        pitch = known.pixel_pitch_mm
    else:
        raise OptionError("--sdd was given without --pixel-pitch")
    return Camera(width, height, sdd_mm, pitch, ((width - 1) / 2.0, (height - 1) / 2.0))


def _projected(result: RegistrationResult, points_mm: Any, camera: Camera) -> list[list[float]]:
    import torch

    from sphere_reg_ros.geometry.se3 import transform_points

    pose = torch.from_numpy(result.T_camera_ct)
    pixels: list[list[float]] = camera.project(transform_points(pose, points_mm)).tolist()
    return pixels
