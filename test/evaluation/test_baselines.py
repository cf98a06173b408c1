"""The baselines find a pose near the start, and their similarities are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sphere_reg_ros.evaluation.baselines import correlation
from sphere_reg_ros.evaluation.baselines.objective import MIDDLE, Objective, Resolution
from sphere_reg_ros.evaluation.methods import METHODS
from sphere_reg_ros.evaluation.metrics import mtre_mm
from sphere_reg_ros.evaluation.problem import Problem
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.imaging.simulated_series import FULL_SCALE
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.optim import cma_es, gradient_descent
from sphere_reg_ros.registration.pyramid import VolumePyramid
from sphere_reg_ros.registration.quality import bone_points


def problem_of(frame: object) -> Problem:
    xray = XrayImage(torch.from_numpy(frame.picture.astype(np.float32)) / FULL_SCALE)
    return Problem(xray, frame.camera, frame.T_prior, 0)


@pytest.mark.parametrize("name", ["adam-ncc", "cma-gradient-ncc", "photometric"])
def test_a_method_finds_the_phantom(name: str, phantom_path: object, frames: list) -> None:
    """From a centimetre off; 2 mm is less than a voxel of the phantom."""
    if name.startswith("cma"):
        pytest.importorskip("cma", reason="cma is not installed: pip install 'sphere_reg_ros[evaluate]'")
    ct, frame = read_ct(phantom_path), frames[0]
    method = METHODS[name](ct, VolumePyramid(ct, "cpu", torch.device("cpu")))
    answer = method(problem_of(frame))
    points = bone_points(ct)
    assert mtre_mm(frame.T_prior, frame.T_camera_ct, points) > 4.0
    assert mtre_mm(answer.T_camera_ct, frame.T_camera_ct, points) < 2.0
    times = [point.time_ms for point in answer.trace]
    assert times == sorted(times) and answer.iterations > 0
    # Nothing but the start is there at no time: a figure of convergence must not claim what was found later.
    assert times[0] == 0.0 and min(times[1:]) > 0.0
    torch.testing.assert_close(answer.trace[0].T_camera_ct, frame.T_prior)


def test_powell_climbs(phantom_path: object, frames: list) -> None:
    """It finds a more similar pose, if not always the right one: its line searches leave the basin."""
    ct, problem = read_ct(phantom_path), problem_of(frames[0])
    volumes = VolumePyramid(ct, "cpu", torch.device("cpu"))
    answer = METHODS["powell-gradient-ncc"](ct, volumes)(problem)
    objective = Objective(volumes, ct.reference_point().double(), problem, MIDDLE, correlation.gradient_ncc)
    before, after = objective.values(torch.stack((problem.T_start, answer.T_camera_ct))).tolist()
    assert after > before + 0.05


def test_the_gradient_is_that_of_the_value(phantom_path: object, frames: list) -> None:
    ct, frame = read_ct(phantom_path), frames[0]
    volumes, centre = VolumePyramid(ct, "cpu", torch.device("cpu")), ct.reference_point().double()
    objective = Objective(volumes, centre, problem_of(frame), Resolution(64, 0.0, 0.5), correlation.multiscale_ncc)
    _, gradient = objective.value_and_gradient(frame.T_prior)
    steps = torch.diag(torch.tensor([0.4, 0.4, 2.0, 0.005, 0.005, 0.005], dtype=torch.float64))
    for axis, step in enumerate(steps):
        ends = torch.stack([se3.apply_twist(frame.T_prior, sign * step, centre) for sign in (1.0, -1.0)])
        high, low = objective.values(ends).double()
        # The image's quadrature differs from the exact Jacobian by some per cent.
        assert float(gradient[axis]) == pytest.approx(float(high - low) / (2.0 * float(step.sum())), rel=0.15, abs=2e-4)


def test_correlations_of_images() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 32, 40, generator=generator)
    mask = torch.ones(1, 32, 40)
    for similarity in (correlation.global_ncc, correlation.multiscale_ncc, correlation.gradient_ncc):
        assert float(similarity(image, image, mask)) == pytest.approx(1.0, abs=1e-3)
        assert float(similarity(3.0 * image + 5.0, image, mask)) == pytest.approx(1.0, abs=1e-3)
        assert float(similarity(-image, image, mask)) == pytest.approx(-1.0, abs=1e-3)
        assert abs(float(similarity(torch.rand(1, 32, 40, generator=generator), image, mask))) < 0.15


def test_what_the_mask_hides_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 32, 40, generator=generator)
    other, mask = image.clone(), torch.ones(1, 32, 40)
    other[:, :, :10], mask[:, :, :10] = 9.0, 0.0
    for similarity in (correlation.global_ncc, correlation.multiscale_ncc, correlation.gradient_ncc):
        assert float(similarity(other, image, mask)) == pytest.approx(1.0, abs=1e-3)


def test_correlation_is_numpys() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 1, 16, 16, generator=generator)
    wanted = np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1]
    assert float(correlation.global_ncc(a, b, torch.ones(1, 16, 16))) == pytest.approx(wanted, abs=1e-4)


def test_adam_descends_a_bowl_in_the_twist() -> None:
    """``|twist to the target|²`` in mm and in units of 10 mrad."""
    target = torch.eye(4, dtype=torch.float64)
    centre = torch.zeros(3, dtype=torch.float64)
    scale = torch.tensor([1.0, 1.0, 1.0, 100.0, 100.0, 100.0], dtype=torch.float64)
    start = se3.apply_twist(target, torch.tensor([5.0, -4.0, 8.0, 0.05, -0.03, 0.02], dtype=torch.float64), centre)

    def evaluate(pose: torch.Tensor) -> tuple[float, torch.Tensor]:
        twist = se3.twist_between(target, pose, centre)
        return float((scale * twist).square().sum()), 2.0 * scale.square() * twist

    solution = gradient_descent.minimise(evaluate, start, centre, gradient_descent.AdamSettings(400, 0.5, 0.005))
    assert solution.value < 1e-2
    stopped = gradient_descent.minimise(evaluate, start, centre, gradient_descent.AdamSettings(400, 0.5, 0.005, patience=3))
    assert stopped.iterations < 400


def test_cma_finds_the_bottom_and_repeats_itself() -> None:
    pytest.importorskip("cma", reason="cma is not installed: pip install 'sphere_reg_ros[evaluate]'")
    bottom = torch.tensor([3.0, -2.0, 6.0, 0.02, 0.03, -0.01], dtype=torch.float64)
    spread = (5.0, 5.0, 10.0, 0.05, 0.05, 0.05)
    scale = torch.tensor(spread, dtype=torch.float64)
    settings = cma_es.CmaSettings(spread, population=12, generations=200)

    def values(twists: torch.Tensor) -> torch.Tensor:
        return ((twists - bottom) / scale).square().sum(1)

    first, second = (cma_es.minimise(values, settings, seed=0) for _ in range(2))
    assert first.value < 1e-4
    torch.testing.assert_close(first.twist, second.twist, rtol=0.0, atol=0.0)
