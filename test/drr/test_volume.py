"""The volume: what it refuses, and that averaging keeps the patient in place."""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.drr.errors import AttenuationVolumeError
from sphere_reg_ros.drr.volume import AttenuationVolume

SPACING = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("factor", [2, (3, 1, 2), (5, 4, 3)])
def test_downsampling_leaves_a_linear_field_where_it_is(factor: int | tuple[int, int, int]) -> None:
    """The mean of a linear function over a box is its value in the middle of the box."""

    def linear(T_ct_voxel: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
        points = torch.stack([i, j, k, torch.ones_like(i)], dim=-1) @ T_ct_voxel.T
        return points @ torch.tensor([0.3, -0.2, 0.5, 1.0], dtype=torch.float64)

    volume = AttenuationVolume(linear(SPACING, torch.Size([12, 8, 30]))[None].float(), SPACING)
    coarse = volume.downsampled(factor)
    assert coarse.values.numel() < volume.values.numel()
    expected = linear(coarse.T_ct_voxel, coarse.values.shape[1:])
    torch.testing.assert_close(coarse.values[0].double(), expected, rtol=1e-6, atol=1e-5)


def test_downsampling_keeps_the_mass_of_a_box_that_does_not_divide() -> None:
    volume = AttenuationVolume(torch.rand(1, 9, 11, 13, generator=torch.Generator().manual_seed(0)), SPACING)
    coarse = volume.downsampled((5, 4, 2))
    voxels = torch.linalg.det(coarse.T_ct_voxel) / torch.linalg.det(volume.T_ct_voxel)
    # Sums of a thousand float32 numbers in another order.
    assert float(coarse.values.double().sum() * voxels) == pytest.approx(float(volume.values.double().sum()), rel=1e-5)


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
