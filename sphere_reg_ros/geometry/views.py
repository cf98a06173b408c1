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


def view_rotation(orbital_deg: float, cranial_deg: float) -> Float64[Tensor, "3 3"]:
    """Rotation of ``T_camera_ct`` for the angles that a C-arm reports.

    DICOM PS3.3 C.8.7.5.1.2: the primary angle turns the image receptor about the patient's long axis, positive towards the
    patient's left; the secondary one tilts it, positive towards the head. Zero and zero has the receptor **anterior**
    and the source posterior. The project's AP view (see :func:`ap_rotation`) has the source anterior; the angles here
    turn that view by the same motions of the gantry, so that (0, 0) is AP.
    """
    orbital, cranial = math.radians(orbital_deg), math.radians(cranial_deg)
    # The gantry turns about patient axes by R_gantry; the patient seen from it turns the other way.
    about_superior = se3.so3_exp(torch.tensor([0.0, 0.0, orbital], dtype=torch.float64))
    about_left = se3.so3_exp(torch.tensor([cranial, 0.0, 0.0], dtype=torch.float64))
    return ap_rotation() @ (about_superior @ about_left).T


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
