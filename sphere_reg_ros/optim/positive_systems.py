"""Small symmetric positive definite systems, in batches."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from torch import Tensor


def solve_positive(
    matrix: Float64[Tensor, "b n n"], right: Float64[Tensor, "b n"]
) -> tuple[Float64[Tensor, "b n"], Bool[Tensor, " b"]]:
    """Solutions, and which of the matrices are positive definite; the others' solutions mean nothing.

    On the CPU by Cholesky's factors. Elsewhere by elimination in plain tensor operations: what a library does for a batch on
    CUDA depends on its version, and not all of it can be recorded in a graph.
    """
    if matrix.device.type != "cpu":
        return eliminated(matrix, right)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve(right[..., None], factor)[..., 0], failed == 0


def eliminated(
    matrix: Float64[Tensor, "b n n"], right: Float64[Tensor, "b n"]
) -> tuple[Float64[Tensor, "b n"], Bool[Tensor, " b"]]:
    """`solve_positive` by Gauss-Jordan elimination; its pivots are positive just where the matrix is positive definite.

    No pivots need to be sought: for such matrices elimination in the given order is stable (Higham, "Accuracy and stability
    of numerical algorithms", 2002, chapter 10).
    """
    size = matrix.shape[-1]
    unit = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    rows = torch.cat((matrix, right[..., None]), dim=-1)
    positive = torch.ones_like(right[:, 0], dtype=torch.bool)
    for k in range(size):
        pivot = rows[:, k, k]
        positive = positive & (pivot > 0.0)
        row = rows[:, k] / pivot[:, None]
        rows = rows - (rows[:, :, k] - unit[k])[..., None] * row[:, None, :]
    return rows[..., -1], positive
