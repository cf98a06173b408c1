"""How much of each material every ray of an X-ray crosses in the CT."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate_materials import DENSITY_G_CM3, mass_attenuation_cm2_g

CT_EFFECTIVE_KEV = 70.0
SOFT_LIMIT_HU = 100.0
METAL_FROM_HU = 2500.0
METAL_FULL_HU = 3000.0


@dataclass(frozen=True)
class MaterialPaths:
    """Areal density along every ray, g/cm², float64 ``(rows, columns)`` each."""

    water: NDArray[np.float64]
    bone: NDArray[np.float64]
    titanium: NDArray[np.float64]


def cortical_bone_hu(energy_kev: float = CT_EFFECTIVE_KEV) -> float:
    """Hounsfield units of pure cortical bone (ICRU-44): about 1600 on a CT of 120 kVp."""
    bone = DENSITY_G_CM3["bone"] * float(mass_attenuation_cm2_g("bone", energy_kev))
    return 1000.0 * (bone / float(mass_attenuation_cm2_g("water", energy_kev)) - 1.0)


CORTICAL_BONE_HU = cortical_bone_hu()


@numba.njit(inline="always")
def decompose_hu(hu):
    """Densities (g/cm³) of water, bone and titanium at a point of ``hu`` >= -1000.

    Up to 100 HU it is water of density 1 + HU/1000. From there to cortical bone it is a mixture,
    linear in HU, that attenuates at the CT's effective 70 keV as the HU says. Above it is denser
    bone. Scanners clip near 3071 HU, far below any metal, so from 2500 HU metal blends in, solid
    from 3000 HU.
    """
    if hu <= SOFT_LIMIT_HU:
        return 1.0 + 0.001 * hu, 0.0, 0.0
    if hu <= CORTICAL_BONE_HU:
        share = (hu - SOFT_LIMIT_HU) / (CORTICAL_BONE_HU - SOFT_LIMIT_HU)
        return (1.0 + 0.001 * SOFT_LIMIT_HU) * (1.0 - share), 1.92 * share, 0.0
    metal = min(max((hu - METAL_FROM_HU) / (METAL_FULL_HU - METAL_FROM_HU), 0.0), 1.0)
    bone = 1.92 * (1000.0 + min(hu, METAL_FROM_HU)) / (1000.0 + CORTICAL_BONE_HU)
    return 0.0, (1.0 - metal) * bone, 4.54 * metal


@numba.njit(inline="always")
def interpolate_hu(hu, x, y, z):
    """Trilinear HU at a voxel position; the outer half voxels continue the border."""
    nz, ny, nx = hu.shape
    x = min(max(x, 0.0), nx - 1.0)
    y = min(max(y, 0.0), ny - 1.0)
    z = min(max(z, 0.0), nz - 1.0)
    i, j, k = int(x), int(y), int(z)
    i1, j1, k1 = min(i + 1, nx - 1), min(j + 1, ny - 1), min(k + 1, nz - 1)
    fx, fy, fz = np.float32(x - i), np.float32(y - j), np.float32(z - k)
    a00 = hu[k, j, i] + fx * np.float32(hu[k, j, i1] - hu[k, j, i])
    a01 = hu[k, j1, i] + fx * np.float32(hu[k, j1, i1] - hu[k, j1, i])
    a10 = hu[k1, j, i] + fx * np.float32(hu[k1, j, i1] - hu[k1, j, i])
    a11 = hu[k1, j1, i] + fx * np.float32(hu[k1, j1, i1] - hu[k1, j1, i])
    b0 = a00 + fy * (a01 - a00)
    b1 = a10 + fy * (a11 - a10)
    return b0 + fz * (b1 - b0)


@numba.njit(inline="always")
def clip_to_slab(source, ray, size, first, last):
    """Cut ``[first, last]`` to where ``source + s·ray`` lies in one axis of the voxels' box."""
    low, high = -0.5, size - 0.5
    if ray == 0.0:
        if low < source < high:
            return first, last
        return 1.0, 0.0
    near, far = (low - source) / ray, (high - source) / ray
    return max(first, min(near, far)), min(last, max(near, far))


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _march(hu, source, to_voxel, rays, step_mm, paths):
    for row in numba.prange(rays.shape[0]):
        for column in range(rays.shape[1]):
            cx, cy, cz = rays[row, column, 0], rays[row, column, 1], rays[row, column, 2]
            rx = to_voxel[0, 0] * cx + to_voxel[0, 1] * cy + to_voxel[0, 2] * cz
            ry = to_voxel[1, 0] * cx + to_voxel[1, 1] * cy + to_voxel[1, 2] * cz
            rz = to_voxel[2, 0] * cx + to_voxel[2, 1] * cy + to_voxel[2, 2] * cz
            first, last = clip_to_slab(source[0], rx, hu.shape[2], 0.0, 1.0)
            first, last = clip_to_slab(source[1], ry, hu.shape[1], first, last)
            first, last = clip_to_slab(source[2], rz, hu.shape[0], first, last)
            if first >= last:
                continue
            length_mm = (last - first) * np.sqrt(cx * cx + cy * cy + cz * cz)
            steps = max(1, int(np.ceil(length_mm / step_mm)))
            step = (last - first) / steps
            water, bone, metal = 0.0, 0.0, 0.0
            for n in range(steps):
                s = first + (n + 0.5) * step
                value = interpolate_hu(
                    hu, source[0] + s * rx, source[1] + s * ry, source[2] + s * rz
                )
                parts = decompose_hu(value)
                water += parts[0]
                bone += parts[1]
                metal += parts[2]
            step_cm = 0.1 * length_mm / steps
            paths[0, row, column] = water * step_cm
            paths[1, row, column] = bone * step_cm
            paths[2, row, column] = metal * step_cm


