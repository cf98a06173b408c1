"""Poses from which a registration starts."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.camera_formats import checked_transform
from sphere_reg_ros.geometry.errors import TransformError
from sphere_reg_ros.geometry.views import (
    SOURCE_TO_CENTRE_SHARE,
    positioner_pose,
    sample_perturbation,
    view_pose,
)
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.errors import InitialPoseError
from sphere_reg_ros.registration.settings import HypothesisSettings, SearchSettings


def check_initial_pose(T_camera_ct: object, ct: CtVolume, camera: Camera) -> Float64[Tensor, "4 4"]:
    """Refuse what is no rigid transform, and poses under which the X-ray cannot show the CT.

    Raises:
        InitialPoseError: with the offending figure.
    """
    try:
        pose = checked_transform(T_camera_ct, "initial pose")
    except TransformError as error:
        raise InitialPoseError(str(error)) from error
    _check_in_view(pose, ct, camera)
    return pose


def _check_in_view(T_camera_ct: Float64[Tensor, "4 4"], ct: CtVolume, camera: Camera) -> None:
    corners = se3.transform_points(T_camera_ct, ct.body_corners().to(torch.float64))
    depth = corners[:, 2]
    if float(depth.max()) <= 0.0 or float(depth.min()) >= camera.sdd_mm:
        raise InitialPoseError(
            f"initial pose looks past the CT: the patient lies at a depth of {float(depth.min()):.0f} to "
            f"{float(depth.max()):.0f} mm, the detector at {camera.sdd_mm:.0f} mm; check units (mm) and direction (T_camera_ct)"
        )
    # Corners behind the source have no projection; those in front bound what can be seen.
    pixels = camera.project(corners[depth > 1.0])
    low, high = pixels.amin(0), pixels.amax(0)
    if float(high[0]) < 0 or float(high[1]) < 0 or float(low[0]) >= camera.width or float(low[1]) >= camera.height:
        raise InitialPoseError(
            f"initial pose looks past the CT: it projects to columns {float(low[0]):.0f} to {float(high[0]):.0f} and rows "
            f"{float(low[1]):.0f} to {float(high[1]):.0f} of a {camera.width} x {camera.height} image"
        )


def hypotheses(
    T_initial: Float64[Tensor, "4 4"], centre_ct: Float64[Tensor, "3"], settings: HypothesisSettings, seed: int
) -> Float64[Tensor, "n 4 4"]:
    """The given pose and others drawn around it; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    twists = sample_perturbation(generator, settings.rotation_deg, settings.in_plane_mm, settings.depth_mm, settings.count - 1)
    around = se3.apply_twist(T_initial.expand(len(twists), 4, 4), twists, centre_ct)
    return torch.cat((T_initial[None], around))


def reported_views(
    angles_deg: tuple[float, float], camera: Camera, centre_ct: Float64[Tensor, "3"]
) -> tuple[Float64[Tensor, "4 4"], Float64[Tensor, "4 4"]]:
    """The poses that a C-arm's reported angles can mean, the reference point on the axis at the usual distance.

    DICOM counts from a detector anterior to the patient, many writers from an AP view; a file does not tell which.
    """
    distance_mm = SOURCE_TO_CENTRE_SHARE * camera.sdd_mm
    return positioner_pose(centre_ct, *angles_deg, distance_mm), view_pose(centre_ct, *angles_deg, distance_mm)


def search_views(camera: Camera, centre_ct: Float64[Tensor, "3"], settings: SearchSettings) -> Float64[Tensor, "n 4 4"]:
    """A grid of views with the reference point on the axis, for an X-ray about which nothing is known."""
    views = [
        view_pose(centre_ct, orbital, cranial, share * camera.sdd_mm)
        for share in settings.source_to_centre_share
        for orbital in settings.orbital_deg
        for cranial in settings.cranial_deg
    ]
    rolls = torch.zeros(len(settings.roll_deg), 1, 6, dtype=torch.float64)
    rolls[:, 0, 5] = torch.deg2rad(torch.tensor(settings.roll_deg, dtype=torch.float64))
    poses = torch.stack(views).expand(len(rolls), -1, 4, 4)
    return se3.apply_twist(poses, rolls.expand(-1, len(views), 6), centre_ct).flatten(0, 1)
