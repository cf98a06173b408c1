"""Methods whose models the evaluation makes: landmark PnP, ProST, and the arms of the ablation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sphere_reg_ros.evaluation import methods
from sphere_reg_ros.evaluation.baselines import landmark_net, learned_descent
from sphere_reg_ros.evaluation.baselines.landmark_net import LandmarkNet, load_detector, train_detector
from sphere_reg_ros.evaluation.baselines.landmark_pnp import pose_from_points
from sphere_reg_ros.evaluation.errors import MissingModelError
from sphere_reg_ros.evaluation.metrics import mtre_mm
from sphere_reg_ros.evaluation.problem import Problem
from sphere_reg_ros.evaluation.suites import Choice, tasks_of
from sphere_reg_ros.evaluation.variants import MODELS, make_model, model_file
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.imaging.simulated_series import FULL_SCALE
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.models.canonical import canonical_camera
from sphere_reg_ros.optim.levenberg_marquardt import Residuals
from sphere_reg_ros.registration.pyramid import VolumePyramid

CENTRE = torch.tensor([10.0, -20.0, 30.0], dtype=torch.float64)


@pytest.fixture
def phantom(phantom_path: Path) -> CtVolume:
    """The phantom as it is read."""
    return read_ct(phantom_path)


def points(n: int = 20) -> torch.Tensor:
    return CENTRE + 60.0 * (2.0 * torch.rand(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.0)


def test_the_pose_of_exact_landmarks_in_spite_of_wrong_ones() -> None:
    """A quarter of the detections is somewhere else; the others are exact to a hundredth of a pixel."""
    twist = torch.tensor([10.0, -15.0, 40.0, 0.2, -0.1, 0.3], dtype=torch.float64)
    T_true = se3.apply_twist(ap_pose(CENTRE), twist, CENTRE)
    place = canonical_camera().project(se3.transform_points(T_true, points()))
    place[::4] = torch.flip(place[::4], (0,)) + 7.0
    found = pose_from_points(points(), place, seed=0)
    assert found is not None and mtre_mm(found, T_true, points()) < 0.1


def test_too_few_landmarks_have_no_pose() -> None:
    place = torch.full((20, 2), 1.0, dtype=torch.float64)
    place[:5] = 30.0
    assert pose_from_points(points(), place, seed=0) is None


def test_the_centre_of_a_heat_map_is_in_pixels_of_the_image() -> None:
    """All mass in the cell of row 3 and column 10 of half the resolution: its middle is pixel 6.5, 20.5."""
    net = LandmarkNet(1)
    heat = torch.zeros(1, 1, 32, 32)
    heat[0, 0, 3, 10] = 50.0
    net.layers = torch.nn.Sequential()
    net.layers.forward = lambda images: heat  # type: ignore[method-assign]
    torch.testing.assert_close(net(torch.zeros(1, 1, 64, 64)), torch.tensor([[[20.5, 6.5]]]))


class Killed(Exception):
    """A training that ends in the middle."""


def test_a_killed_training_goes_on_and_learns(phantom: CtVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmark_net, "CHECKPOINT_STEPS", 10)
    monkeypatch.setattr(landmark_net, "BATCH", 8)
    marks = (phantom.reference_point() + torch.tensor([[0.0, 0, 0], [20.0, 0, 0], [0, 0, 25.0]])).tolist()
    losses: list[float] = []
    real = landmark_net.detector_loss

    def watched(*arguments: object) -> torch.Tensor:
        losses.append(float((loss := real(*arguments)).detach()))
        return loss

    def die(step: int, total: int) -> None:
        if step == 25:
            raise Killed

    monkeypatch.setattr(landmark_net, "detector_loss", watched)
    out = tmp_path / "landmarks.safetensors"
    with pytest.raises(Killed):
        train_detector(phantom, marks, out, 60, 0, die)
    assert not out.exists() and len(losses) == 25
    train_detector(phantom, marks, out, 60, 0, lambda step, total: None)
    # The state of step 20 is the last one that was written.
    assert len(losses) == 25 + 40 and not list(tmp_path.glob("*.partial"))
    assert np.mean(losses[-10:]) < 0.7 * losses[0]
    assert load_detector(out)(torch.zeros(1, 1, 64, 64)).shape == (1, 3, 2)


def bowl(T_true: torch.Tensor, centre: torch.Tensor) -> object:
    """Residual: the twist to the truth, in mm and with 1 rad as 100 mm; its derivative is the scale, to first order."""
    scale = torch.tensor([1.0, 1.0, 1.0, 100.0, 100.0, 100.0], dtype=torch.float64)

    def residuals(T: torch.Tensor) -> Residuals:
        residual = scale * se3.twist_between(T_true.expand_as(T), T, centre)
        return Residuals(residual, torch.diag(scale).expand(len(T), 6, 6), torch.ones_like(residual))

    return lambda problem: residuals


@pytest.mark.parametrize("solve", [learned_descent.by_levenberg_marquardt, learned_descent.by_gradient_descent])
def test_both_ways_down_find_the_bottom(solve: object, phantom: CtVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    centre = phantom.reference_point()
    T_true = ap_pose(centre)
    twist = torch.tensor([20.0, -10.0, 30.0, 0.2, -0.1, 0.1], dtype=torch.float64)
    T_start = se3.apply_twist(T_true, twist, centre)
    monkeypatch.setattr(learned_descent, "_problems", lambda *some: bowl(T_true, centre))
    answer = solve(phantom, None)(Problem(XrayImage(torch.ones(64, 64)), canonical_camera(), T_start, 0))  # type: ignore[operator]
    marks = points() - CENTRE + centre
    assert mtre_mm(answer.T_camera_ct, T_true, marks) < 0.05 * mtre_mm(T_start, T_true, marks)
    assert answer.iterations > 1 and len(answer.trace) > 2


@pytest.mark.parametrize("model", ["sphere-so4", "prost"])
def test_a_model_is_made_once_and_registers(model: str, phantom: CtVolume, frames: list, tmp_path: Path) -> None:
    """A few steps teach nothing: the method runs from the X-ray to a pose, and the second call trains nothing."""
    told: list[int] = []
    name = "gradient-descent" if model == "sphere-so4" else "prost"
    volumes = VolumePyramid(phantom, "cpu", torch.device("cpu"))
    with pytest.raises(MissingModelError, match="makes it first"):
        methods.make_method(name, phantom, volumes, points(), tmp_path)
    for _ in range(2):
        make_model(tmp_path, model, phantom, [], 2, 0, lambda done, total: told.append(done))
    assert told == [1, 2] and model_file(tmp_path, model, phantom).exists()
    frame = frames[0]
    xray = XrayImage(torch.from_numpy(frame.picture.astype(np.float32)) / FULL_SCALE)
    method = methods.make_method(name, phantom, volumes, points(), tmp_path)
    answer = method(Problem(xray, frame.camera, frame.T_prior, 0))
    assert answer.T_camera_ct.shape == (4, 4) and bool(torch.isfinite(answer.T_camera_ct).all())


def test_the_ablation_varies_one_thing_at_a_time() -> None:
    arms = [task.method for task in tasks_of("ablation", Choice(images=1))]
    assert arms == list(methods.ARMS) and arms[0] == "sphere"
    base = MODELS[methods.ARMS["sphere"][0]].settings(1000, 0).as_json()
    for arm, thing in (("euclidean", "geometry"), ("hyperbolic", "geometry"), ("se3-gradient", "metric")):
        other = MODELS[methods.ARMS[arm][0]].settings(1000, 0).as_json()
        assert {key for key in base if base[key] != other[key]} == {thing}
    plain, equivariant = (MODELS[methods.ARMS[arm][0]].settings(1000, 0).fine_tune for arm in ("tuned", "equivariant"))
    assert plain.steps == equivariant.steps > 0 and equivariant.equivariant and not plain.equivariant
