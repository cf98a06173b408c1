"""The equivariant volume network as plain convolutions: what inference runs, without escnn.

Its fields are ordered ``[scalars | gates | vectors | rank-2 tensors]``. Scalars pass a GELU; each vector and tensor is scaled by
the sigmoid of a gate of its own, which turns with nothing, so that the field still turns as a whole (Weiler et al., "3D steerable
CNNs", NeurIPS 2018). Without any bias, air stays air.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.models.errors import ModelCardError

TYPICAL_PER_MM = 0.02
"""Attenuation of water; the network computes in units of it."""


@dataclass(frozen=True)
class VolumeSettings:
    """Fields of the hidden layer.

    Attributes:
        scalars, vectors, tensors: how many of spin 0, 1 and 2 (1, 3 and 5 channels each).
        kernel: side of the convolutions, odd.

    Raises:
        ModelCardError: no scalars, or an even kernel.
    """

    scalars: int = 8
    vectors: int = 4
    tensors: int = 2
    kernel: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.scalars < 1 or self.vectors < 0 or self.tensors < 0 or self.kernel % 2 == 0:
            raise ModelCardError(f"a volume network needs a scalar field and an odd kernel, got {self}")

    @property
    def gates(self) -> int:
        """One for every field that is no scalar."""
        return self.vectors + self.tensors

    @property
    def channels(self) -> int:
        """Of the hidden layer."""
        return self.scalars + self.gates + 3 * self.vectors + 5 * self.tensors


def gated(fields: Float[Tensor, "b c z y x"], settings: VolumeSettings) -> Float[Tensor, "b c z y x"]:
    """The nonlinearity; the gates themselves come out as zeros, to keep the fields in their places."""
    s, g, v = settings.scalars, settings.gates, settings.vectors
    scalars, gates, vectors, tensors = fields.split((s, g, 3 * v, 5 * settings.tensors), dim=1)
    factors = torch.sigmoid(gates)
    scale = torch.cat((factors[:, :v].repeat_interleave(3, 1), factors[:, v:].repeat_interleave(5, 1)), dim=1)
    turning = torch.cat((vectors, tensors), dim=1) * scale
    return torch.cat((functional.gelu(scalars), torch.zeros_like(gates), turning), dim=1)


class PlainVolume(nn.Module):
    """Attenuation plus a learned residual of it, by two convolutions."""

    def __init__(self, settings: VolumeSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or VolumeSettings()
        k, channels = self.settings.kernel, self.settings.channels
        self.first = nn.Conv3d(1, channels, k, padding=k // 2, bias=False)
        self.second = nn.Conv3d(channels, 1, k, padding=k // 2, bias=False)

    def branch(self, attenuation: Float[Tensor, "1 z y x"]) -> Float[Tensor, "1 z y x"]:
        """What is added, 1/mm."""
        scaled = attenuation[None] / TYPICAL_PER_MM
        added: Tensor = self.second(gated(self.first(scaled), self.settings))[0]
        return TYPICAL_PER_MM * added

    def forward(self, attenuation: Float[Tensor, "1 z y x"]) -> Float[Tensor, "1 z y x"]:
        """Attenuation with its residual."""
        return attenuation + self.branch(attenuation)

    @torch.no_grad()
    def applied(self, volume: AttenuationVolume) -> AttenuationVolume:
        """A CT's volume as the learned similarity renders it; once per CT."""
        return replace(volume, values=self(volume.values))
