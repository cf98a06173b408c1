"""The models that some methods need made for each CT: ProST's, the landmark detector, and those of the ablation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sphere_reg_ros.evaluation.baselines.landmark_net import train_detector
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.training.settings import FineTuneSettings, TrainSettings
from sphere_reg_ros.training.train import Listener, train_model

PAIRS_A_STEP = 6
TUNING_SHARE = 0.1
"""Steps of end-to-end tuning, which cost about ten times as much, as a share of the others."""
GRADIENT_WEIGHT = 0.3

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Variant:
    """What a model differs in.

    Attributes:
        tuned: fine-tuned through the solver after the training; with ``equivariant``, along with the equivariant volume network.
        gradient: matching of the similarity's gradient to the metric's.
    """

    geometry: str = "spherical"
    metric: str = "so4"
    anchored: bool = True
    gradient: bool = False
    tuned: bool = False
    equivariant: bool = False

    def settings(self, steps: int, seed: int) -> TrainSettings:
        """Of its training."""
        tuning = FineTuneSettings(steps=max(1, round(TUNING_SHARE * steps)) if self.tuned else 0, equivariant=self.equivariant)
        pairs = max(TrainSettings.regressor_batch, min(TrainSettings.pairs, PAIRS_A_STEP * steps))
        warmup = min(TrainSettings.warmup_steps, max(1, steps // 10))
        base = TrainSettings(pairs=pairs, steps=steps, seed=seed, validate_every=steps, warmup_steps=warmup)
        weights = {"anchor_weight": float(self.anchored), "gradient_weight": GRADIENT_WEIGHT if self.gradient else 0.0}
        return replace(base, geometry=self.geometry, metric=self.metric, fine_tune=tuning, **weights)  # type: ignore[arg-type]


MODELS: Mapping[str, Variant] = {
    "sphere-so4": Variant(),
    "euclidean-so4": Variant(geometry="euclidean"),
    "hyperbolic-so4": Variant(geometry="hyperbolic"),
    "sphere-se3": Variant(metric="se3"),
    "sphere-so4-tuned": Variant(tuned=True),
    "sphere-so4-equivariant": Variant(tuned=True, equivariant=True),
    "prost": Variant(geometry="euclidean", metric="se3", anchored=False, gradient=True),
}
DETECTOR = "landmarks"
"""The other kind of model: a landmark detector."""


def model_file(folder: Path, model: str, ct: CtVolume) -> Path:
    """Where the model of a CT is."""
    return folder / f"{model}-{ct.sha256[:12]}.safetensors"


def make_model(
    folder: Path, model: str, ct: CtVolume, points_mm: Sequence[Sequence[float]], steps: int, seed: int, told: Told
) -> None:
    """Train a model where there is none yet; a training that was killed goes on where it stopped.

    Args:
        points_mm: landmarks, for a detector.
        told: steps done, of how many.
    """
    out = model_file(folder, model, ct)
    if out.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if model == DETECTOR:
        train_detector(ct, points_mm, out, steps, seed, told)
        return
    settings = MODELS[model].settings(steps, seed)
    total = settings.steps + settings.fine_tune.steps
    listener = Listener(
        rendered=lambda done, of: None,
        stepped=lambda row: told(row.step, total),
        validated=lambda step, figures: None,
        tuned=lambda step, loss: told(settings.steps + step, total),
    )
    train_model([ct], settings, out, listener)
