"""From CTs to a model file: checks, rendering, training, validation, and the card that says what it can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from sphere_reg_ros._version import __version__
from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.models.canonical import CANONICAL_PX
from sphere_reg_ros.models.checkpoint import LearnedModel, ModelCard, save
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.models.pose_regressor import PoseRegressor
from sphere_reg_ros.registration.coarse import drr_volume
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.training.batches import Patient
from sphere_reg_ros.training.coarse_figures import coarse_figures
from sphere_reg_ros.training.deform import deformed
from sphere_reg_ros.training.distributed import Processes
from sphere_reg_ros.training.finetune import fine_tune
from sphere_reg_ros.training.pairs import render_pairs
from sphere_reg_ros.training.poses import check_range
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.state import LossRow
from sphere_reg_ros.training.student import Student
from sphere_reg_ros.training.trainer import Outcome, Trainer
from sphere_reg_ros.training.validation import Figures, HeldOut, held_out, regressor_figures

SPECIFIC_LIMITS = "For this CT and poses of the trained range; figures are of simulated X-rays."
AGNOSTIC_LIMITS = (
    "Trained on few CTs and variants of them: a start for anatomies like theirs, in poses of the trained range. Validated on "
    "simulated X-rays of the first of these CTs, not of an unseen patient."
)


@dataclass(frozen=True)
class Listener:
    """Who is told how far a training is.

    Attributes:
        rendered: pairs ready, of how many.
        stepped: after every step.
        validated: steps done, and the figures.
        tuned: steps of fine-tuning, and the loss.
    """

    rendered: Callable[[int, int], None]
    stepped: Callable[[LossRow], None]
    validated: Callable[[int, Figures], None]
    tuned: Callable[[int, float], None]


def train_model(
    cts: Sequence[CtVolume],
    settings: TrainSettings,
    out: Path,
    listener: Listener,
    initial: LearnedModel | None = None,
    peers: Processes | None = None,
) -> Figures:
    """Train on one CT (a patient-specific model), or on several or on variants (an agnostic one), and write the model.

    A state beside the model, in ``<out>.training``, is gone on from where it exists. The held-out X-rays are of the first CT.

    Args:
        out: the model, ``.safetensors``.
        initial: weights to start from.

    Returns:
        The figures on the card.

    Raises:
        BonelessCtError, PoseRangeError: CTs and ranges that cannot be trained on; found before anything is rendered.
        NotFiniteLossError: the training diverged.
    """
    camera = Camera.centred(CANONICAL_PX)
    peers = peers or Processes()
    for ct in cts:
        check_range(ct, camera, settings.pose_range, settings.seed)
    started = time.monotonic()
    patients = _patients(cts, camera, settings, listener, peers)
    data = held_out(cts[0], camera, settings.pose_range, settings.validation_images, settings.seed)
    student = _student(settings, initial)
    found: dict[int, Figures] = {}

    def validate(current: Student) -> float:
        found[trainer.step] = figures_of(current, patients[0], data, camera, settings)
        listener.validated(trainer.step, found[trainer.step])
        return found[trainer.step].regressor_mm[0]

    header: dict[str, object] = {"ct_sha256": [ct.sha256 for ct in cts], "settings": settings.as_json(), "processes": peers.count}
    folder = out.with_name(out.stem + ".training")
    trainer = Trainer(student, patients, camera, settings, folder, header, peers, validate, listener.stepped)
    outcome = trainer.run()
    figures = found.get(outcome.steps) or figures_of(outcome.student, patients[0], data, camera, settings)
    if settings.fine_tune.steps and peers.leads:
        fine_tune(outcome.student, patients, camera, settings, listener.tuned)
        tuned = figures_of(outcome.student, patients[0], data, camera, settings)
        figures = replace(tuned, coarse_before_fine_tuning_mm=figures.coarse_mm)
        listener.validated(outcome.steps, figures)
    if peers.leads:
        card = _card(cts, settings, outcome, figures, (time.monotonic() - started) / 60.0)
        volume = None if outcome.student.volume is None else outcome.student.volume.plain()
        save(out, outcome.student.encoder, outcome.student.regressor, card, volume)
    return figures


def figures_of(student: Student, patient: Patient, data: HeldOut, camera: Camera, settings: TrainSettings) -> Figures:
    """Regressor and coarse stage on the held-out X-rays."""
    regressor = regressor_figures(student.regressor, data)
    with torch.no_grad():
        renderer = student.renderer(patient.renderer.volume)
    return coarse_figures(student.similarity(), renderer, camera, settings.voxel_mm, data, regressor)


def _patients(
    cts: Sequence[CtVolume], camera: Camera, settings: TrainSettings, listener: Listener, peers: Processes
) -> list[Patient]:
    patients: list[Patient] = []
    bodies = _bodies(cts, settings)
    share = settings.pairs // len(bodies)
    for number, body in enumerate(bodies):
        ct = body()
        # Each process renders pairs of its own: together they see more poses.
        seed = settings.seed + 7919 * (number + len(bodies) * peers.rank)
        told = partial(_tell, listener, number * share, len(bodies) * share)
        pairs = render_pairs(ct, camera, settings.pose_range.widened(settings.spread), share, seed, settings.voxel_mm, told)
        patients.append(Patient(pairs, ct.reference_point(), make_renderer(drr_volume(ct, settings.voxel_mm))))
    return patients


def _bodies(cts: Sequence[CtVolume], settings: TrainSettings) -> list[Callable[[], CtVolume]]:
    """What is trained on, made when it is needed: all variants together would take gigabytes."""
    if settings.variants == 0:
        return [partial(_same, ct) for ct in cts]
    seeds = range(settings.seed * 1000, settings.seed * 1000 + settings.variants)
    return [partial(deformed, ct, seed) for seed in seeds for ct in cts]


def _same(ct: CtVolume) -> CtVolume:
    return ct


def _tell(listener: Listener, before: int, total: int, count: int) -> None:
    listener.rendered(before + count, total)


def _student(settings: TrainSettings, initial: LearnedModel | None) -> Student:
    torch.manual_seed(settings.seed)
    geometry = make_geometry(settings.geometry)
    if initial is None:
        return Student(Encoder(), PoseRegressor(), geometry, settings)
    return Student(initial.encoder.requires_grad_(), initial.regressor.requires_grad_(), geometry, settings)


def _card(
    cts: Sequence[CtVolume],
    settings: TrainSettings,
    outcome: Outcome,
    figures: Figures,
    minutes: float,
) -> ModelCard:
    return ModelCard(
        kind="agnostic" if settings.variants or len(cts) > 1 else "patient_specific",
        ct_sha256=tuple(ct.sha256 for ct in cts),
        geometry=settings.geometry,
        seed=settings.seed,
        steps=outcome.steps,
        training_minutes=round(minutes, 1),
        versions={"sphere_reg_ros": __version__, "torch": str(torch.__version__)},
        validation=figures.as_json(),
        settings=settings.as_json(),
        limits=AGNOSTIC_LIMITS if settings.variants or len(cts) > 1 else SPECIFIC_LIMITS,
    )
