"""Fit the gate's probability to registrations with known errors, and check the covariance's scale.

    python benchmarks/calibrate_gate.py ROWS.csv [--out sphere_reg_ros/registration/gate.json]

The rows are those of `benchmarks/accuracy.py`, from seeds that no reported figure uses: full-spread and half-spread starts,
whole and cut CTs, and X-rays of another patient. The logistic model has L2 regularisation on standardised features and signs
that make sense (a score that rises never makes a registration less probable). It is judged on each CT by a model that saw the
others only.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import chi2

from sphere_reg_ros.registration.probability import FEATURES, RIGHT_MM, features

Array = NDArray[np.float64]
L2 = 2e-3


def table(path: Path) -> tuple[Array, NDArray[np.bool_], NDArray[np.str_], Array]:
    """Features, right or wrong, registered CT, and chi-square of every row."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [
        {key.removeprefix("score_"): float(value) for key, value in row.items() if key.startswith("score_")} for row in rows
    ]
    values = [
        features({**score, "expected_error_mm": float(row["expected_error_mm"])}) for score, row in zip(scores, rows, strict=True)
    ]
    right = np.array([float(row["mtre_mm"]) < RIGHT_MM for row in rows])
    patients = np.array([row["case"].split()[0] for row in rows])
    return np.array(values), right, patients, np.array([float(row["chi_square"]) for row in rows])


def fit(values: Array, right: NDArray[np.bool_]) -> tuple[float, Array]:
    """Intercept and coefficients."""
    mean, deviation = values.mean(0), values.std(0) + 1e-9
    design = (values - mean) / deviation
    sign = np.where(right, 1.0, -1.0)

    def loss(parameters: Array) -> float:
        margin = sign * (parameters[0] + design @ parameters[1:])
        return float(np.logaddexp(0.0, -margin).mean() + L2 * np.square(parameters[1:]).sum())

    count = values.shape[1]
    solution = minimize(loss, np.zeros(count + 1), method="L-BFGS-B", bounds=[(None, None), *[(0.0, None)] * count]).x
    coefficients = solution[1:] / deviation
    return float(solution[0] - coefficients @ mean), coefficients


def probability(values: Array, model: tuple[float, Array]) -> Array:
    """The model's answer."""
    return np.asarray(1.0 / (1.0 + np.exp(-(model[0] + values @ model[1]))))


def print_thresholds(name: str, estimate: Array, right: NDArray[np.bool_]) -> None:
    """What each threshold would accept wrongly and reject wrongly."""
    print(f"{name}: {right.sum()} right, {(~right).sum()} wrong")
    for limit in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        wrong, lost = (estimate >= limit) & ~right, (estimate < limit) & right
        share = 100 * lost.sum() / right.sum()
        print(f"  at {limit:.2f}: {wrong.sum():3d} wrong accepted, {lost.sum():3d} right rejected ({share:.1f} %)")


def covariance_ratio(chi_square: Array) -> float:
    """Median squared Mahalanobis length over that of a chi-square of six degrees of freedom; 1 where the covariance is right."""
    return float(np.median(chi_square) / chi2.ppf(0.5, 6))


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge by leaving one CT out, fit to all, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    values, right, patients, chi_square = table(args.rows)
    for patient in sorted(set(patients)):
        held_out = patients == patient
        print_thresholds(
            f"{patient}, by a model of the others",
            probability(values[held_out], fit(values[~held_out], right[~held_out])),
            right[held_out],
        )
    model = fit(values, right)
    print_thresholds("all, by the model of all", probability(values, model), right)
    content = {
        "intercept": round(model[0], 4),
        "coefficients": {name: round(float(weight), 4) for name, weight in zip(FEATURES, model[1], strict=True)},
        "images": len(right),
        "wrong": int((~right).sum()),
    }
    print(json.dumps(content, indent=2))
    print(f"GateSettings.covariance_scale should be {covariance_ratio(chi_square[right]):.3f} times what it is")
    if args.out:
        args.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
