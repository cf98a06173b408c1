"""Figures of the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sphere_reg_ros.evaluation.rows import Row, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 6


def write_plots(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Cumulative mTRE, success against start distance, convergence against iterations and time, box plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    drawers = {
        "cumulative": _cumulative,
        "success_by_start": _success,
        "convergence_iterations": lambda axes, chosen: _convergence(axes, chosen, 0, "renderings or iterations"),
        "convergence_time": lambda axes, chosen: _convergence(axes, chosen, 1, "time [ms]"),
        "box": _box,
    }
    paths = []
    for name, draw in drawers.items():
        figure = Figure(figsize=(6.5, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots(), rows)
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    names = dict.fromkeys(row["method"] for row in rows)
    return {name: [row for row in rows if row["method"] == name] for name in names}


def _cumulative(axes: Axes, rows: Sequence[Row]) -> None:
    for name, mine in _by_method(rows).items():
        errors = np.sort(columns(mine, "mtre_mm"))
        axes.step(errors, 100.0 * np.arange(1, len(errors) + 1) / len(errors), where="post", label=name)
    axes.axvline(1.0, color="0.6", linestyle="--")
    axes.set(xscale="log", xlabel="mTRE [mm]", ylabel="images [%]")
    axes.legend()


def _success(axes: Axes, rows: Sequence[Row]) -> None:
    edges = np.quantile(columns(rows, "start_mm"), np.linspace(0.0, 1.0, BINS + 1))
    for name, mine in _by_method(rows).items():
        starts, right = np.array(columns(mine, "start_mm")), np.array(columns(mine, "mtre_mm")) < 1.0
        bins = np.clip(np.searchsorted(edges, starts, side="right") - 1, 0, BINS - 1)
        used = [index for index in range(BINS) if (bins == index).any()]
        middles = [float(starts[bins == index].mean()) for index in used]
        axes.plot(middles, [100.0 * right[bins == index].mean() for index in used], marker="o", label=name)
    axes.set(xlabel="mTRE of the start [mm]", ylabel="images with mTRE < 1 mm [%]", ylim=(-3.0, 103.0))
    axes.legend()


def _convergence(axes: Axes, rows: Sequence[Row], column: int, label: str) -> None:
    for name, mine in _by_method(rows).items():
        traces = [np.array(json.loads(row["trace"]), dtype=float) for row in mine]
        grid = np.linspace(0.0, max(trace[-1, column] for trace in traces), 200)
        # The error holds until the next pose is noted.
        held = [trace[np.searchsorted(trace[:, column], grid, side="right") - 1, 2] for trace in traces]
        axes.plot(grid + 1.0, np.median(held, axis=0), label=name)
    axes.set(xscale="log", yscale="log", xlabel=f"{label} (+ 1)", ylabel="median mTRE [mm]")
    axes.legend()


def _box(axes: Axes, rows: Sequence[Row]) -> None:
    groups = _by_method(rows)
    axes.boxplot([columns(mine, "mtre_mm") for mine in groups.values()], whis=(5.0, 95.0))
    axes.set_xticks(range(1, len(groups) + 1), list(groups), rotation=15)
    axes.set(yscale="log", ylabel="mTRE [mm], whiskers at 5 and 95 %")
