"""Adam on the rigid motions: every step is a twist about the CT's reference point in camera axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3

ValueAndGradient = Callable[[Float64[Tensor, "4 4"]], tuple[float, Float64[Tensor, "6"]]]


@dataclass(frozen=True)
class AdamSettings:
    """Adam's figures (Kingma and Ba, ICLR 2015, algorithm 1).

    Attributes:
        translation_rate_mm, rotation_rate_rad: length of a first step along each component.
        decay_every, decay: the rates are multiplied by ``decay`` after so many iterations.
        patience: iterations without a new best value that end the descent; 0 never does.
    """

    iterations: int
    translation_rate_mm: float
    rotation_rate_rad: float
    decay_every: int = 25
    decay: float = 0.9
    patience: int = 0
    beta1: float = 0.9
    beta2: float = 0.999


@dataclass(frozen=True)
class AdamSolution:
    """The best pose that was seen, and the number of evaluations."""

    T_camera_ct: Float64[Tensor, "4 4"]
    value: float
    iterations: int


def minimise(
    evaluate: ValueAndGradient,
    T_start: Float64[Tensor, "4 4"],
    centre_ct: Float64[Tensor, "3"],
    settings: AdamSettings,
    on_iteration: Callable[[int, Float64[Tensor, "4 4"]], None] | None = None,
) -> AdamSolution:
    """Descend from a pose.

    Args:
        evaluate: value at a pose and its gradient by the twist about ``centre_ct``, ``(6,)``, per mm and per rad.
        on_iteration: told the iteration and its pose.
    """
    pose = T_start.to(torch.float64)
    rate = torch.tensor([settings.translation_rate_mm] * 3 + [settings.rotation_rate_rad] * 3, dtype=torch.float64)
    mean, square = torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    best, best_value, since_best, done = pose, float("inf"), 0, 0
    for iteration in range(settings.iterations):
        value, gradient = evaluate(pose)
        done += 1
        since_best += 1
        if value < best_value:
            best, best_value, since_best = pose, value, 0
        if on_iteration is not None:
            on_iteration(iteration, pose)
        if settings.patience and since_best > settings.patience:
            break
        mean = settings.beta1 * mean + (1.0 - settings.beta1) * gradient
        square = settings.beta2 * square + (1.0 - settings.beta2) * gradient.square()
        corrected = mean / (1.0 - settings.beta1**done)
        spread = (square / (1.0 - settings.beta2**done)).sqrt() + 1e-8
        step = -rate * settings.decay ** (iteration // settings.decay_every) * corrected / spread
        pose = se3.apply_twist(pose, step, centre_ct)
    return AdamSolution(best, best_value, done)
