"""The volume: what it refuses, and that averaging keeps the patient in place."""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.drr.errors import AttenuationVolumeError
from sphere_reg_ros.drr.volume import AttenuationVolume

SPACING = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))


def moments(volume: AttenuationVolume) -> tuple[float, torch.Tensor]:
    """Mass (value times mm³) and centre of mass, LPS mm."""
    z, y, x = volume.values.shape[1:]
    grid = torch.meshgrid(torch.arange(z), torch.arange(y), torch.arange(x), indexing="ij")
    index = torch.stack([grid[2], grid[1], grid[0], torch.ones_like(grid[0])], dim=-1).double()
    weight = volume.values[0].double()
    mass = weight.sum()
    centre = ((index * weight[..., None]).sum((0, 1, 2)) / mass) @ volume.T_ct_voxel.T
    return float(mass * torch.linalg.det(volume.T_ct_voxel[:3, :3])), centre[:3]


@pytest.mark.parametrize("factor", [2, (3, 1, 2), (5, 4, 3)])
def test_downsampling_keeps_mass_and_centre_of_mass(factor: int | tuple[int, int, int]) -> None:
    values = torch.rand(1, 9, 11, 13, generator=torch.Generator().manual_seed(0))
    volume = AttenuationVolume(values, SPACING)
    mass, centre = moments(volume)
    coarse_mass, coarse_centre = moments(volume.downsampled(factor))
    # Sums of a thousand float32 numbers in another order.
    assert coarse_mass == pytest.approx(mass, rel=1e-5)
    torch.testing.assert_close(coarse_centre, centre, atol=1e-4, rtol=0)


def test_centre_is_the_middle_of_the_box() -> None:
    volume = AttenuationVolume(torch.zeros(2, 5, 7, 9), SPACING)
    torch.testing.assert_close(volume.centre_mm(), torch.tensor([8.0, 9.0, 8.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("values", "transform"),
    [
        (torch.zeros(4, 4, 4), SPACING),
        (torch.zeros(1, 0, 4, 4), SPACING),
        (torch.zeros(1, 4, 4, 4, dtype=torch.int16), SPACING),
        (torch.zeros(1, 4, 4, 4), SPACING[:3]),
        (torch.zeros(1, 4, 4, 4), torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64))),
    ],
)
def test_unusable_volumes_are_refused_in_one_line(values: torch.Tensor, transform: torch.Tensor) -> None:
    with pytest.raises(AttenuationVolumeError) as caught:
        AttenuationVolume(values, transform)
    assert "\n" not in str(caught.value)


def test_a_factor_below_one_is_refused() -> None:
    with pytest.raises(AttenuationVolumeError, match="at least 1"):
        AttenuationVolume(torch.zeros(1, 4, 4, 4), SPACING).downsampled((1, 0, 1))
