"""The loop: equal seeds, resuming, stopping, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.models.canonical import canonical_camera
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.models.pose_regressor import PoseRegressor
from sphere_reg_ros.registration.coarse import drr_volume
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.training.batches import Patient, batch_seed, draw_batch
from sphere_reg_ros.training.curves import read_rows
from sphere_reg_ros.training.distributed import Processes
from sphere_reg_ros.training.errors import NotFiniteLossError, ResumeError, TrainingSettingsError
from sphere_reg_ros.training.pairs import render_pairs
from sphere_reg_ros.training.poses import NEAR_AP
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.state import LossRow
from sphere_reg_ros.training.student import Student
from sphere_reg_ros.training.trainer import Trainer, schedule

CAMERA = canonical_camera()
TINY = TrainSettings(pairs=32, steps=5, batch=4, warmup_steps=2, validate_every=2, checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def patient(phantom: CtVolume) -> Patient:
    pairs = render_pairs(phantom, CAMERA, NEAR_AP, 32, 0, 6.0)
    return Patient(pairs, phantom.reference_point(), make_renderer(drr_volume(phantom, 6.0)))


class Killed(Exception):
    """A training that ends in the middle."""


def trainer(
    patient: Patient, folder: Path, settings: TrainSettings = TINY, stop_at: int = 0, figures: list[float] | None = None
) -> Trainer:
    torch.manual_seed(3)
    student = Student(Encoder(), PoseRegressor(), make_geometry("spherical"), settings)

    def on_step(row: LossRow) -> None:
        if row.step == stop_at:
            raise Killed

    def validate(student: Student) -> float:
        return figures.pop(0) if figures else 0.0

    return Trainer(student, [patient], CAMERA, settings, folder, {"settings": settings.as_json()}, Processes(), validate, on_step)


def weights(student: Student) -> torch.Tensor:
    return torch.cat([value.flatten() for value in student.state_dict().values()])


def test_a_killed_training_ends_where_an_undisturbed_one_does(patient: Patient, tmp_path: Path) -> None:
    whole = trainer(patient, tmp_path / "whole").run()
    with pytest.raises(Killed):
        trainer(patient, tmp_path / "killed", stop_at=4).run()
    resumed = trainer(patient, tmp_path / "killed")
    # The state after step 3 is the last one that was saved: step 4 is done again.
    assert resumed.step == 3
    outcome = resumed.run()
    assert torch.equal(weights(whole.student), weights(outcome.student))
    assert [row.step for row in read_rows(tmp_path / "killed" / "loss.csv")] == [1, 2, 3, 4, 5]
    assert (tmp_path / "killed" / "loss.png").stat().st_size > 1000


def test_another_seed_trains_another_model(patient: Patient, tmp_path: Path) -> None:
    first = trainer(patient, tmp_path / "a").run()
    other = trainer(patient, tmp_path / "b", dataclasses.replace(TINY, seed=1)).run()
    assert not torch.equal(weights(first.student), weights(other.student))


def test_a_state_of_another_training_is_refused(patient: Patient, tmp_path: Path) -> None:
    trainer(patient, tmp_path).run()
    with pytest.raises(ResumeError, match="other settings"):
        trainer(patient, tmp_path, dataclasses.replace(TINY, learning_rate=1e-4))
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ResumeError, match="cannot be read"):
        trainer(patient, tmp_path)


def test_no_progress_for_as_long_as_the_patience_ends_it(patient: Patient, tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, steps=40, validate_every=1, patience=2)
    outcome = trainer(patient, tmp_path, settings, figures=[5.0, 4.0, 4.5, 4.0, 3.0]).run()
    assert outcome.stopped_early
    assert outcome.steps == 4


def test_nan_stops_it_and_names_the_batch(patient: Patient, tmp_path: Path) -> None:
    poisoned = trainer(patient, tmp_path, dataclasses.replace(TINY, seed=7))

    def poison(row: LossRow) -> None:
        if row.step == 3:
            with torch.no_grad():
                poisoned.student.regressor.head[0].weight.fill_(float("nan"))

    poisoned.on_step = poison
    with pytest.raises(NotFiniteLossError, match=f"nan at step 3, batch seed {batch_seed(7, 3, 0)}"):
        poisoned.run()
    assert trainer(patient, tmp_path, dataclasses.replace(TINY, seed=7)).step == 3


def test_the_loss_falls(patient: Patient, tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, steps=60, batch=8, validate_every=100, checkpoint_seconds=60.0, warmup_steps=5)
    trainer(patient, tmp_path, settings).run()
    rows = read_rows(tmp_path / "loss.csv")
    for part in ("similarity", "regressor"):
        early, late = ([getattr(row, part) for row in some] for some in (rows[:10], rows[-20:]))
        assert sum(late) / 20 < 0.8 * sum(early) / 10


def test_gradient_matching_moves_the_encoder(patient: Patient) -> None:
    settings = dataclasses.replace(TINY, gradient_weight=1.0, gradient_batch=2)
    torch.manual_seed(0)
    student = Student(Encoder(), PoseRegressor(), make_geometry("spherical"), settings)
    batch = draw_batch([patient], CAMERA, settings, 5, mixed=False)
    assert batch.jacobian.shape == (2, 1, 6, 64, 64)
    losses = student(batch)
    assert 0.0 < float(losses.gradient.detach()) <= 8.0
    (by_weight,) = torch.autograd.grad(losses.gradient, student.encoder.gather.weight)
    assert bool(torch.isfinite(by_weight).all())
    assert float(by_weight.norm()) > 1e-6


def test_mixed_precision_is_near_full_precision(patient: Patient) -> None:
    torch.manual_seed(0)
    student = Student(Encoder(), PoseRegressor(), make_geometry("spherical"), TINY)
    full, mixed = (student(draw_batch([patient], CAMERA, TINY, 5, mixed=m)).total.detach() for m in (False, True))
    # Eight binary digits of mantissa, a few layers deep.
    assert float(mixed) == pytest.approx(float(full), rel=0.05)
    assert mixed.dtype == torch.float32


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    settings = TrainSettings(steps=100, warmup_steps=10)
    rates = [schedule(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 1}, {"pairs": 8}, {"R_mm": 0.0}, {"mixed_share": 1.5}])
def test_settings_that_cannot_train_are_refused(wrong: dict) -> None:
    with pytest.raises(TrainingSettingsError, match=str(next(iter(wrong.values())))):
        TrainSettings(**wrong)
