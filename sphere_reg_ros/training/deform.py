"""Many patients out of one CT, for a model that must know any: bent, stretched, cropped, of other density, with implants.

What a similarity learns from them is how X-rays and DRRs of the *same* body correspond, not one body by heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sphere_reg_ros.imaging.attenuation import AIR_HU
from sphere_reg_ros.imaging.ct import BONE_HU, CtVolume

VOXEL_MM = 2.8
"""Variants feed volumes of 3 and 4 mm: finer ones would cost time for nothing."""
METAL_HU = 3000.0
BONE_FROM_HU = 150.0
IMPLANT_RADIUS_MM = (2.0, 6.0)
IMPLANT_LENGTH_MM = (20.0, 90.0)


@dataclass(frozen=True)
class DeformSettings:
    """What is drawn for every variant; a span is uniform.

    Attributes:
        knots: of the displacement's grid along each axis; few are smooth.
        bend_mm: standard deviation of the displacement at a knot.
        scale: of each axis on its own.
        crop: share of the CT that is cut off at either end of the patient's long axis, at most.
        bone: factor on what bone has above soft tissue.
        soft_hu: shift of soft tissue.
        implants: largest number of metal rods.
    """

    knots: int = 5
    bend_mm: float = 8.0
    scale: tuple[float, float] = (0.85, 1.15)
    crop: float = 0.2
    bone: tuple[float, float] = (0.7, 1.3)
    soft_hu: tuple[float, float] = (-40.0, 40.0)
    implants: int = 3


def deformed(ct: CtVolume, seed: int, settings: DeformSettings | None = None) -> CtVolume:
    """Another patient of the same anatomy; equal seeds give equal patients."""
    settings = settings or DeformSettings()
    generator = torch.Generator().manual_seed(seed)
    coarse = coarsened(ct, VOXEL_MM)
    hu, T_ct_voxel = coarse.hu.to(torch.float32), coarse.T_ct_voxel.clone()
    hu = _other_densities(hu, settings, generator)
    hu = _bent(hu, coarse.spacing_mm, settings, generator)
    low, high = settings.scale
    stretch = low + (high - low) * torch.rand(3, generator=generator, dtype=torch.float64)
    T_ct_voxel[:3, :3] = T_ct_voxel[:3, :3] * stretch
    hu, T_ct_voxel = _cropped(hu, T_ct_voxel, settings.crop, generator)
    for _ in range(int(torch.randint(settings.implants + 1, (1,), generator=generator))):
        hu = _with_implant(hu, T_ct_voxel, generator)
    return CtVolume.from_array(hu.round().to(torch.int16), T_ct_voxel, f"{ct.source} (variant {seed})")


def coarsened(ct: CtVolume, voxel_mm: float) -> CtVolume:
    """Average boxes of voxels to about this spacing."""
    x, y, z = (max(1, round(voxel_mm / spacing)) for spacing in ct.spacing_mm)
    volume = ct.hu.to(torch.float32).clamp_min(AIR_HU)[None, None]
    hu = functional.avg_pool3d(volume, (z, y, x))[0, 0]
    scale = torch.diag(torch.tensor([x, y, z, 1.0], dtype=torch.float64))
    scale[:3, 3] = torch.tensor([(x - 1) / 2, (y - 1) / 2, (z - 1) / 2], dtype=torch.float64)
    return CtVolume.from_array(hu.round().to(torch.int16), ct.T_ct_voxel @ scale, ct.source)


def _other_densities(hu: Float[Tensor, "z y x"], settings: DeformSettings, generator: torch.Generator) -> Float[Tensor, "z y x"]:
    bone_factor, shift = (
        low + (high - low) * float(torch.rand(1, generator=generator)) for low, high in (settings.bone, settings.soft_hu)
    )
    soft = hu.clamp_max(BONE_FROM_HU)
    # Air stays air: the shift grows in with the tissue.
    tissue = ((soft - AIR_HU) / -AIR_HU).clamp(0.0, 1.0)
    return soft + shift * tissue + bone_factor * (hu - BONE_FROM_HU).clamp_min(0.0)


def _bent(
    hu: Float[Tensor, "z y x"], spacing_mm: tuple[float, float, float], settings: DeformSettings, generator: torch.Generator
) -> Float[Tensor, "z y x"]:
    knots = torch.randn(1, 3, *(settings.knots,) * 3, generator=generator) * settings.bend_mm
    size = hu.shape
    displacement_mm = functional.interpolate(knots, size=size, mode="trilinear", align_corners=True)[0]
    # grid_sample counts from -1 to 1 across the volume, x first.
    half_mm = torch.tensor([0.5 * (n - 1) * s for n, s in zip(reversed(size), spacing_mm, strict=True)]).view(3, 1, 1, 1)
    axes = [torch.linspace(-1.0, 1.0, n) for n in size]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    grid = (torch.stack((x, y, z)) + displacement_mm / half_mm).permute(1, 2, 3, 0)[None]
    return functional.grid_sample(hu[None, None], grid, align_corners=True, padding_mode="border")[0, 0]


def _cropped(
    hu: Float[Tensor, "z y x"], T_ct_voxel: Tensor, crop: float, generator: torch.Generator
) -> tuple[Float[Tensor, "z y x"], Tensor]:
    superior = int((T_ct_voxel[2, :3] / T_ct_voxel[:3, :3].norm(dim=0)).abs().argmax())
    n = hu.shape[2 - superior]
    first, last = (int(share) for share in crop * n * torch.rand(2, generator=generator))
    T = T_ct_voxel.clone()
    T[:3, 3] += T[:3, superior] * first
    return hu.narrow(2 - superior, first, n - first - last), T


def _with_implant(hu: Float[Tensor, "z y x"], T_ct_voxel: Tensor, generator: torch.Generator) -> Float[Tensor, "z y x"]:
    """A metal rod that starts in bone."""
    bone = torch.nonzero((hu >= BONE_HU[0]) & (hu <= BONE_HU[1]))
    if len(bone) == 0:
        return hu
    start = bone[int(torch.randint(len(bone), (1,), generator=generator))].flip(0).double()
    axis = functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
    radius, length = (
        low + (high - low) * float(torch.rand(1, generator=generator)) for low, high in (IMPLANT_RADIUS_MM, IMPLANT_LENGTH_MM)
    )
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in hu.shape), indexing="ij")
    offset = (torch.stack((x, y, z), dim=-1) - start) @ T_ct_voxel[:3, :3].T
    along = offset @ axis
    inside = (along >= 0.0) & (along <= length) & ((offset - along[..., None] * axis).norm(dim=-1) <= radius)
    return torch.where(inside, METAL_HU, hu)
