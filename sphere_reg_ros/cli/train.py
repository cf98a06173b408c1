"""``sphere_reg train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sphere_reg_ros.cli.app import DONE
from sphere_reg_ros.cli.common import OptionError, say
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.models.checkpoint import load
from sphere_reg_ros.training.distributed import processes
from sphere_reg_ros.training.poses import RANGES
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.state import LossRow
from sphere_reg_ros.training.train import Listener, train_model
from sphere_reg_ros.training.validation import Figures

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class TrainRequest:
    """What the command was asked for."""

    cts: tuple[str, ...]
    out: Path
    initial: Path | None
    settings: TrainSettings


def train_files(request: TrainRequest, quiet: bool) -> int:
    """Train, and write the model with its card, its loss curve beside it."""
    if request.out.suffix != SUFFIX:
        raise OptionError(f"--out {request.out}: a model is a {SUFFIX} file; name one")
    if request.out.exists():
        raise OptionError(f"--out {request.out}: exists already; delete it or choose another name")
    initial = None if request.initial is None else load(request.initial)
    cts = [read_ct(path) for path in request.cts]
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with processes() as peers, _Bars(request.settings.steps, request.settings.fine_tune.steps, quiet or not peers.leads) as bars:
        figures = train_model(cts, request.settings, request.out, bars.listener, initial, peers)
    say(f"{request.out}: {describe(figures)}", quiet or not peers.leads)
    return DONE


def settings_of(range_name: str, **chosen: object) -> TrainSettings:
    """Settings from the command's options; those that are None keep their defaults."""
    if range_name not in RANGES:
        raise OptionError(f"--range {range_name}: choose one of {', '.join(RANGES)}")
    given = {name: value for name, value in chosen.items() if value is not None}
    return TrainSettings(pose_range=RANGES[range_name], **given)  # type: ignore[arg-type]


def describe(figures: Figures) -> str:
    """One line of figures."""
    text = f"{figures.images} simulated X-rays, regressor mTRE {_triple(figures.regressor_mm)} mm (50/75/95 %)"
    if figures.coarse_mm is not None and figures.coarse_under_10mm is not None:
        text += f", coarse stage {_triple(figures.coarse_mm)} mm, {figures.coarse_under_10mm:.1%} under 10 mm"
    return text


def _triple(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


class _Bars:
    """Two progress bars with the time left, and a line for every validation."""

    def __init__(self, steps: int, tuning_steps: int, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console)
        self._rendering: TaskID = self._progress.add_task("rendering pairs", total=None)
        self._training: TaskID = self._progress.add_task("training", total=steps)
        self._tuning: TaskID = self._progress.add_task("fine-tuning", total=tuning_steps, visible=tuning_steps > 0)
        self.listener = Listener(self._rendered, self._stepped, self._validated, self._tuned)

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _rendered(self, done: int, total: int) -> None:
        self._progress.update(self._rendering, completed=done, total=total)

    def _stepped(self, row: LossRow) -> None:
        description = f"training, loss {row.loss:.3f}"
        self._progress.update(self._training, completed=row.step, description=description)

    def _tuned(self, step: int, loss: float) -> None:
        self._progress.update(self._tuning, completed=step, description=f"fine-tuning, loss {loss:.3f}")

    def _validated(self, step: int, figures: Figures) -> None:
        self._console.print(f"step {step}: {describe(figures)}", highlight=False)
