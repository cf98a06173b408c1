"""The SO(4) embedding against singular values, eigenvalues and the expansion for small motions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from sphere_reg_ros.geometry import se3, so4

R_MM = 400.0


def poses(n: int, seed: int = 0, angle: float = 1.0, shift_mm: float = 100.0) -> torch.Tensor:
    """Random rigid motions."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([shift_mm] * 3 + [angle] * 3, dtype=torch.float64)
    return se3.exp(torch.randn(n, 6, generator=generator, dtype=torch.float64) * scale)


@pytest.mark.parametrize("embed", [so4.embed_mccarthy, so4.embed_polar])
def test_embeddings_are_rotations(embed) -> None:
    P = embed(poses(20), R_MM)
    assert (P.transpose(-1, -2) @ P - torch.eye(4)).abs().max() < 1e-14
    assert (torch.linalg.det(P) - 1.0).abs().max() < 1e-13
    assert (embed(torch.eye(4, dtype=torch.float64), R_MM) - torch.eye(4)).abs().max() == 0.0


def test_mccarthy_is_the_definition() -> None:
    for T in poses(10, seed=1):
        t = T[:3, 3].numpy()
        gamma, s = math.atan(np.linalg.norm(t) / R_MM), t / np.linalg.norm(t)
        D = np.eye(4)
        D[:3, :3] += (math.cos(gamma) - 1.0) * np.outer(s, s)
        D[:3, 3], D[3, :3], D[3, 3] = math.sin(gamma) * s, -math.sin(gamma) * s, math.cos(gamma)
        A = np.eye(4)
        A[:3, :3] = T[:3, :3]
        np.testing.assert_allclose(so4.embed_mccarthy(T, R_MM).numpy(), D @ A, atol=1e-14)


def test_polar_is_the_nearest_rotation() -> None:
    for T in poses(10, seed=2):
        M = T.numpy().copy()
        M[:3, 3] /= R_MM
        np.testing.assert_allclose(so4.embed_polar(T, R_MM).numpy(), scipy.linalg.polar(M)[0], atol=1e-13)


def test_distance_is_that_of_the_principal_angles() -> None:
    """Of far, near and coinciding pairs; the eigenvalues of PᵀQ are exp(±iθ1), exp(±iθ2)."""
    P, Q = so4.embed_mccarthy(poses(30, seed=3), R_MM), so4.embed_mccarthy(poses(30, seed=4), R_MM)
    for one, other, found in zip(P.numpy(), Q.numpy(), so4.distance(P, Q).numpy(), strict=True):
        angles = np.abs(np.angle(np.linalg.eigvals(one.T @ other)))
        assert found == pytest.approx(math.sqrt(0.5 * float((angles**2).sum())), abs=1e-7)
        logarithm = scipy.linalg.logm(one.T @ other)
        assert found == pytest.approx(float(np.linalg.norm(logarithm)) / math.sqrt(2.0), abs=1e-7)


def test_distance_does_not_depend_on_the_frame() -> None:
    P, Q, G = (so4.embed_mccarthy(poses(10, seed=seed), R_MM) for seed in (5, 6, 7))
    here = so4.distance(P, Q)
    assert (so4.distance(G @ P, G @ Q) - here).abs().max() < 1e-12
    assert (so4.distance(P @ G, Q @ G) - here).abs().max() < 1e-12
    assert (so4.distance(Q, P) - here).abs().max() < 1e-12


@pytest.mark.parametrize(("embed", "share"), [(so4.embed_mccarthy, 1.0), (so4.embed_polar, 0.25)])
def test_small_motions(embed, share: float) -> None:
    T = poses(20, seed=8, angle=1e-4, shift_mm=0.04)
    twist = se3.log(T)
    expected = twist[:, 3:].square().sum(-1) + share * twist[:, :3].square().sum(-1) / R_MM**2
    found = so4.squared_distance(torch.eye(4, dtype=torch.float64), embed(T, R_MM))
    # The next term of the expansion is smaller by the angle, 1e-4, squared or by 1e-4 itself.
    assert ((found / expected) - 1.0).abs().max() < 1e-3


def test_tiny_distances_keep_their_digits() -> None:
    T = se3.exp(torch.tensor([0.0, 0.0, 0.0, 3e-9, 0.0, 4e-9], dtype=torch.float64))
    assert float(so4.distance(torch.eye(4, dtype=torch.float64), so4.embed_mccarthy(T, R_MM))) == pytest.approx(5e-9, rel=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3, 0.3, 1.0])
def test_gradients_also_where_the_poses_coincide(scale: float) -> None:
    twist = torch.tensor([[0.2, -0.1, 0.3, 0.5, -0.7, 0.2]], dtype=torch.float64) * scale
    twist.requires_grad_(True)
    identity = torch.eye(4, dtype=torch.float64)

    def squared(x: torch.Tensor) -> torch.Tensor:
        return so4.squared_distance(identity, so4.embed_mccarthy(se3.exp(x), 2.0))

    assert torch.autograd.gradcheck(squared, (twist,))


def test_a_half_turn_is_pi_away() -> None:
    for axis in torch.eye(3, dtype=torch.float64):
        T = se3.exp(torch.cat((torch.zeros(3, dtype=torch.float64), axis * (math.pi - 1e-7))))
        found = float(so4.distance(torch.eye(4, dtype=torch.float64), so4.embed_mccarthy(T, R_MM)))
        assert found == pytest.approx(math.pi - 1e-7, abs=1e-9)
