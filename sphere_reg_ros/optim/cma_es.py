"""CMA-ES over the twist from a start (Hansen, "The CMA Evolution Strategy: A Tutorial", 2016), by the package ``cma``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

Values = Callable[[Float64[Tensor, "b 6"]], Float64[Tensor, " b"]]


@dataclass(frozen=True)
class CmaSettings:
    """How far and how long it searches.

    Attributes:
        spread: first standard deviations of the twist's components, mm and rad.
        population: samples a generation.
        generations: at most so many.
        step_tolerance: a generation whose spread is below this share of the first one ends the search.
    """

    spread: tuple[float, ...]
    population: int
    generations: int
    step_tolerance: float = 1e-3


@dataclass(frozen=True)
class CmaSolution:
    """The best twist that was sampled."""

    twist: Float64[Tensor, "6"]
    value: float
    generations: int


def minimise(
    values: Values,
    settings: CmaSettings,
    seed: int,
    on_generation: Callable[[int, Float64[Tensor, "6"]], None] | None = None,
) -> CmaSolution:
    """Minimise from the zero twist; a whole generation is evaluated in one call of ``values``."""
    import cma

    scale = np.array(settings.spread)
    # Seed 0 means the clock to cma.
    options = {"popsize": settings.population, "seed": seed + 1, "verbose": -9, "tolx": settings.step_tolerance}
    strategy = cma.CMAEvolutionStrategy(np.zeros(6), 1.0, {**options, "maxiter": settings.generations})
    generation = 0
    while not strategy.stop():
        samples = strategy.ask()
        twists = torch.from_numpy(np.stack(samples) * scale)
        strategy.tell(samples, values(twists).tolist())
        generation += 1
        if on_generation is not None:
            on_generation(generation, torch.from_numpy(np.asarray(strategy.result.xbest) * scale))
    return CmaSolution(torch.from_numpy(np.asarray(strategy.result.xbest) * scale), float(strategy.result.fbest), generation)