def detector_rays(camera: Camera, subpixels: int) -> NDArray[np.float64]:
    """``(height·n, width·n, 3)`` from the source to each of n x n sub-pixels, camera mm."""
    inner = (np.arange(subpixels) + 0.5) / subpixels - 0.5
    u = (np.arange(camera.width)[:, None] + inner).ravel() - camera.piercing_point_px[0]
    v = (np.arange(camera.height)[:, None] + inner).ravel() - camera.piercing_point_px[1]
    rays = np.empty((len(v), len(u), 3))
    rays[..., 0] = u * camera.pixel_pitch_mm[0]
    rays[..., 1] = v[:, None] * camera.pixel_pitch_mm[1]
    rays[..., 2] = camera.sdd_mm
    return rays


def material_paths(
    ct: CtVolume,
    rays: NDArray[np.float64],
    T_camera_ct: NDArray[np.float64],
    step_voxels: float = 0.5,
) -> MaterialPaths:
    """March every ray through the full-resolution CT.

    The HU are interpolated first and decomposed into materials then, at the midpoints of equal
    steps of at most ``step_voxels`` of the smallest voxel spacing between where a ray enters and
    leaves the voxels' box (or starts or ends within it). The CT's axes may have any direction and
    handedness.

    Args:
        ct: The volume; anything below -1000 HU is padding and counts as air.
        rays: ``(rows, columns, 3)`` source to detector, camera mm; the source is the origin.
        T_camera_ct: ``(4, 4)`` CT mm to camera mm.
        step_voxels: Longest step, in smallest voxel spacings.
    """
    dense = ct.hu.detach().cpu().numpy()
    hu = np.ascontiguousarray(np.maximum(dense, np.asarray(-1000, dtype=dense.dtype)))
    T_voxel_camera = np.linalg.inv(T_camera_ct @ ct.T_ct_voxel.cpu().numpy())
    paths = np.zeros((3, *rays.shape[:2]))
    _march(
        hu,
        np.ascontiguousarray(T_voxel_camera[:3, 3]),
        np.ascontiguousarray(T_voxel_camera[:3, :3]),
        rays,
        step_voxels * min(ct.spacing_mm),
        paths,
    )
    return MaterialPaths(*paths)
