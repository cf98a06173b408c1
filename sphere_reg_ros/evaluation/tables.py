"""Tables of the results, in Markdown and LaTeX, with the definitions under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sphere_reg_ros.evaluation.metrics import Summary, summarise
from sphere_reg_ros.evaluation.rows import Row, columns, key_of

RESAMPLES = 2000
DEFINITIONS = (
    "mTRE: mean 3-D distance, in mm, of the landmarks under the estimated and the true pose, in the CT, not projected, "
    "not rescaled; 50/75/95 % are its percentiles over all images, rejected ones with their best estimate.",
    "SMSR: share of images with mTRE < 1 mm. In brackets: 95 % interval, percentile bootstrap over images, 2000 resamples.",
    "mPE: mean distance of the projected landmarks on the detector, mm. mRPE: mean distance from each true landmark to the ray "
    "through its estimated projection, mm. dGeo: sqrt((SDD/2 θ)² + |t|²), mm. All three: medians.",
    "Iterations: renderings, with or without Jacobian. Time: median per image, without reading the CT and compiling.",
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
            interval = smsr_interval(errors)
            lines.append(Line(name, dataset, spread, summary, interval, (mpe, mrpe, dgeo, iterations), p_value))
    return lines


def smsr_interval(errors_mm: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the SMSR in per cent, percentile bootstrap over images (Efron and Tibshirani, 1993, chapter 13)."""
    hits = np.asarray(errors_mm) < 1.0
    drawn = np.random.default_rng(seed).integers(0, len(hits), (RESAMPLES, len(hits)))
    low, high = np.percentile(100.0 * hits[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def paired_p(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Wilcoxon's signed-rank test of paired errors; None where fewer than six pairs differ, which can show nothing."""
    differences = np.array([a - b for a, b in pairs])
    if np.count_nonzero(differences) < 6:
        return None
    return float(stats.wilcoxon(differences).pvalue)


HEADER = (
    "method", "data set", "start spread", "images", "mTRE 50/75/95 % [mm]", "SMSR [%]", "< 2 mm [%]", "< 10 mm [%]", "mPE [mm]",
    "mRPE [mm]", "dGeo [mm]", "accepted [%]", "wrongly accepted [%]", "wrongly rejected [%]", "iterations", "time [s]", "p",
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
        " / ".join(f"{value:.2f}" for value in one.percentiles_mm),
        f"{one.smsr:.0f} [{low:.0f}, {high:.0f}]",
        f"{one.success_2mm:.0f}",
        f"{one.success_10mm:.0f}",
        f"{mpe:.2f}",
        f"{mrpe:.2f}",
        f"{dgeo:.2f}",
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
    for plain, safe in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("#", r"\#"), ("<", r"$<$"), ("²", "$^2$"), ("θ", r"$\theta$")):
        text = text.replace(plain, safe)
    return text
