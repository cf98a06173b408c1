"""A suite is a list of independent tasks: one method on one X-ray from one start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sphere_reg_ros.evaluation.cases import DEEPFLUORO, EXAMPLE, LABELLED, LJUBLJANA, RECORDED
from sphere_reg_ros.evaluation.datasets.deepfluoro import check_deepfluoro
from sphere_reg_ros.evaluation.datasets.labelled_ct import LAYOUTS, check_labelled, read_folder
from sphere_reg_ros.evaluation.datasets.ljubljana import check_ljubljana
from sphere_reg_ros.evaluation.errors import DatasetFileError, SuiteNameError, nearest
from sphere_reg_ros.evaluation.methods import ARMS, WITHOUT_MODEL, check_method, check_unseen
from sphere_reg_ros.evaluation.splits import AGNOSTIC, SPECIFIC, Split, make_split
from sphere_reg_ros.evaluation.starts import expanded

SIMULATED_IMAGES = 10_000
"""More than any suite asks for: simulated X-rays never end."""


@dataclass(frozen=True, order=True)
class Task:
    """One row of the results.

    Attributes:
        dataset: a name of :func:`sphere_reg_ros.evaluation.cases.open_patient`.
        case: index of the X-ray.
        seed: of poses, images and starts.
        spread: name of the start, see `starts`.
        method: see :data:`sphere_reg_ros.evaluation.methods.METHODS`.
    """

    dataset: str
    seed: int
    spread: str
    case: int
    method: str

    @property
    def key(self) -> tuple[str, ...]:
        """What names the task in a results file."""
        return (self.method, self.dataset, str(self.case), str(self.seed), self.spread)


@dataclass(frozen=True)
class Suite:
    """Images of a patient at most, names of the starts, the data set that the user brings along, if any, and methods."""

    images: int
    starts: tuple[str, ...]
    data: str = ""
    methods: tuple[str, ...] = WITHOUT_MODEL


SUITES: Mapping[str, Suite] = {
    "quick": Suite(20, ("0.5",)),
    "builtin": Suite(100, ("0.5", "1")),
    "ablation": Suite(20, ("1",), methods=tuple(ARMS)),
    "deepfluoro": Suite(1000, ("0.5", "1"), DEEPFLUORO),
    "ljubljana": Suite(2, ("0.5", "1"), LJUBLJANA),
    "ctpelvic1k": Suite(5, ("0.5", "1"), LABELLED),
    "ctspine1k": Suite(5, ("0.5", "1"), LABELLED),
}


@dataclass(frozen=True)
class Choice:
    """What a run does of a suite; defaults are the suite's own.

    Attributes:
        cts: paths; the example CT where there is none.
        methods: names.
        starts: names, see `starts`.
        seed: of poses, images and starts.
        images: per patient and start.
        data: the data set's file or folder, for a suite that has one.
        split: which patients a model may have seen, see `splits`.
    """

    cts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    seed: int = 0
    images: int | None = None
    data: Path | None = None
    split: str = SPECIFIC


def tasks_of(suite: str, choice: Choice) -> list[Task]:
    """All tasks of a suite, X-ray by X-ray, so that each is simulated once by each worker.

    Raises:
        SuiteNameError, MethodNameError, StartNameError: unknown; the nearest name is told.
        DatasetFileError: the suite needs a file, which is not given, or of another layout.
        SplitError: too few patients for the split, or a method that knows them.
    """
    chosen = suite_of(suite)
    names = [check_method(name) for name in dict.fromkeys(choice.methods)] or list(chosen.methods)
    if choice.split == AGNOSTIC:
        check_unseen(names)
    starts = expanded(choice.starts or chosen.starts)
    patients = _patients(suite, choice.cts, choice.data)
    return [
        Task(dataset, choice.seed, start, case, name)
        for dataset in make_split(choice.split, list(patients), choice.seed).test
        for start in starts
        for case in range(min(choice.images or chosen.images, patients[dataset]))
        for name in names
    ]


def split_of(suite: str, choice: Choice) -> Split:
    """The patients that models may be made of, and those that are registered."""
    return make_split(choice.split, list(_patients(suite, choice.cts, choice.data)), choice.seed)


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
    if kind == LJUBLJANA:
        return check_ljubljana(path)
    if kind == LABELLED:
        return check_labelled(path, name)
    raise DatasetFileError(f"--check-data {path}: suite '{name}' needs no data; it simulates its X-rays")


def _patients(name: str, cts: Sequence[str], data: Path | None) -> dict[str, int]:
    """Names of the patients, and how many X-rays there are of each."""
    kind = suite_of(name).data
    if not kind:
        return dict.fromkeys(cts or (EXAMPLE,), SIMULATED_IMAGES)
    if data is None:
        source = LAYOUTS[name].source if kind == LABELLED else RECORDED[kind].source
        raise DatasetFileError(f"suite '{name}' needs its data: --data PATH; get them from {source}")
    if kind == LABELLED:
        return {f"{LABELLED}{ct}|{labels}": SIMULATED_IMAGES for _, ct, labels in read_folder(data, name).pairs}
    file = RECORDED[kind](data)
    return {f"{kind}{data}#{one}": len(file.projections(one)) for one in file.specimens()}
