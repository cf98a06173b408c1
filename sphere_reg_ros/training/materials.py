"""A CT as water and bone, for X-rays of training.

The same mixture by Hounsfield units as the simulator's (`imaging.simulate_paths.decompose_hu`), but averaged over coarse voxels
once, instead of along every ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate_materials import DENSITY_G_CM3
from sphere_reg_ros.imaging.simulate_paths import CORTICAL_BONE_HU, METAL_FROM_HU, SOFT_LIMIT_HU

CM_PER_MM = 0.1


def densities_g_cm3(hu: Tensor) -> tuple[Tensor, Tensor]:
    """Water and bone at Hounsfield units, g/cm³; metal counts as the densest bone."""
    values = hu.to(torch.float32).clamp(-1000.0, METAL_FROM_HU)
    share = ((values - SOFT_LIMIT_HU) / (CORTICAL_BONE_HU - SOFT_LIMIT_HU)).clamp_min(0.0)
    water = (1.0 + 0.001 * values.clamp_max(SOFT_LIMIT_HU)) * (1.0 - share).clamp_min(0.0)
    dense = (1000.0 + values) / (1000.0 + CORTICAL_BONE_HU)
    bone = DENSITY_G_CM3["bone"] * torch.where(share > 1.0, dense, share)
    return water, bone


def material_volume(ct: CtVolume, voxel_mm: float) -> AttenuationVolume:
    """Channels water and bone; a line integral through it is an areal density in g/cm².

    Args:
        voxel_mm: the CT is averaged to about this spacing.
    """
    x, y, z = (max(1, round(voxel_mm / spacing)) for spacing in ct.spacing_mm)
    parts = []
    # One material and one slab at a time: both of a whole CT would take gigabytes.
    for material in (0, 1):
        slabs = [
            AttenuationVolume(CM_PER_MM * densities_g_cm3(slab)[material][None], ct.T_ct_voxel).downsampled((x, y, z))
            for slab in ct.hu.split(8 * z)
        ]
        parts.append(torch.cat([slab.values for slab in slabs], dim=1))
    return AttenuationVolume(torch.cat(parts).contiguous(), slabs[0].T_ct_voxel)


