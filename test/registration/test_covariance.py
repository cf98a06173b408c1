"""The covariance against Monte Carlo: of estimates with known noise, of displaced points, and of noisy X-rays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import view_pose
from sphere_reg_ros.imaging.simulate import simulate_xray
from sphere_reg_ros.imaging.simulate_settings import XraySettings
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.registration.covariance import block_equations, cluster_robust_covariance, expected_error_mm
from sphere_reg_ros.registration.pipeline import RegistrationPipeline

SIDE_PX = 48
TRIALS = 400


def smooth_jacobian() -> np.ndarray:
    """Six images of different low frequencies, of the size of a DRR's derivatives: per mm and per rad."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    waves = [np.sin(2 * np.pi * (a * x + b * y) + 0.7 * c) for a, b, c in
             ((1, 2, 0), (3, 1, 1), (2, 2, 2), (4, 1, 3), (1, 5, 4), (3, 4, 5))]  # fmt: skip
    return np.stack(waves) * np.array([0.1, 0.1, 0.01, 10.0, 10.0, 10.0])[:, None, None]


def noise(generator: np.random.Generator, correlated: bool) -> np.ndarray:
    """Of unit deviation; correlated noise is equal in blocks of 8 x 8 pixels, as large as those of the estimator."""
    if correlated:
        return np.kron(generator.standard_normal((SIDE_PX // 8, SIDE_PX // 8)), np.ones((8, 8)))
    return generator.standard_normal((SIDE_PX, SIDE_PX))


def ratios(correlated: bool) -> np.ndarray:
    """Predicted over empirical deviation of linear least squares estimates, per component."""
    generator = np.random.default_rng(3)
    J = smooth_jacobian()
    columns = J.reshape(6, -1).T
    estimates, predictions = [], []
    ones = torch.ones(SIDE_PX, SIDE_PX)
    for _ in range(TRIALS):
        measured = 0.3 * noise(generator, correlated)
        estimate = -np.linalg.lstsq(columns, measured.ravel(), rcond=None)[0]
        estimates.append(estimate)
        left = measured + (columns @ estimate).reshape(SIDE_PX, SIDE_PX)
        view = block_equations(torch.from_numpy(left).float(), torch.from_numpy(J).float(), ones)
        predictions.append(cluster_robust_covariance([view]).diagonal().numpy())
    return np.sqrt(np.mean(predictions, axis=0) / np.var(estimates, axis=0))


def test_of_independent_noise_it_is_at_most_twice_the_variance() -> None:
    # The plain covariance is added as a floor, so twice the variance is what comes out.
    found = ratios(correlated=False)
    assert (found > 0.9).all() and (found < 1.6).all(), found


def test_noise_that_is_equal_in_blocks_is_seen() -> None:
    """The plain covariance would be eight times too sure of itself."""
    found = ratios(correlated=True)
    assert (found > 0.6).all() and (found < 1.5).all(), found


def test_views_add_up_and_an_axis_that_nobody_sees_is_unknown() -> None:
    J = smooth_jacobian()
    J[2] = 0.0
    left = 0.3 * noise(np.random.default_rng(0), False)
    view = block_equations(torch.from_numpy(left).float(), torch.from_numpy(J).float(), torch.ones(SIDE_PX, SIDE_PX))
    one, two = cluster_robust_covariance([view]), cluster_robust_covariance([view, view])
    seen = [0, 1, 3, 4, 5]
    assert (two.diagonal()[seen] < 0.7 * one.diagonal()[seen]).all()
    assert torch.isfinite(one).all() and float(one[2, 2]) > 1e4 * float(one[0, 0])
    assert torch.linalg.eigvalsh(one)[0] > 0


def test_the_expected_error_is_that_of_displaced_points() -> None:
    """Poses drawn from the covariance, in the twist's own convention, move bone by that much."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64) * torch.tensor([1, 1, 3, 0.01, 0.01, 0.01])[:, None]
    covariance = root @ root.T
    centre = torch.tensor([20.0, -30.0, 50.0], dtype=torch.float64)
    pose = view_pose(centre, 25.0, -10.0)
    points = centre + 80.0 * torch.randn(30, 3, generator=generator, dtype=torch.float64)
    twists = torch.randn(20000, 6, generator=generator, dtype=torch.float64) @ root.T
    moved = se3.transform_points(se3.apply_twist(pose.expand(len(twists), 4, 4), twists, centre), points)
    apart = moved - se3.transform_points(pose, points)
    measured = float(apart.square().sum(2).mean().sqrt())
    offsets = (points - centre) @ pose[:3, :3].T
    # 20000 draws: half a per cent; rotations of two degrees are not quite linear.
    assert abs(expected_error_mm(covariance, offsets) / measured - 1.0) < 0.02


def test_of_noisy_xrays_it_is_the_scatter_of_the_poses(pipeline: RegistrationPipeline) -> None:
    """Twelve X-rays of one pose that differ by their quanta alone, registered each on its own.

    A deviation of twelve is known to a fifth. The prediction may be larger, because it must also cover what is equal in all
    twelve: the voxels' size, scatter, hardening.
    """
    camera, pose = Camera.centred(128), view_pose(pipeline.centre_ct, 0.0, 0.0)
    settings = replace(XraySettings.ideal(), photons_per_mm2=20_000.0)
    twists, covariances = [], []
    for seed in range(12):
        result = pipeline.register(XrayImage(simulate_xray(pipeline.ct, camera, pose, settings, seed).pixels), camera, pose)
        assert result.accepted, result.reasons
        twists.append(se3.twist_between(pose, torch.from_numpy(result.T_camera_ct), pipeline.centre_ct).numpy())
        covariances.append(result.covariance)
    predicted = np.sqrt(np.diagonal(np.mean(covariances, axis=0)))
    ratio = predicted / np.std(twists, axis=0, ddof=1)
    assert (ratio > 0.5).all() and (ratio < 6.0).all(), ratio
    # In camera axes, about the reference point: depth is by far what one view knows least.
    assert predicted[2] > 3.0 * predicted[:2].max()
    assert np.argmax(np.std(twists, axis=0)[:3]) == 2


def test_axes_and_point_are_those_of_the_camera_and_the_reference(pipeline: RegistrationPipeline) -> None:
    """Seen from the side, depth is another direction of the patient, but the same entry of the covariance."""
    camera = Camera.centred(128)
    depths_in_patient = []
    for orbital in (0.0, 80.0):
        pose = view_pose(pipeline.centre_ct, orbital, 0.0)
        picture = simulate_xray(pipeline.ct, camera, pose, XraySettings.ideal(), 0).pixels
        result = pipeline.register(XrayImage(picture), camera, pose)
        translation = result.covariance[:3, :3]
        assert np.argmax(np.diagonal(translation)) == 2
        least_known = np.linalg.eigh(translation)[1][:, -1]
        depths_in_patient.append(result.T_camera_ct[:3, :3].T @ least_known)
        np.testing.assert_allclose(result.centre_ct, pipeline.ct.reference_point().numpy())
    # AP looks along the patient's posterior axis; 80 degrees turns that towards the left.
    assert abs(depths_in_patient[0][1]) > 0.95
    assert abs(depths_in_patient[1][0]) > 0.9
