"""The training loop: Muon and AdamW, cosine, running average of the weights, states on disk, early stop.

Everything drawn at a step is a function of the seed, the step and the process, so that a training that was killed and goes on
ends where one that was not would have ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.training.batches import Patient, batch_seed, draw_batch
from sphere_reg_ros.training.curves import append_row, keep_rows, plot_rows, read_rows
from sphere_reg_ros.training.distributed import Processes
from sphere_reg_ros.training.errors import NotFiniteLossError
from sphere_reg_ros.training.optimiser import Optimiser
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.state import LossRow, load_state, save_state
from sphere_reg_ros.training.student import Losses, Student

OnStep = Callable[[LossRow], None]
Validate = Callable[[Student], float]


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        student: with the averaged weights.
        steps: done.
        stopped_early: no progress for as long as the patience.
    """

    student: Student
    steps: int
    stopped_early: bool


@dataclass
class Trainer:
    """One training.

    Attributes:
        folder: for ``state.safetensors``, ``loss.csv`` and ``loss.png``.
        header: what a state must agree on to be resumed: the CTs' hashes and the settings.
        validate: a figure that shall fall, computed by the leading process with the averaged weights.
        on_step: told of every step.
    """

    student: Student
    patients: Sequence[Patient]
    camera: Camera
    settings: TrainSettings
    folder: Path
    header: dict[str, object]
    peers: Processes
    validate: Validate
    on_step: OnStep

    def __post_init__(self) -> None:
        """Make the optimiser, and go on from the state that a killed training left."""
        settings = self.settings
        self._shared = self.peers.shared(self.student)
        self._optimiser = Optimiser(self.student, settings)
        self._average = {name: value.detach().clone() for name, value in self.student.state_dict().items()}
        self._state_path = self.folder / "state.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.step = 0
        if self._state_path.exists():
            self.step = load_state(self._state_path, self.student, self._average, self._optimiser, self.header)
        if self.peers.leads:
            keep_rows(self.folder / "loss.csv", self.step)

    def run(self) -> Outcome:
        """Train to the end.

        Raises:
            NotFiniteLossError: the loss became NaN or infinite; the last saved state is good.
        """
        settings = self.settings
        best, since_best, stop = math.inf, 0, False
        saved = started = time.monotonic()
        while self.step < settings.steps and not stop:
            losses = self._one_step()
            self.step += 1
            row = _row(self.step, losses, time.monotonic() - started)
            if self.peers.leads:
                append_row(self.folder / "loss.csv", row)
            self.on_step(row)
            if self.step % settings.validate_every == 0 or self.step == settings.steps:
                figure = self._validated()
                best, since_best = (figure, 0) if figure < best else (best, since_best + 1)
                stop = self.peers.agreed(since_best >= settings.patience)
            if time.monotonic() - saved > settings.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
        self._save()
        if self.peers.leads and self.step:
            plot_rows(read_rows(self.folder / "loss.csv"), self.folder / "loss.png")
        self.student.load_state_dict(self._average)
        return Outcome(self.student, self.step, stop)

    def _one_step(self) -> Losses:
        settings = self.settings
        seed = batch_seed(settings.seed, self.step, self.peers.rank)
        batch = draw_batch(self.patients, self.camera, settings, seed, self.step < settings.mixed_share * settings.steps)
        losses: Losses = self._shared(batch)
        if not bool(torch.isfinite(losses.total)):
            raise NotFiniteLossError(
                f"the loss is {_number(losses.total):g} at step {self.step}, batch seed {seed}: training ended; the last good "
                f"state is {self._state_path}; try a smaller learning rate"
            )
        self.student.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), settings.clip_norm)
        self._optimiser.step(schedule(self.step, settings))
        self._track_average()
        return losses

    def _track_average(self) -> None:
        # Early weights are far from the later ones: the average's memory grows with the training.
        decay = min(self.settings.average_decay, (1.0 + self.step) / (10.0 + self.step))
        for name, value in self.student.state_dict().items():
            self._average[name].lerp_(value.detach(), 1.0 - decay)

    def _validated(self) -> float:
        if not self.peers.leads:
            return 0.0
        current = {name: value.detach().clone() for name, value in self.student.state_dict().items()}
        self.student.load_state_dict(self._average)
        try:
            return self.validate(self.student)
        finally:
            self.student.load_state_dict(current)

    def _save(self) -> None:
        if self.peers.leads:
            save_state(self._state_path, self.student, self._average, self._optimiser, self.step, self.header)


def schedule(step: int, settings: TrainSettings) -> float:
    """Factor on the learning rate: linear warm-up, then half a cosine to zero."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _row(step: int, losses: Losses, seconds: float) -> LossRow:
    total, similarity, anchor, gradient, regressor = (_number(value) for value in losses)
    return LossRow(step, total, similarity, anchor, gradient, regressor, round(seconds, 3))


def _number(value: Tensor) -> float:
    return float(value.detach())
