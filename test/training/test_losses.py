"""Losses against finite differences and closed forms."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3, views
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.similarity.anchors import PoseMetricError
from sphere_reg_ros.training.losses import (
    gradient_loss,
    pose_distance,
    pose_distance_gradient,
    regressor_loss,
    similarity_gradient,
    value_loss,
)

CENTRE = torch.tensor([12.0, -30.0, 55.0], dtype=torch.float64)


def poses(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return se3.apply_twist(views.ap_pose(CENTRE), views.sample_perturbation(generator, 20.0, 30.0, 60.0, n), CENTRE)


@pytest.mark.parametrize("metric", ["so4", "se3"])
def test_small_motions_weigh_as_stated(metric: str) -> None:
    """``d² ≈ θ² + |t|²/R²`` near the usual place."""
    T = views.ap_pose(CENTRE)
    twist = torch.tensor([3.0, -2.0, 4.0, 0.01, 0.02, -0.01], dtype=torch.float64)
    expected = (twist[3:].square().sum() + (twist[:3] / 250.0).square().sum()).sqrt()
    measured = pose_distance(T, se3.apply_twist(T, twist, CENTRE), CENTRE, metric, 250.0)  # type: ignore[arg-type]
    assert float(measured) == pytest.approx(float(expected), rel=1e-3)


def test_distances_of_all_pairs_are_those_of_each() -> None:
    a, b = poses(4, 0), poses(3, 1)
    together = pose_distance(a[:, None], b[None], CENTRE, "so4")
    for i in range(4):
        for j in range(3):
            assert float(together[i, j]) == pytest.approx(float(pose_distance(a[i], b[j], CENTRE, "so4")), abs=1e-12)
    turn = Rotation.from_matrix((a[0, :3, :3] @ a[1, :3, :3].T).numpy()).magnitude()
    assert float(pose_distance(a[0], a[1], CENTRE, "se3")) > turn


@pytest.mark.parametrize("metric", ["so4", "se3"])
def test_the_gradient_of_the_distance_is_its_difference_quotient(metric: str) -> None:
    a, b = poses(5, 2), poses(5, 3)
    gradient = pose_distance_gradient(a, b, CENTRE, metric)  # type: ignore[arg-type]
    for k in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[k] = 1e-4
        ends = [pose_distance(a, se3.apply_twist(b, s * step, CENTRE), CENTRE, metric) for s in (1.0, -1.0)]  # type: ignore[arg-type]
        assert gradient[:, k].numpy() == pytest.approx(((ends[0] - ends[1]) / 2e-4).numpy(), rel=1e-4, abs=1e-7)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(PoseMetricError, match="so4"):
        pose_distance(poses(1, 0), poses(1, 1), CENTRE, "so3")  # type: ignore[arg-type]


def test_losses_vanish_at_what_they_ask_for() -> None:
    distance = torch.tensor([0.1, 0.5, 1.2])
    assert float(value_loss(distance, distance)) == 0.0
    gradient = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    assert float(gradient_loss(gradient, 2.5 * gradient)) == pytest.approx(0.0, abs=1e-6)
    assert float(gradient_loss(-gradient, gradient)) == pytest.approx(8.0, rel=1e-5)
    T = poses(2, 4)
    place = T[:, :3, :3] @ CENTRE + T[:, :3, 3]
    error, likelihood = regressor_loss(T[:, :3, :3].float(), place.float(), torch.zeros(2, 6), T, CENTRE)
    # The softened norms leave 1e-3 rad and a tenth of a millimetre in units of 100 mm.
    assert float(error) < 2e-3
    assert float(likelihood) < 1e-2


def test_the_regressor_loss_counts_angles_and_millimetres() -> None:
    T = poses(1, 5)
    moved = T
    # One after the other: the translation of a twist that also turns is bent.
    for twist in ([0.0, 0.0, 0.0, 0.3, 0.0, 0.0], [0.0, 0.0, 40.0, 0.0, 0.0, 0.0]):
        moved = se3.apply_twist(moved, torch.tensor([twist], dtype=torch.float64), CENTRE)
    place = moved[:, :3, :3] @ CENTRE + moved[:, :3, 3]
    sigma = torch.full((1, 6), 0.5, requires_grad=True)
    error, likelihood = regressor_loss(moved[:, :3, :3].float(), place.float(), sigma, T, CENTRE)
    assert float(error) == pytest.approx(2.0 * torch.sin(torch.tensor(0.15)).item() + 0.4, rel=1e-3)
    likelihood.backward()
    assert sigma.grad is not None
    # The depth is 40 mm off at σ = 1.6 mm: σ must grow; the shift in x is right: σ must shrink.
    assert float(sigma.grad[0, 2]) < 0.0 < float(sigma.grad[0, 0])


def test_the_similarity_gradient_reaches_the_volume_through_image_and_jacobian() -> None:
    """A toy similarity, ``d = Σ a·sin(I)``: its pose gradient, and that gradient's derivative by a voxel, against differences."""
    generator = torch.Generator().manual_seed(0)
    # A smooth patient in air: between kinks of the interpolation a difference quotient means what it says.
    values = torch.zeros(1, 14, 14, 14)
    values[:, 3:-3, 3:-3, 3:-3] = torch.rand(1, 8, 8, 8, generator=generator) * 0.04
    for _ in range(2):
        values = torch.nn.functional.avg_pool3d(values, 3, 1, 1)
    T_ct_voxel = torch.diag(torch.tensor([9.0, 9.0, 9.0, 1.0], dtype=torch.float64))
    centre = torch.tensor([58.0, 58.0, 58.0], dtype=torch.float64)
    T = se3.apply_twist(views.ap_pose(centre), torch.tensor([5.0, 3.0, 0.0, 0.1, 0.2, -0.1], dtype=torch.float64), centre)[None]
    camera = Camera.centred(24)
    weights = torch.rand(24, 24, generator=generator)

    def pose_gradient(field: torch.Tensor) -> torch.Tensor:
        drr = make_renderer(AttenuationVolume(field, T_ct_voxel)).render_with_jacobian(T, camera, centre, 1.0)
        image = drr.image if drr.image.requires_grad else drr.image.requires_grad_()
        return similarity_gradient((weights * torch.sin(image)).sum((1, 2, 3)), image, drr.jacobian)[0]

    leaf = values.clone().requires_grad_()
    ours = pose_gradient(leaf)
    renderer = make_renderer(AttenuationVolume(values, T_ct_voxel))
    for k, step in enumerate((0.3, 0.3, 0.3, 0.003, 0.003, 0.003)):
        twist = torch.zeros(6, dtype=torch.float64)
        twist[k] = step
        ends = [
            float((weights * torch.sin(renderer.render(se3.apply_twist(T, s * twist, centre), camera, 1.0))).double().sum())
            for s in (1.0, -1.0)
        ]
        # Interpolation between voxels of 9 mm still bends.
        quotient, floor = (ends[0] - ends[1]) / (2.0 * step), 0.01 * float(ours[:3].detach().norm())
        assert float(ours[k].detach()) == pytest.approx(quotient, rel=0.05, abs=floor)
    (by_voxel,) = torch.autograd.grad(ours[3], leaf)
    direction = torch.rand(values.shape, generator=generator) - 0.5
    ends = [float(pose_gradient(values + s * 1e-3 * direction)[3].detach()) for s in (1.0, -1.0)]
    assert float((by_voxel * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=0.02)
