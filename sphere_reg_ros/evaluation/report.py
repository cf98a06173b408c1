"""A self-contained HTML report: one table of figures, one row an image, pictures inside the file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from sphere_reg_ros.evaluation.metrics import Summary

STYLE = """body{font-family:sans-serif;margin:2rem;max-width:75rem}table{border-collapse:collapse;margin:1rem 0}
td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:right}td:first-child,th:first-child{text-align:left}
.no{color:#b00}figure{display:inline-block;margin:.5rem}img{width:256px}figcaption{max-width:256px;font-size:.8rem}"""
DEFINITION = (
    "mTRE: mean 3-D distance of the landmarks under the estimated and the true pose, in the CT, not projected, not rescaled. "
    "SMSR: share of images with mTRE below 1 mm. Rejected images count with their best estimate."
)


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """The figures in words, for a terminal and for HTML."""
    low, middle, high = summary.percentiles_mm
    return [
        ("images", str(summary.images)),
        ("mTRE 50 / 75 / 95 % [mm]", f"{low:.3f} / {middle:.3f} / {high:.3f}"),
        ("SMSR (mTRE < 1 mm) [%]", f"{summary.smsr:.1f}"),
        ("mTRE < 2 mm, < 10 mm [%]", f"{summary.success_2mm:.1f}, {summary.success_10mm:.1f}"),
        ("accepted [%]", f"{summary.accepted:.1f}"),
        ("wrongly accepted (> 2 mm) [%]", f"{summary.wrongly_accepted:.1f}"),
        ("wrongly rejected (< 1 mm) [%]", f"{summary.wrongly_rejected:.1f}"),
        ("time per image, median [ms]", f"{summary.median_time_ms:.0f}"),
    ]


def write_report(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    rows: Sequence[Mapping[str, str]],
    pictures: Sequence[tuple[str, UInt8[np.ndarray, "h w 3"]]],
    errors_mm: Sequence[float],
) -> None:
    """Write one HTML file that needs no other.

    Args:
        facts: name and value, the summary first.
        rows: one mapping a image, all with the same keys.
        pictures: caption and RGB overlay.
        errors_mm: for the cumulative plot; empty where there is no ground truth.
    """
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}</style>"]
    parts.append(f"<h1>{html.escape(title)}</h1>")
    parts.append(_table([("", "value"), *facts]))
    if len(errors_mm):
        figure = f"<img style='width:32rem' src='{_cumulative(errors_mm)}' alt='cumulative mTRE'>"
        parts.append(f"<p>{html.escape(DEFINITION)}</p>{figure}")
    if rows:
        header = tuple(rows[0])
        parts.append(_table([header, *(tuple(row[key] for key in header) for row in rows)]))
    for caption, picture in pictures:
        parts.append(f"<figure><img src='{_inline(picture)}' alt=''><figcaption>{html.escape(caption)}</figcaption></figure>")
    parts.append("<p>Research use only. Not a medical device.</p></html>")
    path.write_text("\n".join(parts), encoding="utf-8")


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def _inline(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def _cumulative(errors_mm: Sequence[float]) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    errors = np.sort(np.maximum(np.asarray(errors_mm, dtype=float), 1e-3))
    figure = Figure(figsize=(6.0, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.step(errors, 100.0 * np.arange(1, len(errors) + 1) / len(errors), where="post")
    axes.axvline(1.0, color="0.6", linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel("mTRE [mm]")
    axes.set_ylabel("images [%]")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
