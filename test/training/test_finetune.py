"""Learning through the solver: its gradient against a difference quotient, and what it changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.models.canonical import canonical_camera
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.models.equivariant_volume import EquivariantVolume
from sphere_reg_ros.models.pose_regressor import PoseRegressor
from sphere_reg_ros.registration.coarse import drr_volume
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.similarity.learned import LearnedSimilarity
from sphere_reg_ros.training.batches import Patient
from sphere_reg_ros.training.finetune import CoarseView, draw_starts, end_pose_loss, fine_tune
from sphere_reg_ros.training.pairs import render_pairs
from sphere_reg_ros.training.poses import NEAR_AP
from sphere_reg_ros.training.settings import FineTuneSettings, TrainSettings
from sphere_reg_ros.training.student import Student

CAMERA = canonical_camera()
SETTINGS = TrainSettings(pairs=16, batch=4, voxel_mm=6.0)


@pytest.fixture(scope="module")
def patient(phantom: CtVolume) -> Patient:
    pairs = render_pairs(phantom, CAMERA, NEAR_AP, 16, 0, 6.0)
    return Patient(pairs, phantom.reference_point(), make_renderer(drr_volume(phantom, 6.0)))


def student() -> Student:
    torch.manual_seed(1)
    return Student(Encoder(), PoseRegressor(), make_geometry("spherical"), SETTINGS)


def test_the_gradient_through_the_solver_is_a_difference_quotient(patient: Patient) -> None:
    """Of one solver step: the renderer's Jacobian, by definition constant in the pose, is evaluated at the start only."""
    encoder = student().encoder.double().eval()
    similarity = LearnedSimilarity(encoder, make_geometry("spherical"))
    xray, T_true, T_start = draw_starts(patient, SETTINGS, 3, torch.Generator().manual_seed(0))

    class Double:
        """The renderer with float64 images, so that a difference quotient has digits."""

        def render_with_jacobian(self, *arguments: object) -> object:
            drr = patient.renderer.render_with_jacobian(*arguments)  # type: ignore[arg-type]
            return type(drr)(drr.image.double(), drr.jacobian.double())

    view = CoarseView(Double(), CAMERA, patient.centre_ct, 6.0)  # type: ignore[arg-type]

    def loss() -> torch.Tensor:
        return end_pose_loss(similarity, view, xray.double(), T_true, T_start, 2)

    weight = encoder.gather.weight
    (gradient,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        ends = []
        for sign in (1.0, -1.0):
            weight += sign * 1e-5 * direction
            ends.append(float(loss()))
            weight -= sign * 1e-5 * direction
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3)


def test_fine_tuning_moves_the_encoder_and_leaves_the_regressor(patient: Patient) -> None:
    tuned = student()
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    settings = dataclasses.replace(SETTINGS, fine_tune=FineTuneSettings(steps=2, batch=3, evaluations=3))
    told: list[tuple[int, float]] = []
    fine_tune(tuned, [patient], CAMERA, settings, lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [1, 2]
    assert all(0.0 < loss < 10.0 for _, loss in told)
    moved = {name for name, value in tuned.state_dict().items() if not torch.equal(value, before[name])}
    assert "encoder.gather.weight" in moved
    assert not any(name.startswith("regressor.") for name in moved)


def test_an_equivariant_residual_is_learned_through_the_renderer(patient: Patient) -> None:
    pytest.importorskip("escnn", reason="escnn, which trains the volume network, is not installed")
    tuned = student()
    tuning = FineTuneSettings(steps=2, batch=2, evaluations=2, equivariant=True)
    fine_tune(tuned, [patient], CAMERA, dataclasses.replace(SETTINGS, fine_tune=tuning), lambda step, loss: None)
    assert tuned.volume is not None
    torch.manual_seed(SETTINGS.seed)
    fresh = EquivariantVolume()
    assert float((tuned.volume.second.weights - fresh.second.weights).detach().abs().max()) > 0.0
    values = patient.renderer.volume.values
    with torch.no_grad():
        seen = tuned.renderer(patient.renderer.volume).volume.values
        assert torch.allclose(seen, tuned.volume.plain()(values), atol=1e-5 * float(values.max()))
    assert float((seen - values).abs().max()) > 0.0
