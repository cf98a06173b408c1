"""Standard views of the patient, and perturbations of a pose."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3

SOURCE_TO_CENTRE_MM = 760.0
"""Where a C-arm with an SDD of 1020 mm usually holds the patient."""

SOURCE_TO_CENTRE_SHARE = 760.0 / 1020.0
"""The same for other C-arms, as a share of their SDD."""


def ap_rotation() -> Float64[Tensor, "3 3"]:
    """The AP view: source anterior; camera x is patient left, y inferior, z posterior (LPS)."""
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def detector_direction(orbital_deg: float, cranial_deg: float) -> Float64[Tensor, "3"]:
    """From the patient to the detector, LPS: ``sin o cos c`` left, ``cos o cos c`` posterior, ``sin c`` superior."""
    orbital, cranial = math.radians(orbital_deg), math.radians(cranial_deg)
    level = math.cos(cranial)
    direction = (math.sin(orbital) * level, math.cos(orbital) * level, math.sin(cranial))
    return torch.tensor(direction, dtype=torch.float64)


def view_rotation(orbital_deg: float, cranial_deg: float) -> Float64[Tensor, "3 3"]:
    """Rotation of ``T_camera_ct`` with the detector where the angles say, and image columns in the transverse plane.

    Orbital +90 puts the detector at the patient's left, cranial +90 at the head, as DICOM PS3.3 C.8.7.5.1.2 has it for
    the positioner's primary and secondary angle. (0, 0) is the AP view of this package, its source anterior; DICOM's own
    zero has the *detector* anterior, see :func:`positioner_pose`.
    """
    z = detector_direction(orbital_deg, cranial_deg)
    orbital = math.radians(orbital_deg)
    x = torch.tensor([math.cos(orbital), -math.sin(orbital), 0.0], dtype=torch.float64)
    return torch.stack((x, torch.linalg.cross(z, x), z))


def view_pose(
    centre_ct: Float64[Tensor, "3"],
    orbital_deg: float,
    cranial_deg: float,
    source_to_centre_mm: float = SOURCE_TO_CENTRE_MM,
) -> Float64[Tensor, "4 4"]:
    """``T_camera_ct`` of a view with the reference point on the optical axis."""
    rotation = view_rotation(orbital_deg, cranial_deg)
    centre = centre_ct.to(torch.float64)
    on_axis = torch.tensor([0.0, 0.0, source_to_centre_mm], dtype=torch.float64)
    return se3.from_rotation_translation(rotation, on_axis - rotation @ centre)


def view_angles(T_camera_ct: Float64[Tensor, "4 4"]) -> tuple[float, float]:
    """Orbital and cranial angle in degrees of the detector's direction, whatever the roll; see :func:`view_rotation`."""
    left, posterior, superior = (float(value) for value in T_camera_ct[2, :3])
    cranial = math.atan2(superior, math.hypot(left, posterior))
    return math.degrees(math.atan2(left, posterior)), math.degrees(cranial)


def positioner_pose(
    centre_ct: Float64[Tensor, "3"],
    primary_deg: float,
    secondary_deg: float,
    source_to_centre_mm: float = SOURCE_TO_CENTRE_MM,
) -> Float64[Tensor, "4 4"]:
    """``T_camera_ct`` of DICOM's positioner angles, taken literally.

    DICOM PS3.3 C.8.7.5.1.2, patient supine: at (0, 0) the detector is perpendicular above the chest and the tube below the table;
    primary +90 is the detector at the patient's left (LAO), secondary +90 at the head (CRA). The camera looks from the source, so
    that its columns run to the patient's right at (0, 0); an image stored as seen from the detector (``PatientOrientation``
    ``L\\F``) is its mirror image. Writers that count from an AP view with the source anterior mean :func:`view_pose`.
    """
    return view_pose(centre_ct, 180.0 - primary_deg, secondary_deg, source_to_centre_mm)


def ap_pose(
    centre_ct: Float64[Tensor, "3"], source_to_centre_mm: float = SOURCE_TO_CENTRE_MM
) -> Float64[Tensor, "4 4"]:
    """``T_camera_ct`` of the AP view."""
    return view_pose(centre_ct, 0.0, 0.0, source_to_centre_mm)


def sample_perturbation(
    generator: torch.Generator, rotation_deg: float, in_plane_mm: float, depth_mm: float, n: int
) -> Float64[Tensor, "n 6"]:
    """Twists drawn from N(0, rotation²) on each component of w, N(0, in_plane²) in x and y, N(0, depth²) in z."""
    angle = math.radians(rotation_deg)
    deviation = torch.tensor([in_plane_mm, in_plane_mm, depth_mm, angle, angle, angle], dtype=torch.float64)
    return torch.randn(n, 6, generator=generator, dtype=torch.float64) * deviation
