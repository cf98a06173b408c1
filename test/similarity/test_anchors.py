"""Anchors against eigenvalues, distances of poses, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sphere_reg_ros.geometry import se3, so4, views
from sphere_reg_ros.similarity.anchors import LENGTH_SCALE_MM, SPHERE_SCALE, Anchors, PoseMetricError, anchors, embedded
from sphere_reg_ros.similarity.geometry import make_geometry

CENTRE = torch.tensor([12.0, -30.0, 55.0], dtype=torch.float64)


def poses(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return se3.apply_twist(views.ap_pose(CENTRE), views.sample_perturbation(generator, 20.0, 30.0, 60.0, n), CENTRE)


def test_anchors_lie_on_the_sphere_as_far_apart_as_their_poses() -> None:
    a, b = poses(6, 4), poses(6, 5)
    left, right = (anchors(T, CENTRE, "so4") for T in (a, b))
    assert left.norm(dim=1).numpy() == pytest.approx(1.0, abs=1e-12)
    between = torch.arccos((left * right).sum(1))
    P, Q = (so4.embed_mccarthy(_about_the_usual_place(T), LENGTH_SCALE_MM) for T in (a, b))
    # tr(PᵀQ) by scipy's principal angles, which know nothing of vec(P).
    for i in range(6):
        angles = sorted(np.abs(np.angle(np.linalg.eigvals((P[i].T @ Q[i]).numpy()))))[::2]
        assert float(between[i]) == pytest.approx(float(np.arccos(np.cos(angles).mean())), abs=1e-9)


@pytest.mark.parametrize("metric", ["so4", "se3"])
def test_near_anchors_are_as_far_apart_as_their_poses_times_the_scale(metric: str) -> None:
    T = views.ap_pose(CENTRE)[None]
    moved = se3.apply_twist(T, torch.tensor([[2.0, -3.0, 4.0, 0.01, 0.02, -0.01]], dtype=torch.float64), CENTRE)
    left, right = (anchors(one, CENTRE, metric) for one in (T, moved))  # type: ignore[arg-type]
    expected = SPHERE_SCALE * np.sqrt(6e-4 + 29.0 / 250.0**2)
    assert float((left - right).norm()) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("name", ["spherical", "euclidean", "hyperbolic"])
def test_projected_anchors_keep_small_distances_in_every_geometry(name: str) -> None:
    geometry = make_geometry(name)
    T = poses(1, 6)
    moved = se3.apply_twist(T, torch.tensor([[1.0, 2.0, -1.0, 0.004, -0.003, 0.005]], dtype=torch.float64), CENTRE)
    left, right = (geometry.project(geometry.sphere_radius * anchors(one, CENTRE, "so4")) for one in (T, moved))
    P, Q = (embedded(one, CENTRE, LENGTH_SCALE_MM) for one in (T, moved))
    expected = SPHERE_SCALE * so4.distance(P, Q)
    assert float(geometry.distance(left, right)) == pytest.approx(float(expected), rel=5e-3)


def _about_the_usual_place(T: torch.Tensor) -> torch.Tensor:
    moved = T.clone()
    moved[:, :3, 3] = (T[:, :3, :3] @ CENTRE) + T[:, :3, 3] - torch.tensor([0.0, 0.0, views.SOURCE_TO_CENTRE_MM])
    return moved


@pytest.mark.parametrize("metric", ["so4", "se3"])
@pytest.mark.parametrize("name", ["spherical", "euclidean", "hyperbolic"])
def test_the_jacobian_is_the_difference_quotient(name: str, metric: str) -> None:
    space = Anchors(make_geometry(name), 64, metric)  # type: ignore[arg-type]
    T = torch.cat((poses(3, 7), views.ap_pose(CENTRE)[None]))
    jacobian = space.jacobian(T, CENTRE)
    for k, step in enumerate((1e-3, 1e-3, 1e-3, 1e-5, 1e-5, 1e-5)):
        twist = torch.zeros(6, dtype=torch.float64)
        twist[k] = step
        ends = [space.points(se3.apply_twist(T, sign * twist, CENTRE), CENTRE) for sign in (1.0, -1.0)]
        numeric = (ends[0] - ends[1]) / (2.0 * step)
        # Central differences: the third derivative times the squared step, and 1e-16 over the step.
        assert jacobian[..., k].numpy() == pytest.approx(numeric.numpy(), abs=1e-9)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(PoseMetricError, match="so4"):
        anchors(poses(1, 0), CENTRE, "so3")  # type: ignore[arg-type]
