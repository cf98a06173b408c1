"""Trilinear interpolation against scipy, its gradient against autograd."""

from __future__ import annotations

import torch
from scipy.ndimage import map_coordinates

from sphere_reg_ros.drr.interpolate import padded, sample


def test_values_are_scipys_also_around_and_outside_the_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, 5, 6, 7, generator=generator, dtype=torch.float64)
    points = torch.rand(4000, 3, generator=generator, dtype=torch.float64) * 14.0 - 3.5
    expected = map_coordinates(values[0].numpy(), points.flip(-1).T.numpy(), order=1, mode="grid-constant")
    found, _ = sample(padded(values), points)
    torch.testing.assert_close(found[0], torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_the_gradient_is_that_of_the_values() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(2, 5, 6, 7, generator=generator, dtype=torch.float64)
    points = (torch.rand(500, 3, generator=generator, dtype=torch.float64) * 10.0 - 2.0).requires_grad_()
    found, gradient = sample(padded(values), points)
    for channel in range(2):
        (expected,) = torch.autograd.grad(found[channel].sum(), points, retain_graph=True)
        torch.testing.assert_close(gradient[channel], expected, atol=1e-12, rtol=0)
