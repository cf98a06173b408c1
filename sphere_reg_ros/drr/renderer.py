"""What every renderer offers, whatever it runs on.

One definition of the image for all of them. With the source at the camera's origin and ``d`` the unit
direction of a pixel's ray of length ``L`` (source to detector), the DRR is the midpoint rule

    I = Σ_k w_k · μ(s_k·d),   s_k = (k + ½)·h,   w_k = h,   k = 0 … ⌊L/h⌋ − 1,

and one last, shorter cell that ends at the detector. The samples are fixed in the camera, so that a
motion of the CT changes the image through μ alone. The Jacobian is that of the integral, see
`sphere_reg_ros.drr.twist_jacobian`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.errors import BackendError, PoseNotRigidError, PoseShapeError, RayStepError
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera

RIGID_TOLERANCE = 1e-3
"""Largest entry of R·Rᵀ − I that is put down to rounding, as of a matrix typed in with four digits."""


@dataclass(frozen=True)
class DrrWithJacobian:
    """A DRR and its derivative with respect to the pose.

    Attributes:
        image: ``(b, c, h, w)`` line integrals from the source to the detector.
        jacobian: ``(b, c, 6, h, w)``, d image / d twist; twist ``[t_x, t_y, t_z, w_x, w_y, w_z]`` in
            mm and rad, in camera axes, about the centre that was asked for.
    """

    image: Float[Tensor, "b c h w"]
    jacobian: Float[Tensor, "b c 6 h w"]


class Renderer(ABC):
    """Renders one volume; holds whatever layout of it its backend needs."""

    def __init__(self, volume: AttenuationVolume) -> None:
        self.volume = volume

    @abstractmethod
    def render(self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float) -> Float[Tensor, "b c h w"]:
        """Line integrals from the source to the detector, float32.

        Args:
            T_camera_ct: rigid poses, mm.
            camera: the C-arm.
            step_mm: length of a step along the ray.

        Autograd reaches the poses (the gradient is tangent to the rigid motions) and the volume's values.

        Raises:
            PoseShapeError, PoseNotRigidError, RayStepError: input that cannot be rendered.
        """

    @abstractmethod
    def render_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        camera: Camera,
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """The DRR and its six-column Jacobian with respect to the twist about ``centre_ct``.

        Autograd reaches the volume's values through both, and the poses through the image alone: the
        Jacobian counts as constant in the pose, as everywhere in Gauss-Newton methods.

        Args:
            T_camera_ct: rigid poses, mm.
            camera: the C-arm.
            centre_ct: the point that the twist turns about, LPS mm.
            step_mm: length of a step along the ray.

        Raises:
            PoseShapeError, PoseNotRigidError, RayStepError: input that cannot be rendered.
        """


def check_request(T_camera_ct: Tensor, step_mm: float) -> None:
    """Refuse poses and steps that no renderer can use.

    Raises:
        PoseShapeError: not ``(b, 4, 4)``, or not finite.
        PoseNotRigidError: the upper left block is no rotation.
        RayStepError: a step that is not positive and finite.
    """
    if T_camera_ct.ndim != 3 or T_camera_ct.shape[1:] != (4, 4):
        raise PoseShapeError(f"T_camera_ct is a batch of 4x4 matrices, got shape {tuple(T_camera_ct.shape)}")
    if not bool(torch.isfinite(T_camera_ct).all()):
        raise PoseShapeError("T_camera_ct holds NaN or infinity: check the pose that was given")
    rotation = T_camera_ct.detach()[:, :3, :3].double()
    eye = torch.eye(3, dtype=torch.float64, device=rotation.device)
    strain = float((rotation @ rotation.mT - eye).abs().amax()) if len(rotation) else 0.0
    if strain > RIGID_TOLERANCE or bool((torch.linalg.det(rotation) < 0.0).any()):
        raise PoseNotRigidError(
            f"T_camera_ct is not a rigid motion (R·Rᵀ is {strain:.2g} off the identity, limit {RIGID_TOLERANCE:g}; det R must "
            "be positive): give a rotation, and put voxel sizes into T_ct_voxel"
        )
    if not (math.isfinite(step_mm) and step_mm > 0.0):
        raise RayStepError(f"the step along the ray must be a positive length in mm, got {step_mm}")


def make_renderer(
    volume: AttenuationVolume,
    backend: str = "auto",
    device: torch.device | str | None = None,
) -> Renderer:
    """The renderer for a volume.

    Args:
        volume: what to render.
        backend: ``cpu`` (fused kernel), ``torch`` (any device), ``reference`` (float64, slow),
            ``diffdrr`` (the package of that name), or ``auto``: fused where there is a kernel for the
            device, else torch.
        device: where to render; the volume's own device where None.

    Raises:
        BackendError: an unknown backend, or one that does not run on that device.
    """
    target = torch.device(device) if device is not None else volume.device
    chosen = backend if backend != "auto" else ("cpu" if target.type == "cpu" else "torch")
    placed = volume.to(target)
    if chosen == "cpu":
        if target.type != "cpu":
            raise BackendError(f"the cpu renderer cannot run on {target}: use backend 'torch'")
        from sphere_reg_ros.drr.cpu.renderer import CpuRenderer

        return CpuRenderer(placed)
    if chosen == "torch":
        from sphere_reg_ros.drr.torch_backend import TorchRenderer

        return TorchRenderer(placed)
    if chosen == "reference":
        from sphere_reg_ros.drr.reference import ReferenceRenderer

        return ReferenceRenderer(placed)
    if chosen == "diffdrr":
        from sphere_reg_ros.drr.diffdrr_backend import DiffDrrRenderer

        return DiffDrrRenderer(placed)
    raise BackendError(f"unknown renderer {backend!r}: choose auto, cpu, torch, reference or diffdrr")
