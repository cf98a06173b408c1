"""The volume network turns with the CT, a plain one does not, and the exported one is the same function."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.models.errors import ModelCardError
from sphere_reg_ros.models.plain_volume import PlainVolume, VolumeSettings

pytest.importorskip("escnn", reason="escnn, which trains the volume network, is not installed")

from sphere_reg_ros.models.equivariant_volume import EquivariantVolume

SIDE = 25


def smooth_volume(seed: int) -> torch.Tensor:
    """Structures of 4 voxels and more, which filters can sample, within a ball, which stays inside when it turns."""
    noise = np.random.default_rng(seed).normal(size=(SIDE,) * 3)
    z, y, x = np.mgrid[:SIDE, :SIDE, :SIDE] - SIDE // 2
    ball = np.exp(-((x**2 + y**2 + z**2) / 7.0**2) ** 2)
    return torch.from_numpy(0.02 * ball * (1.0 + 4.0 * gaussian_filter(noise, 2.0)))[None].float()


def network(seed: int = 0) -> EquivariantVolume:
    torch.manual_seed(seed)
    return EquivariantVolume()


def plain_network() -> PlainVolume:
    torch.manual_seed(0)
    return PlainVolume()


def turned(volume: torch.Tensor, rotation: np.ndarray) -> torch.Tensor:
    """The volume turned about its middle, cubic interpolation."""
    middle = np.full(3, SIDE // 2)
    field = affine_transform(volume[0].detach().numpy(), rotation.T, middle - rotation.T @ middle, order=3)
    return torch.from_numpy(field.astype(np.float32))[None]


def disagreement(net: torch.nn.Module, rotation: np.ndarray) -> float:
    """Of what the branch makes of the turned CT and what it makes of the CT, turned; relative to its energy."""
    volume = smooth_volume(1)
    first, second = net.branch(turned(volume, rotation)), turned(net.branch(volume), rotation)
    return float(((first - second).norm() / second.norm()).detach())


def grid_rotations() -> list[np.ndarray]:
    """The 24 turns of a cube."""
    signed = [
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]
    return [matrix for matrix in signed if np.linalg.det(matrix) > 0.0]


def test_the_turns_of_the_grid_are_exact() -> None:
    """To float32 and the cubic interpolation's prefilter, which leaves samples on the grid at 1e-6."""
    assert len(grid_rotations()) == 24
    assert max(disagreement(network(), rotation) for rotation in grid_rotations()) < 1e-3


def test_other_turns_agree_and_a_plain_network_does_not() -> None:
    rotations = Rotation.random(6, random_state=3).as_matrix()
    ours = [disagreement(network(), rotation) for rotation in rotations]
    plain = [disagreement(plain_network(), rotation) for rotation in rotations]
    assert max(ours) < 0.1
    assert min(plain) > 0.5


def test_the_branch_says_something() -> None:
    """A branch that is zero would pass every test of equivariance."""
    volume = smooth_volume(2)
    share = float((network().branch(volume)).norm() / volume.norm())
    assert share > 0.01
    assert torch.allclose(network()(volume), volume + network().branch(volume))


def test_the_exported_network_is_the_same_function() -> None:
    volume = smooth_volume(3)
    net = network()
    assert torch.allclose(net.plain()(volume), net(volume), rtol=0.0, atol=1e-5 * float(volume.max()))
    held = AttenuationVolume(volume, torch.eye(4, dtype=torch.float64))
    assert torch.equal(net.plain().applied(held).values, net.plain()(volume))


def test_air_stays_air() -> None:
    assert float(network().branch(torch.zeros(1, 9, 9, 9)).detach().abs().max()) == 0.0


def trained(net: EquivariantVolume | PlainVolume, rate: float) -> float:
    """Fit the Laplacian, which turns with nothing; the relative squared error at the end, 1 for a branch of zeros."""
    volume = smooth_volume(4)
    padded = torch.nn.functional.pad(volume, (1,) * 6)
    neighbours = sum(torch.roll(padded, shift, dim)[:, 1:-1, 1:-1, 1:-1] for dim in (1, 2, 3) for shift in (1, -1))
    target = neighbours - 6.0 * volume
    steps = 60
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(steps):
        loss = (net.branch(volume) - target).square().mean() / target.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return float(loss.detach())


def test_a_trained_branch_turns_and_a_trained_plain_one_does_not() -> None:
    """Both fit the same target about as well (0.04 and 0.03 measured), so that neither passes by saying nothing."""
    ours, plain = network(), plain_network()
    assert trained(ours, 0.1) < 0.1 and trained(plain, 3e-3) < 0.1
    volume = smooth_volume(1)
    for net in (ours, plain):
        assert float((net.branch(volume).norm() / volume.norm()).detach()) > 0.1
    rotations = Rotation.random(3, random_state=5).as_matrix()
    # Measured: 0.02 at most against 0.15 at least; what is left of ours is the sampling of the filters and the cubic turn.
    assert max(disagreement(ours, rotation) for rotation in rotations) < 0.05
    assert min(disagreement(plain, rotation) for rotation in rotations) > 0.1
    quarter = grid_rotations()[7]
    assert disagreement(ours, quarter) < 1e-4
    assert disagreement(plain, quarter) > 0.05


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelCardError, match="odd kernel"):
        VolumeSettings(kernel=4)
