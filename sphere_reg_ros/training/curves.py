"""The loss curve as CSV and PNG."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from pathlib import Path

from sphere_reg_ros.training.state import LossRow


def append_row(path: Path, row: LossRow) -> None:
    """Add a line to the loss curve's CSV, its header first."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [entry.name for entry in fields(LossRow)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def read_rows(path: Path) -> list[LossRow]:
    """The loss curve that was written so far."""
    with path.open(newline="") as file:
        return [
            LossRow(**{name: int(value) if name == "step" else float(value) for name, value in row.items()})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]


def keep_rows(path: Path, last_step: int) -> None:
    """Drop the lines after a step, which a resumed training will write again."""
    kept = [row for row in read_rows(path) if row.step <= last_step] if path.exists() else []
    path.unlink(missing_ok=True)
    for row in kept:
        append_row(path, row)


def plot_rows(rows: list[LossRow], path: Path) -> None:
    """Draw the parts of the loss over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    steps = [row.step for row in rows]
    for name in ("similarity", "anchor", "gradient", "regressor"):
        values = [getattr(row, name) for row in rows]
        if any(values):
            axes.plot(steps, values, label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
