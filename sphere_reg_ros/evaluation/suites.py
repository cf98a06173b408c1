"""A suite is a list of independent tasks: one method on one X-ray from one start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sphere_reg_ros.evaluation.cases import DEEPFLUORO, EXAMPLE, LABELLED
from sphere_reg_ros.evaluation.datasets.deepfluoro import LICENCE, DeepFluoroFile, check_deepfluoro
from sphere_reg_ros.evaluation.datasets.labelled_ct import LAYOUTS, check_labelled, read_folder
from sphere_reg_ros.evaluation.errors import DatasetFileError, SuiteNameError, nearest
from sphere_reg_ros.evaluation.methods import WITHOUT_MODEL, check_method

SIMULATED_IMAGES = 10_000
"""More than any suite asks for: simulated X-rays never end."""


@dataclass(frozen=True, order=True)
class Task:
    """One row of the results.

    Attributes:
        dataset: a name of :func:`sphere_reg_ros.evaluation.cases.open_patient`.
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
    """Images of a patient at most, spreads of the starts, and the data set that the user brings along, if any."""

    images: int
    spreads: tuple[float, ...]
    data: str = ""


SUITES: Mapping[str, Suite] = {
    "quick": Suite(20, (0.5,)),
    "builtin": Suite(100, (0.5, 1.0)),
    "deepfluoro": Suite(1000, (0.5, 1.0), DEEPFLUORO),
    "ctpelvic1k": Suite(5, (0.5, 1.0), LABELLED),
    "ctspine1k": Suite(5, (0.5, 1.0), LABELLED),
}


def tasks_of(
    suite: str,
    cts: Sequence[str],
    methods: Sequence[str],
    seed: int,
    images: int | None = None,
    data: Path | None = None,
) -> list[Task]:
    """All tasks of a suite, X-ray by X-ray, so that each is simulated once by each worker.

    Args:
        cts: paths; the example CT where there is none.
        methods: names; those that need no model where there is none.
        images: per patient and spread; the suite's own where None.
        data: the data set's file, for a suite that has one.

    Raises:
        SuiteNameError, MethodNameError: unknown; the nearest name is told.
        DatasetFileError: the suite needs a file, which is not given, or of another layout.
    """
    chosen = suite_of(suite)
    names = [check_method(name) for name in dict.fromkeys(methods)] or list(WITHOUT_MODEL)
    return [
        Task(dataset, seed, spread, case, name)
        for dataset, available in _patients(suite, cts, data).items()
        for spread in chosen.spreads
        for case in range(min(images or chosen.images, available))
        for name in names
    ]


def suite_of(name: str) -> Suite:
    """A suite by its name.

    Raises:
        SuiteNameError: there is none; the nearest name is told.
    """
    if name not in SUITES:
        raise SuiteNameError(f"no suite '{name}': {nearest(name, SUITES)}")
    return SUITES[name]


def check_data(name: str, path: Path) -> list[str]:
    """What a suite's data set holds and lacks, one line a finding.

    Raises:
        DatasetFileError: the suite simulates its X-rays, or the data cannot be used at all.
    """
    kind = suite_of(name).data
    if kind == DEEPFLUORO:
        return check_deepfluoro(path)
    if kind == LABELLED:
        return check_labelled(path, name)
    raise DatasetFileError(f"--check-data {path}: suite '{name}' needs no data; it simulates its X-rays")


def _patients(name: str, cts: Sequence[str], data: Path | None) -> dict[str, int]:
    """Names of the patients, and how many X-rays there are of each."""
    kind = suite_of(name).data
    if not kind:
        return dict.fromkeys(cts or (EXAMPLE,), SIMULATED_IMAGES)
    if data is None:
        source = LICENCE if kind == DEEPFLUORO else LAYOUTS[name].source
        raise DatasetFileError(f"suite '{name}' needs its data: --data PATH; get them from {source}")
    if kind == LABELLED:
        return {f"{LABELLED}{ct}|{labels}": SIMULATED_IMAGES for _, ct, labels in read_folder(data, name).pairs}
    file = DeepFluoroFile(data)
    return {f"{DEEPFLUORO}{data}#{one}": len(file.projections(one)) for one in file.specimens()}
