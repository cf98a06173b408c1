"""The patient beyond the CT's ends.

A CT ends somewhere, the patient goes on. At coarse resolution the slices at the ends, repeated outwards, are a far better
guess of what comes next than air: without them a DRR is too bright wherever a ray leaves the CT through its end, and a large
normalisation window carries that error over the whole image. Where the CT's sides touch the patient only a cap is missing,
whose depth follows from the width of the cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn import functional

from sphere_reg_ros.drr.volume import AttenuationVolume

END_MM = 200.0
"""Longer than half the field that a 300-400 mm detector sees at the patient."""
TORSO_RADIUS_MM = 170.0
"""Of a circle in place of an adult's transverse section."""
TISSUE_PER_MM = 0.013
"""Attenuation between fat and the air of the lungs."""
MIN_END_SHARE = 0.02
"""An end with less tissue than this lies outside the patient."""

FaceDepths = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def face_depths_mm(tissue: Bool[Tensor, "z y x"], T_ct_voxel: Float64[Tensor, "4 4"]) -> FaceDepths:
    """How far the patient goes on beyond the first and the last face along x, y and z of the grid.

    Through the ends, which lie across the patient's long axis, by :data:`END_MM`; through a side by the sagitta
    ``R - sqrt(R² - (w/2)²)`` of the widest common cut ``w`` (its 90th percentile over the slices that are cut).
    """
    spacing_mm = T_ct_voxel[:3, :3].norm(dim=0)
    superior = int((T_ct_voxel[2, :3] / spacing_mm).abs().argmax())
    depths = []
    for axis in range(3):
        faces = (tissue.select(2 - axis, 0), tissue.select(2 - axis, -1))
        if axis == superior:
            depths.append(tuple(END_MM * float(face.to(torch.float32).mean() > MIN_END_SHARE) for face in faces))
        else:
            across = 3 - axis - superior
            # A face keeps the grid's order of axes (z, y, x); slices lie along the superior one.
            summed = 1 if across < superior else 0
            depths.append(tuple(_sagitta_mm(face.sum(summed) * spacing_mm[across]) for face in faces))
    return (depths[0], depths[1], depths[2])  # type: ignore[return-value]


def _sagitta_mm(chords_mm: Float[Tensor, " slices"]) -> float:
    cut = chords_mm[chords_mm > 0]
    if len(cut) == 0:
        return 0.0
    half = min(0.5 * float(torch.quantile(cut.double(), 0.9)), TORSO_RADIUS_MM)
    return TORSO_RADIUS_MM - math.sqrt(TORSO_RADIUS_MM**2 - half**2)


def extended(volume: AttenuationVolume, depths_mm: FaceDepths) -> tuple[AttenuationVolume, tuple[slice, slice, slice]]:
    """Repeat a volume's faces outwards.

    Returns:
        The larger volume, and where in its ``(z, y, x)`` the given one lies.
    """
    spacing_mm = volume.T_ct_voxel[:3, :3].norm(dim=0).tolist()
    voxels = [[round(depth / step) for depth in depths] for depths, step in zip(depths_mm, spacing_mm, strict=True)]
    values = functional.pad(volume.values[None], list(chain(*voxels)), mode="replicate")[0]
    T_ct_voxel = volume.T_ct_voxel.clone()
    first = torch.tensor([before for before, _ in voxels], dtype=T_ct_voxel.dtype)
    T_ct_voxel[:3, 3] -= T_ct_voxel[:3, :3] @ first
    sizes = list(reversed(volume.values.shape[1:]))
    x, y, z = (slice(before, before + size) for (before, _), size in zip(voxels, sizes, strict=True))
    return AttenuationVolume(values.contiguous(), T_ct_voxel), (z, y, x)


def averaged_with_faces(
    volume: AttenuationVolume, factors: tuple[int, int, int], of_slab: Callable[[Tensor], Tensor] = torch.clone
) -> AttenuationVolume:
    """Downsample a function of a volume; boxes that stick out of the grid repeat the face instead of averaging it with air."""
    fx, fy, fz = factors
    depth, height, width = volume.values.shape[1:]
    gaps = (0, -width % fx, 0, -height % fy)
    planes = []
    # Slab by slab: copies of a whole CT would take more memory than the registration.
    for first in range(0, depth, fz):
        slab = of_slab(volume.values[:, first : first + fz])
        missing = fz - slab.shape[1]
        mean = (slab.sum(1) + missing * slab[:, -1]) / fz
        planes.append(functional.avg_pool2d(functional.pad(mean[None], gaps, mode="replicate")[0], (fy, fx)))
    scale = torch.diag(torch.tensor([fx, fy, fz, 1.0], dtype=torch.float64))
    scale[:3, 3] = torch.tensor([(factor - 1) / 2 for factor in factors], dtype=torch.float64)
    return AttenuationVolume(torch.stack(planes, dim=1).contiguous(), volume.T_ct_voxel @ scale)


def continued(volume: AttenuationVolume, factors: tuple[int, int, int]) -> AttenuationVolume:
    """A CT's attenuation, downsampled, with the patient's continuation around it."""
    depths_mm = face_depths_mm(volume.values[0] > TISSUE_PER_MM, volume.T_ct_voxel)
    return extended(averaged_with_faces(volume, factors), depths_mm)[0]


def outside_tissue(volume: AttenuationVolume, factors: tuple[int, int, int]) -> AttenuationVolume:
    """The patient's continuation alone: one where there is tissue outside the CT, zero inside the CT."""
    depths_mm = face_depths_mm(volume.values[0] > TISSUE_PER_MM, volume.T_ct_voxel)
    indicator = averaged_with_faces(volume, factors, lambda slab: (slab > TISSUE_PER_MM).to(torch.float32))
    outside, inside = extended(indicator, depths_mm)
    outside.values[(slice(None), *inside)] = 0.0
    return outside
