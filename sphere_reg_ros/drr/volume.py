"""The volume that rays are integrated through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.errors import AttenuationVolumeError

if TYPE_CHECKING:
    from sphere_reg_ros.imaging.ct import CtVolume


@dataclass(frozen=True)
class AttenuationVolume:
    """Attenuation (or learned features) on a regular grid; trilinear between voxels, zero outside.

    The field falls linearly to zero within one voxel around the grid, so that it is continuous.

    Attributes:
        values: ``(c, z, y, x)`` float32; 1/mm for a CT (``c == 1``).
        T_ct_voxel: ``(4, 4)`` float64, voxel indices ``(i=x, j=y, k=z)`` to LPS millimetres.

    Raises:
        AttenuationVolumeError: wrong shape, or a transform that cannot be inverted.
    """

    values: Float[Tensor, "c z y x"]
    T_ct_voxel: Float64[Tensor, "4 4"]

    def __post_init__(self) -> None:
        """Refuse what no ray can be integrated through."""
        if self.values.ndim != 4 or 0 in self.values.shape:
            raise AttenuationVolumeError(
                f"an attenuation volume is (channels, z, y, x), got {tuple(self.values.shape)}: add the channel dimension"
            )
        if not self.values.is_floating_point():
            raise AttenuationVolumeError(
                f"an attenuation volume holds floating point 1/mm, got {self.values.dtype}: "
                "convert Hounsfield units with imaging.attenuation.hu_to_mu"
            )
        if self.T_ct_voxel.shape != (4, 4):
            raise AttenuationVolumeError(f"T_ct_voxel is a 4x4 matrix, got shape {tuple(self.T_ct_voxel.shape)}")
        determinant = float(torch.linalg.det(self.T_ct_voxel[:3, :3].double()))
        if not abs(determinant) > 1e-12:
            raise AttenuationVolumeError(
                f"T_ct_voxel has determinant {determinant:g}: a voxel needs a volume; check the spacing and the axis directions"
            )

    @staticmethod
    def from_ct(ct: CtVolume) -> AttenuationVolume:
        """Linear attenuation of a CT, 1/mm, at its own resolution."""
        from sphere_reg_ros.imaging.attenuation import hu_to_mu

        values = torch.empty(1, *ct.hu.shape, dtype=torch.float32)
        # Slice by slice: the intermediate results of a whole CT would take four times its memory.
        for index, plane in enumerate(ct.hu):
            values[0, index] = hu_to_mu(plane)
        return AttenuationVolume(values, ct.T_ct_voxel.to(torch.float64))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.values.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the values live; the transform stays on the CPU."""
        return self.values.device

    def centre_mm(self) -> Float64[Tensor, "3"]:
        """Middle of the grid, LPS mm."""
        z, y, x = self.values.shape[1:]
        middle = torch.tensor([(x - 1) / 2, (y - 1) / 2, (z - 1) / 2, 1.0], dtype=torch.float64)
        return (self.T_ct_voxel @ middle)[:3]

    def to(self, device: torch.device | str) -> AttenuationVolume:
        """The same volume with its values on another device."""
        return replace(self, values=self.values.to(device))

    def downsampled(self, factor: int | tuple[int, int, int]) -> AttenuationVolume:
        """Average boxes of ``factor`` (x, y, z) voxels; the field stays where it is in the patient.

        A box that sticks out of the grid averages the air outside with it, as the field is zero there.

        Raises:
            AttenuationVolumeError: a factor below 1.
        """
        factors = (factor, factor, factor) if isinstance(factor, int) else factor
        if min(factors) < 1:
            raise AttenuationVolumeError(f"a downsampling factor is an integer of at least 1, got {factors}")
        fx, fy, fz = factors
        z, y, x = self.values.shape[1:]
        padded = torch.nn.functional.pad(self.values, (0, -x % fx, 0, -y % fy, 0, -z % fz))
        values = torch.nn.functional.avg_pool3d(padded, (fz, fy, fx))
        scale = torch.diag(torch.tensor([fx, fy, fz, 1.0], dtype=torch.float64))
        scale[:3, 3] = torch.tensor([(f - 1) / 2 for f in factors], dtype=torch.float64)
        return AttenuationVolume(values.contiguous(), self.T_ct_voxel @ scale)
