"""Poses of a patient in front of a C-arm, for simulation, training and evaluation."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.se3 import apply_twist
from sphere_reg_ros.geometry.views import SOURCE_TO_CENTRE_SHARE, ap_pose, sample_perturbation
from sphere_reg_ros.imaging.ct import CtVolume, patient_clear_of_source_and_detector
from sphere_reg_ros.imaging.simulate_errors import PoseSamplingError

ATTEMPTS_PER_POSE = 1000


def sample_poses(
    ct: CtVolume,
    camera: Camera,
    n: int,
    seed: int,
    rotation_deg: float = 20.0,
    in_plane_mm: float = 30.0,
    depth_mm: float = 60.0,
    base: Float64[Tensor, "4 4"] | None = None,
    margin_mm: float = 10.0,
) -> Float64[Tensor, "n 4 4"]:
    """Poses ``T_camera_ct`` spread around a view, with the patient clear of source and detector.

    The rotation vector is N(0, rotation_deg) per axis, the translation N(0, in_plane_mm) in x and y
    and N(0, depth_mm) in z, about the CT's reference point in camera axes. A pose in which the
    patient meets the source or the detector is drawn again. The first poses of a seed do not depend
    on ``n``.

    Args:
        ct: The patient.
        camera: The C-arm.
        n: How many poses.
        seed: Of the draw.
        rotation_deg: Standard deviation of each component of the rotation vector.
        in_plane_mm: Standard deviation of the shift along x and along y.
        depth_mm: Standard deviation of the shift along z.
        base: The view in the middle; None is the AP view with the reference point 760/1020 of the
            source-detector distance from the source.
        margin_mm: Least distance of the patient to the source and to the detector's plane.

    Returns:
        ``(n, 4, 4)`` CT mm (LPS) to camera mm.

    Raises:
        PoseSamplingError: a thousand draws in a row were not clear.
    """
    centre = ct.reference_point()
    middle = (
        ap_pose(centre, SOURCE_TO_CENTRE_SHARE * camera.sdd_mm)
        if base is None
        else base.to(torch.float64)
    )
    generator = torch.Generator().manual_seed(seed)
    poses = []
    for _ in range(n):
        for _ in range(ATTEMPTS_PER_POSE):
            twist = sample_perturbation(generator, rotation_deg, in_plane_mm, depth_mm, 1)[0]
            pose = apply_twist(middle, twist, centre)
            if patient_clear_of_source_and_detector(ct, camera, pose, margin_mm):
                poses.append(pose)
                break
        else:
            raise PoseSamplingError(
                f"{ATTEMPTS_PER_POSE} poses in a row put the patient within {margin_mm:g} mm of "
                f"the source or the detector (source-detector distance {camera.sdd_mm:g} mm): "
                "use a longer distance, a base pose midway, or a smaller spread"
            )
    return torch.stack(poses) if poses else torch.empty(0, 4, 4, dtype=torch.float64)
