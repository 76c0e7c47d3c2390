"""Kernels of ``recdistill.ops.experts``: what lies between the matrix products, in one pass each."""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Floats = NDArray[np.float32]


@kernel(parallel=True, reorder=True)
def gate(hidden: Floats, selection: Floats, mixed: Floats) -> None:
    """hidden (n, M·h) becomes relu(hidden); mixed (n, M·h) is that times the expert's selection (n, M)."""
    rows, num_experts = selection.shape
    width = hidden.shape[1] // num_experts
    for row in prange(rows):
        for expert in range(num_experts):
            chosen = selection[row, expert]
            for unit in range(expert * width, (expert + 1) * width):
                value = max(hidden[row, unit], np.float32(0))
                hidden[row, unit] = value
                mixed[row, unit] = value * chosen


@kernel(parallel=True, reorder=True)
def gate_back(hidden: Floats, selection: Floats, back: Floats, grad_selection: Floats) -> None:
    """back (n, M·h), the gradient of ``mixed``, becomes that before the relu; grad_selection (n, M) is added to."""
    rows, num_experts = selection.shape
    width = hidden.shape[1] // num_experts
    for row in prange(rows):
        for expert in range(num_experts):
            chosen = selection[row, expert]
            total = np.float32(0)
            for unit in range(expert * width, (expert + 1) * width):
                value = hidden[row, unit]
                gradient = back[row, unit]
                total += gradient * value
                back[row, unit] = gradient * chosen if value > 0 else np.float32(0)
            grad_selection[row, expert] += total


@kernel(parallel=True, reorder=True)
def error_rows(error: Floats, row_weight: Floats, losses: Floats) -> None:
    """losses (n,) = w ‖error‖² of each row; error (n, d) becomes 2 w error."""
    for row in prange(error.shape[0]):
        total = np.float32(0)
        twice = 2 * row_weight[row]
        for column in range(error.shape[1]):
            value = error[row, column]
            total += value * value
            error[row, column] = twice * value
        losses[row] = row_weight[row] * total
