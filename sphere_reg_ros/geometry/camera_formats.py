"""Cameras as others write them down: ROS camera_info, camera.yaml, DICOM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.errors import CameraError, CameraFileError, TransformError

RIGIDITY_TOLERANCE = 1e-4
CENTRED_TOLERANCE_PX = 0.01


@dataclass(frozen=True)
class CalibratedView:
    """A camera and where it stands.

    Attributes:
        camera: its intrinsics.
        T_camera_reference: ``(4, 4)`` mm, pose of the first camera in this one; the identity for the first.
    """

    camera: Camera
    T_camera_reference: Float64[Tensor, "4 4"]


def checked_transform(matrix: object, name: str) -> Float64[Tensor, "4 4"]:
    """A rigid transform from nested numbers.

    Raises:
        TransformError: not 4x4, not finite, not rigid.
    """
    try:
        values = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TransformError(f"{name} is not a matrix of numbers ({error})") from error
    if values.shape != (4, 4):
        raise TransformError(f"{name} has shape {values.shape}; a 4x4 matrix in mm is needed")
    if not np.isfinite(values).all():
        raise TransformError(f"{name} holds NaN or infinite values")
    rotation = values[:3, :3]
    deviation = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    bottom = float(np.abs(values[3] - (0.0, 0.0, 0.0, 1.0)).max())
    determinant = float(np.linalg.det(rotation))
    if deviation > RIGIDITY_TOLERANCE or bottom > RIGIDITY_TOLERANCE or determinant < 0.0:
        raise TransformError(
            f"{name} is not rigid: |RᵀR - I| is {deviation:.2g} (limit {RIGIDITY_TOLERANCE:g}), det R is {determinant:.3g}, "
            f"the last row is {values[3].tolist()}; give a rotation and a translation in mm"
        )
    return torch.from_numpy(values.copy())


def camera_from_info(
    k: Sequence[float],
    width: int,
    height: int,
    sdd_mm: float,
    pixel_pitch_mm: tuple[float, float] | None = None,
) -> Camera:
    """Camera of the numbers in a ``sensor_msgs/CameraInfo`` and its absolute scale; see :meth:`Camera.from_intrinsic`."""
    if len(k) != 9:
        raise CameraFileError(f"camera matrix has {len(k)} entries; 9 are needed, row by row")
    K = torch.tensor([float(value) for value in k], dtype=torch.float64).reshape(3, 3)
    return Camera.from_intrinsic(K, int(width), int(height), float(sdd_mm), pixel_pitch_mm)


def intrinsic_row_major(camera: Camera) -> list[float]:
    """K as nine numbers, row by row, as in CameraInfo."""
    return [float(value) for value in camera.intrinsic.flatten()]


def read_camera_yaml(path: str | Path) -> list[CalibratedView]:
    """Read the cameras of one or several views.

    The ROS camera_info YAML (``image_width``, ``image_height``, ``camera_matrix: {data: [9]}``) with ``sdd_mm`` and
    ``pixel_pitch_mm`` (a number or ``[du, dv]``). Several views are several YAML documents, a list, or a list under
    ``cameras``; each but the first has ``T_camera_reference``.

    Raises:
        CameraFileError: unreadable, or a field is missing.
        IntrinsicsError, ContradictingIntrinsicsError, TransformError: a field is wrong.
    """
    target = Path(path)
    try:
        documents = [one for one in yaml.safe_load_all(target.read_text()) if one is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CameraFileError(f"{target}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    entries: list[Any] = []
    for document in documents:
        listed = document.get("cameras", document.get("views")) if isinstance(document, Mapping) else document
        entries.extend(listed if isinstance(listed, list) else [document])
    if not entries:
        raise CameraFileError(f"{target}: holds no camera")
    return [_view(target, entry, index) for index, entry in enumerate(entries)]


def write_camera_yaml(path: str | Path, views: Sequence[CalibratedView], names: Sequence[str] | None = None) -> None:
    """Write what :func:`read_camera_yaml` reads, one YAML document a view."""
    documents = []
    for index, view in enumerate(views):
        camera = view.camera
        document: dict[str, Any] = {
            "image_width": camera.width,
            "image_height": camera.height,
            "camera_name": names[index] if names else f"carm_{index}",
            "camera_matrix": {"rows": 3, "cols": 3, "data": intrinsic_row_major(camera)},
            "distortion_model": "plumb_bob",
            "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
            "sdd_mm": camera.sdd_mm,
            "pixel_pitch_mm": list(camera.pixel_pitch_mm),
        }
        if index > 0:
            document["T_camera_reference"] = view.T_camera_reference.tolist()
        documents.append(document)
    Path(path).write_text(yaml.safe_dump_all(documents, sort_keys=False))


def _view(path: Path, entry: object, index: int) -> CalibratedView:
    where = f"{path}, camera {index + 1}"
    if not isinstance(entry, Mapping):
        raise CameraFileError(f"{where}: is no mapping of camera_info fields")
    for field in ("image_width", "image_height", "camera_matrix", "sdd_mm"):
        if field not in entry:
            raise CameraFileError(f"{where}: lacks '{field}'")
    try:
        matrix = entry["camera_matrix"]
        k = [float(value) for value in (matrix["data"] if isinstance(matrix, Mapping) else np.ravel(matrix))]
        distortion = entry.get("distortion_coefficients") or []
        coefficients = np.ravel(distortion.get("data", []) if isinstance(distortion, Mapping) else distortion).astype(float)
        pitch = entry.get("pixel_pitch_mm")
        pitches = None if pitch is None else tuple(float(value) for value in np.broadcast_to(pitch, 2))
        width, height, sdd_mm = int(entry["image_width"]), int(entry["image_height"]), float(entry["sdd_mm"])
    except (TypeError, ValueError, KeyError) as error:
        raise CameraFileError(f"{where}: malformed field ({error})") from error
    # Ignored, it would bend the rays and shift the pose.
    if coefficients.any():
        raise CameraFileError(f"{where}: has distortion coefficients {coefficients.tolist()}; rectify the X-ray first")
    try:
        camera = camera_from_info(k, width, height, sdd_mm, pitches)  # type: ignore[arg-type]
    except InputError as error:
        raise type(error)(f"{where}: {error}") from error
    if index == 0:
        return CalibratedView(camera, torch.eye(4, dtype=torch.float64))
    if "T_camera_reference" not in entry:
        raise CameraFileError(f"{where}: lacks 'T_camera_reference', its place relative to the first camera")
    return CalibratedView(camera, checked_transform(entry["T_camera_reference"], f"{where}: T_camera_reference"))


def camera_from_dicom(dataset: Any, width: int, height: int) -> Camera | None:
    """Camera of a DICOM projection, None where it does not state its geometry.

    From ``DistanceSourceToDetector`` and ``ImagerPixelSpacing`` (row spacing first), DICOM PS3.3 C.8.7.5 and C.8.7.6; the axis is
    taken to meet the middle of the image, which is all that the standard attributes say.

    Args:
        dataset: a ``pydicom.Dataset``, or anything with the same attributes.
    """
    sdd_mm = getattr(dataset, "DistanceSourceToDetector", None)
    spacing = getattr(dataset, "ImagerPixelSpacing", None)
    if sdd_mm in (None, "") or spacing in (None, "") or len(spacing) != 2:
        return None
    if float(sdd_mm) == 0.0:
        # Systems without a sensor for it write zero.
        return None
    middle = ((width - 1) / 2.0, (height - 1) / 2.0)
    return Camera(width, height, float(sdd_mm), (float(spacing[1]), float(spacing[0])), middle)


def angles_from_dicom(dataset: Any) -> tuple[float, float] | None:
    """Positioner primary and secondary angle in degrees, None where they are not stated.

    Their zero is another one than that of :func:`sphere_reg_ros.geometry.views.view_pose`; see
    :func:`sphere_reg_ros.geometry.views.positioner_pose`.
    """
    primary = getattr(dataset, "PositionerPrimaryAngle", None)
    secondary = getattr(dataset, "PositionerSecondaryAngle", None)
    if primary in (None, "") or secondary in (None, ""):
        return None
    return (float(primary), float(secondary))


def dicom_attributes(camera: Camera, angles_deg: tuple[float, float]) -> dict[str, float | list[float]]:
    """DICOM keywords and values that :func:`camera_from_dicom` and :func:`angles_from_dicom` read back.

    Raises:
        CameraError: the axis does not meet the middle of the image, which these attributes cannot say.
    """
    cx, cy = camera.piercing_point_px
    offset = max(abs(cx - (camera.width - 1) / 2.0), abs(cy - (camera.height - 1) / 2.0))
    if offset > CENTRED_TOLERANCE_PX:
        raise CameraError(
            f"piercing point is {offset:.3g} pixels off the middle (limit {CENTRED_TOLERANCE_PX:g}), "
            "which DICOM XA cannot state; write a camera.yaml"
        )
    du, dv = camera.pixel_pitch_mm
    return {
        "DistanceSourceToDetector": camera.sdd_mm,
        "ImagerPixelSpacing": [dv, du],
        "PositionerPrimaryAngle": angles_deg[0],
        "PositionerSecondaryAngle": angles_deg[1],
    }
