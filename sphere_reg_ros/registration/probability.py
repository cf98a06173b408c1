"""How probable it is that a registration is right, from the scores of its finest level.

A logistic model of ``mTRE < 2 mm``, fitted by ``benchmarks/calibrate_gate.py`` to simulated successes and failures; its
coefficients are data of this package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

RIGHT_MM = 2.0
"""A registration with a smaller mean error counts as right."""

FEATURES = ("similarity", "gradient_similarity", "consistent_share", "overlap_share", "log_expected_error", "log_last_step")


@dataclass(frozen=True)
class GateModel:
    """A logistic model.

    Attributes:
        intercept: log odds at features of zero.
        coefficients: log odds a unit of each of :data:`FEATURES`.
    """

    intercept: float
    coefficients: tuple[float, ...]

    def probability(self, scores: Mapping[str, float]) -> float:
        """Probability that the mean error is below :data:`RIGHT_MM`."""
        values = features(scores)
        log_odds = self.intercept + sum(weight * value for weight, value in zip(self.coefficients, values, strict=True))
        return 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, log_odds))))


def features(scores: Mapping[str, float]) -> tuple[float, ...]:
    """What the model weighs; scores that are not finite count as the worst."""
    named = {
        **scores,
        "log_expected_error": -math.log(min(max(scores["expected_error_mm"], 1e-3), 1e3)),
        # Below a hundredth of a millimetre all are converged; how far is chance.
        "log_last_step": -math.log(min(max(scores["last_step_mm"], 1e-2), 1e3)),
    }
    return tuple(named[name] if math.isfinite(named[name]) else -1e3 for name in FEATURES)


@cache
def calibrated_gate() -> GateModel:
    """The model that ships."""
    content = json.loads(files(__package__).joinpath("gate.json").read_text(encoding="utf-8"))
    coefficients = tuple(float(content["coefficients"][name]) for name in FEATURES)
    return GateModel(float(content["intercept"]), coefficients)
