"""Pairs of an X-ray, as material paths, and a DRR from a pose nearby; rendered once, kept in memory.

What changes from step to step (contrast, scatter, noise, tools, blades, …) is added by `training.augmentation`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float16, Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer, make_renderer
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.coarse import drr_volume
from sphere_reg_ros.registration.continuation import extended
from sphere_reg_ros.training.materials import material_volume
from sphere_reg_ros.training.poses import PoseRange, perturbed, sample_range

BATCH = 64
CONTINUED_SHARE = 0.4
"""Share of X-rays of a patient who goes on where the CT ends, as patients do."""
CONTINUED_MM = 150.0
HALF_MAX = 6e4
"""Areal densities and line integrals stay far below what float16 can hold."""


@dataclass(frozen=True)
class Pairs:
    """What one CT looks like from many poses, in the canonical camera.

    Attributes:
        T_xray, T_drr: ``(n, 4, 4)`` poses ``T_camera_ct``.
        materials: ``(n, 2, h, w)`` areal density of water and bone, g/cm², at ``T_xray``.
        drr: ``(n, h, w)`` line integrals at ``T_drr``.
    """

    T_xray: Float64[Tensor, "n 4 4"]
    T_drr: Float64[Tensor, "n 4 4"]
    materials: Float16[Tensor, "n 2 h w"]
    drr: Float16[Tensor, "n h w"]

    def __len__(self) -> int:
        return len(self.T_xray)


def render_pairs(
    ct: CtVolume,
    camera: Camera,
    pose_range: PoseRange,
    n: int,
    seed: int,
    voxel_mm: float,
    on_progress: Callable[[int], None] | None = None,
) -> Pairs:
    """Render a training set; equal seeds give equal pairs.

    Args:
        camera: the canonical camera.
        voxel_mm: of the DRR's volume, and its step along the ray; the X-ray's material paths are made from voxels three
            quarters as large.
        on_progress: told how many pairs are ready.
    """
    generator = torch.Generator().manual_seed(seed)
    T_xray = sample_range(ct, camera, pose_range, n, generator)
    T_drr = perturbed(ct, camera, T_xray, pose_range, generator)
    materials = material_volume(ct, 0.75 * voxel_mm)
    # Of the whole set, so that a batch's renderer is built twice and not once a batch.
    going_on = torch.rand(n, generator=generator) < CONTINUED_SHARE
    ended = make_renderer(materials)
    continued = make_renderer(extended(materials, _ends_mm(ct))[0])
    registered = make_renderer(drr_volume(ct, voxel_mm))
    paths = torch.empty(n, 2, camera.height, camera.width, dtype=torch.float16)
    drr = torch.empty(n, camera.height, camera.width, dtype=torch.float16)
    for start in range(0, n, BATCH):
        index = torch.arange(start, min(start + BATCH, n))
        for chosen, renderer in ((index[going_on[index]], continued), (index[~going_on[index]], ended)):
            if len(chosen):
                paths[chosen] = _half(renderer, T_xray[chosen], camera, 0.75 * voxel_mm)
        drr[index] = _half(registered, T_drr[index], camera, voxel_mm)[:, 0]
        if on_progress is not None:
            on_progress(int(index[-1]) + 1)
    return Pairs(T_xray, T_drr, paths, drr)


def _half(renderer: Renderer, T: Tensor, camera: Camera, step_mm: float) -> Float16[Tensor, "b c h w"]:
    with torch.no_grad():
        return renderer.render(T, camera, step_mm).clamp_max(HALF_MAX).to(torch.float16)


def _ends_mm(ct: CtVolume) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    superior = int((ct.T_ct_voxel[2, :3] / torch.tensor(ct.spacing_mm, dtype=torch.float64)).abs().argmax())
    x, y, z = ((CONTINUED_MM, CONTINUED_MM) if axis == superior else (0.0, 0.0) for axis in range(3))
    return (x, y, z)
