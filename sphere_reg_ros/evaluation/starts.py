"""Where a registration starts: off the truth by a twist about the CT's reference point, drawn from a seed.

======================  ===============================================================================================
``0.5``, ``1``, ...     normal: N(0, 20°) on each axis, N(0, 30 mm) in-plane, N(0, 60 mm) in depth, times the number
``uniform:S``           uniform within ±S times the same figures
``grid:D``              a normal twist scaled until the landmarks are D mm off on average, for the capture range
``grid``                all of ``grid:20``, ``grid:40``, ..., ``grid:160``
======================  ===============================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.evaluation.errors import StartNameError
from sphere_reg_ros.evaluation.metrics import mtre_mm
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import sample_perturbation

FULL_SPREAD = (20.0, 30.0, 60.0)
"""Degrees on each axis, mm in-plane, mm in depth: the starts of spread 1."""
GRID_MM = tuple(range(20, 161, 20))
UNIFORM, GRID = "uniform", "grid"
BISECTIONS = 40
GROWTH = 0.1


@dataclass(frozen=True)
class Start:
    """A way to draw starts: ``normal``, ``uniform`` or ``grid``, and its number."""

    kind: str
    amount: float


def start_of(name: str) -> Start:
    """A start by its name.

    Raises:
        StartNameError: none of the forms above.
    """
    kind, separator, number = name.rpartition(":")
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    known = (UNIFORM, GRID) if separator else ("",)
    if kind not in known or not (amount > 0.0 and math.isfinite(amount)):
        raise StartNameError(f"no start '{name}': give a factor as 0.5, or {UNIFORM}:0.5, {GRID}:40, or {GRID}")
    return Start(kind or "normal", amount)


def expanded(names: Sequence[str]) -> list[str]:
    """Names of starts as they stand in the results; ``grid`` becomes its distances.

    Raises:
        StartNameError: a name that is none.
    """
    found: list[str] = []
    for name in names:
        some = [f"{GRID}:{distance}" for distance in GRID_MM] if name == GRID else [name]
        for one in some:
            start = start_of(one)
            found.append(f"{start.amount:g}" if start.kind == "normal" else f"{start.kind}:{start.amount:g}")
    return list(dict.fromkeys(found))


def draw(
    name: str, T_true: Float64[Tensor, "4 4"], points_mm: Float64[Tensor, "n 3"], centre_ct: Float64[Tensor, "3"], seed: int
) -> Float64[Tensor, "4 4"]:
    """A start; the same arguments give the same one.

    Raises:
        StartNameError: a name that is none.
    """
    start, generator = start_of(name), torch.Generator().manual_seed(seed)
    scale = start.amount if start.kind == "normal" else 1.0
    rotation_deg, in_plane_mm, depth_mm = (scale * value for value in FULL_SPREAD)
    twist = sample_perturbation(generator, rotation_deg, in_plane_mm, depth_mm, 1)[0]
    if start.kind == UNIFORM:
        angle = math.radians(FULL_SPREAD[0])
        reach = torch.tensor([FULL_SPREAD[1], FULL_SPREAD[1], FULL_SPREAD[2], angle, angle, angle], dtype=torch.float64)
        twist = start.amount * reach * (2.0 * torch.rand(6, generator=generator, dtype=torch.float64) - 1.0)
    if start.kind == GRID:
        return _at_distance(start.amount, twist, T_true, points_mm, centre_ct)
    return se3.apply_twist(T_true, twist, centre_ct)


def _at_distance(distance_mm: float, twist: Tensor, T_true: Tensor, points_mm: Tensor, centre_ct: Tensor) -> Tensor:
    low, high = 0.0, GROWTH
    # Beyond half a turn the distance falls again: the first crossing is what is looked for, in small steps.
    while mtre_mm(se3.apply_twist(T_true, high * twist, centre_ct), T_true, points_mm) < distance_mm:
        low, high = high, high + GROWTH
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        near = mtre_mm(se3.apply_twist(T_true, middle * twist, centre_ct), T_true, points_mm) < distance_mm
        low, high = (middle, high) if near else (low, middle)
    return se3.apply_twist(T_true, high * twist, centre_ct)
