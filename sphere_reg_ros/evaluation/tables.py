"""Tables of the results, in Markdown and LaTeX, with the definitions under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sphere_reg_ros.evaluation.metrics import SUBMILLIMETRE_MM, Summary, bootstrap_interval, capture_range_mm, summarise
from sphere_reg_ros.evaluation.rows import Row, columns, key_of

PERCENTILES = (50.0, 75.0, 95.0)
DEFINITIONS = (
    "mTRE: mean 3-D distance, in mm, of the landmarks under the estimated and the true pose, in the CT, not projected, "
    "not rescaled; 50/75/95 % are its percentiles over all images, rejected ones with their best estimate.",
    "SMSR: share of images with mTRE < 1 mm. In brackets: 95 % intervals, percentile bootstrap over images, 2000 resamples.",
    "Start: a number scales N(0, 20°), N(0, 30 mm) in-plane, N(0, 60 mm) in depth about the truth; uniform:S is uniform within "
    "±S times these figures; grid:D has an mTRE of D mm.",
    "mPE: mean distance of the projected landmarks on the detector, mm. mRPE: mean distance from each true landmark to the ray "
    "through its estimated projection, mm. dGeo: sqrt((SDD/2 θ)² + |t|²), mm. All three: medians.",
    "Iterations: renderings, with or without Jacobian. Time: median per image, without reading the CT and compiling.",
    "Capture range: upper end of the last interval of start mTRE, 20 mm wide, up to which each interval that holds images has at "
    "least 95 % of them below 2 mm, over all starts of a data set (van de Kraats 2005).",
    "p: two-sided Wilcoxon signed-rank test of the mTRE against the first method, on the same images from the same starts.",
)


@dataclass(frozen=True)
class Line:
    """The figures of one method on one data set from one spread of starts."""

    method: str
    dataset: str
    spread: str
    summary: Summary
    smsr_interval: tuple[float, float]
    percentile_intervals: tuple[tuple[float, float], ...]
    capture_range_mm: float | None
    medians: tuple[float, float, float, float]
    p_value: float | None


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """One line a method, data set and spread; the first method of each is what the others are tested against."""
    lines = []
    for dataset, spread in dict.fromkeys((row["dataset"], row["spread"]) for row in rows):
        here = [row for row in rows if (row["dataset"], row["spread"]) == (dataset, spread)]
        names = list(dict.fromkeys(row["method"] for row in here))
        reference = {key_of(row)[1:]: float(row["mtre_mm"]) for row in here if row["method"] == names[0]}
        for name in names:
            mine = [row for row in here if row["method"] == name]
            errors = columns(mine, "mtre_mm")
            summary = summarise(errors, [row["accepted"] == "1" for row in mine], columns(mine, "time_ms"))
            names_of_medians = ("mpe_mm", "mrpe_mm", "dgeo_mm", "iterations")
            mpe, mrpe, dgeo, iterations = (float(np.median(columns(mine, one))) for one in names_of_medians)
            pairs = [(float(row["mtre_mm"]), reference[key_of(row)[1:]]) for row in mine if key_of(row)[1:] in reference]
            p_value = None if name == names[0] else paired_p(pairs)
            lines.append(
                Line(
                    name, dataset, spread, summary,
                    smsr_interval(errors),
                    tuple(percentile_interval(errors, percent) for percent in PERCENTILES),
                    _capture_range(rows, name, dataset),
                    (mpe, mrpe, dgeo, iterations),
                    p_value,
                )
            )  # fmt: skip
    return lines


def _capture_range(rows: Sequence[Row], method: str, dataset: str) -> float | None:
    mine = [row for row in rows if (row["method"], row["dataset"]) == (method, dataset)]
    return capture_range_mm(columns(mine, "start_mm"), columns(mine, "mtre_mm"))


def smsr_interval(errors_mm: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the SMSR in per cent."""
    return bootstrap_interval(errors_mm, lambda drawn: 100.0 * (drawn < SUBMILLIMETRE_MM).mean(axis=-1))


def percentile_interval(errors_mm: Sequence[float], percent: float) -> tuple[float, float]:
    """95 % interval of a percentile."""
    return bootstrap_interval(errors_mm, lambda drawn: np.percentile(drawn, percent, axis=-1))


def paired_p(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Wilcoxon's signed-rank test of paired errors; None where fewer than six pairs differ, which can show nothing."""
    differences = np.array([a - b for a, b in pairs])
    if np.count_nonzero(differences) < 6:
        return None
    return float(stats.wilcoxon(differences).pvalue)


LATEX = (
    ("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("#", r"\#"), ("<", r"$<$"), ("²", "$^2$"), ("θ", r"$\theta$"), ("±", r"$\pm$"),
    ("°", r"$^\circ$"),
)  # fmt: skip

HEADER = (
    "method", "data set", "start", "images", "mTRE 50/75/95 % [mm]", "SMSR [%]", "< 2 mm [%]", "< 10 mm [%]", "mPE [mm]",
    "mRPE [mm]", "dGeo [mm]", "capture range [mm]",
    "accepted [%]", "wrongly accepted [%]", "wrongly rejected [%]", "iterations", "time [s]", "p",
)  # fmt: skip


def cells(line: Line) -> tuple[str, ...]:
    """A line as text."""
    one, (low, high) = line.summary, line.smsr_interval
    mpe, mrpe, dgeo, iterations = line.medians
    return (
        line.method,
        line.dataset,
        line.spread,
        str(one.images),
        " / ".join(
            f"{value:.2f} [{least:.2f}, {most:.2f}]"
            for value, (least, most) in zip(one.percentiles_mm, line.percentile_intervals, strict=True)
        ),
        f"{one.smsr:.0f} [{low:.0f}, {high:.0f}]",
        f"{one.success_2mm:.0f}",
        f"{one.success_10mm:.0f}",
        f"{mpe:.2f}",
        f"{mrpe:.2f}",
        f"{dgeo:.2f}",
        "" if line.capture_range_mm is None else f"{line.capture_range_mm:.0f}",
        f"{one.accepted:.0f}",
        f"{one.wrongly_accepted:.0f}",
        f"{one.wrongly_rejected:.0f}",
        f"{iterations:.0f}",
        f"{one.median_time_ms / 1e3:.2f}",
        "" if line.p_value is None else f"{line.p_value:.2g}",
    )


def markdown(lines: Sequence[Line]) -> str:
    """The table with its definitions."""
    body = [HEADER, tuple("---" for _ in HEADER), *(cells(line) for line in lines)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in body)
    return table + "\n\n" + "\n".join(f"- {text}" for text in DEFINITIONS) + "\n"


def latex(lines: Sequence[Line]) -> str:
    """The table for a paper, booktabs, with its definitions."""
    body = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in (HEADER, *(cells(line) for line in lines))]
    rows = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    notes = "\n\n".join(_escaped(text) for text in DEFINITIONS)
    return "\n".join([rf"\begin{{tabular}}{{lll{'r' * (len(HEADER) - 3)}}}", *rows, r"\end{tabular}", "", notes, ""])


def _escaped(text: str) -> str:
    for plain, safe in LATEX:
        text = text.replace(plain, safe)
    return text
