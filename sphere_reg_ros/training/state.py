"""The state of an unfinished training on disk, without pickles: safetensors with a JSON header.

What is drawn at a step depends on the seed and the step alone, so that no random generator has a state to keep.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sphere_reg_ros.training.errors import ResumeError
from sphere_reg_ros.training.optimiser import Optimiser

MOMENT = "moment."


@dataclass(frozen=True)
class LossRow:
    """One line of the loss curve."""

    step: int
    loss: float
    similarity: float
    anchor: float
    gradient: float
    regressor: float
    seconds: float


def save_state(
    path: Path,
    module: nn.Module,
    average: dict[str, Tensor],
    optimiser: Optimiser,
    step: int,
    header: dict[str, object],
) -> None:
    """Write weights, their running average and the optimiser's moments; an interrupted write leaves the old file."""
    from safetensors.torch import save_file

    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    tensors |= {f"{MOMENT}{name}": value for name, value in optimiser.moments().items()}
    contiguous = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(contiguous, partial, {"step": str(step), "header": json.dumps(header, sort_keys=True)})
    os.replace(partial, path)


def load_state(
    path: Path, module: nn.Module, average: dict[str, Tensor], optimiser: Optimiser, header: dict[str, object]
) -> int:
    """Bring a training back to where it was.

    Returns:
        Steps done.

    Raises:
        ResumeError: the file is damaged, or is of other settings or another CT.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ResumeError(f"{path} cannot be read ({error}): delete it to train from the start") from error
    if metadata.get("header") != json.dumps(header, sort_keys=True):
        raise ResumeError(f"{path} is of a training with other settings or of another CT: delete it, or choose another --out")
    module.load_state_dict({name[7:]: value for name, value in tensors.items() if name.startswith("module.")})
    for name in average:
        average[name].copy_(tensors[f"average.{name}"])
    optimiser.restore({name[len(MOMENT) :]: value for name, value in tensors.items() if name.startswith(MOMENT)})
    return int(metadata["step"])
