"""A volume network that turns with the patient: steerable convolutions on the CT.

Whatever way the CT lies in its grid, the learned field is the same field, turned: filters are combinations of spherical harmonics
that map scalars to scalars, vectors and rank-2 tensors and back (escnn: Cesa, Lang, Weiler, "A program to build E(N)-equivariant
steerable CNNs", ICLR 2022). Translations come with the convolution. Exact for the turns that the voxel grid has, and for others
up to the sampling of 5x5x5 filters. Needed for training only; `plain` is what a model file keeps.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sphere_reg_ros.models.plain_volume import TYPICAL_PER_MM, PlainVolume, VolumeSettings, gated

FIRST_SCALE = 0.1
"""Of the last filters at the start: a residual that begins small leaves the CT what it is."""


class EquivariantVolume(nn.Module):
    """The same function as `PlainVolume`, with filters that cannot but be steerable."""

    def __init__(self, settings: VolumeSettings | None = None) -> None:
        super().__init__()
        from escnn import gspaces
        from escnn import nn as steerable

        self.settings = settings or VolumeSettings()
        sizes = self.settings
        space = gspaces.rot3dOnR3()
        scalar = steerable.FieldType(space, [space.trivial_repr])
        fields = [space.trivial_repr] * (sizes.scalars + sizes.gates)
        fields += [space.irrep(1)] * sizes.vectors + [space.irrep(2)] * sizes.tensors
        hidden = steerable.FieldType(space, fields)
        k = sizes.kernel
        self.first = steerable.R3Conv(scalar, hidden, kernel_size=k, padding=k // 2, bias=False)
        self.second = steerable.R3Conv(hidden, scalar, kernel_size=k, padding=k // 2, bias=False)
        with torch.no_grad():
            self.second.weights.mul_(FIRST_SCALE)

    def branch(self, attenuation: Float[Tensor, "1 z y x"]) -> Float[Tensor, "1 z y x"]:
        """What is added, 1/mm."""
        pad = self.settings.kernel // 2
        scaled = attenuation[None] / TYPICAL_PER_MM
        hidden = gated(nn.functional.conv3d(scaled, _filter(self.first), padding=pad), self.settings)
        return TYPICAL_PER_MM * nn.functional.conv3d(hidden, _filter(self.second), padding=pad)[0]

    def forward(self, attenuation: Float[Tensor, "1 z y x"]) -> Float[Tensor, "1 z y x"]:
        """Attenuation with its residual."""
        return attenuation + self.branch(attenuation)

    def plain(self) -> PlainVolume:
        """The same function as plain convolutions."""
        exported = PlainVolume(self.settings)
        with torch.no_grad():
            exported.first.weight.copy_(_filter(self.first))
            exported.second.weight.copy_(_filter(self.second))
        return exported.eval().requires_grad_(False)


def _filter(convolution: nn.Module) -> Tensor:
    """The convolution's weights on the voxel grid, a linear function of what is learned."""
    weights, _ = convolution.expand_parameters()  # type: ignore[operator]
    return cast(Tensor, weights)
