"""What operations cost: multiplications and parameters counted exactly, and tables of them that a search minimises.

For a sequence of L positions and C channels a convolution of k taps takes L·C·(kC + 1) multiplications and bias
additions and 2LC of batch normalisation, and has kC² + 3C parameters; a pool takes L·C; ``skip`` and ``none`` are free.

    linear    c_o = ½ (MAC_o / Σ MAC + PAR_o / Σ PAR)                    Σ c = 1
    released  c_o = 10 · ½ (softmax_o(MAC / 10⁶) + softmax_o(PAR / 10⁶))   Σ c = 10
    adabert   the same without the factor 10                              Σ c = 1
    latency   c_o = t_o / Σ t, t_o the milliseconds measured of an edge of o     Σ c = 1

Before the softmax a count of 0 becomes 1, as published. The table shipped with the published code is ``released`` at
L = 100, C = 128; at a student's size that softmax is nearly flat, so that being larger hardly costs anything.
``released`` is a sum over the edges of one cell, the others are means over edges times K / K_max.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recdistill.models.architecture import OPERATIONS

CostName = Literal["linear", "adabert", "released", "latency"]
CountedName = Literal["linear", "adabert", "released"]
SHIPPED = 100, 128
"""Length and channels of the published table."""


class Count(NamedTuple):
    """What one operation takes on one sequence."""

    macs: int
    parameters: int


def count(name: str, length: int, dim: int) -> Count:
    """Multiplications and parameters of an operation on ``length`` positions of ``dim`` channels."""
    operation = OPERATIONS[name]
    if operation.kind == "conv":
        taps = operation.kernel * dim
        return Count(length * dim * (taps + 1) + 2 * length * dim, taps * dim + 3 * dim)
    return Count(length * dim, 0) if operation.kind in ("max", "avg") else Count(0, 0)


def cost_table(form: CountedName, names: Sequence[str], length: int, dim: int) -> Tensor:
    """c of each operation, float64, shape ``(operations,)``.

    Args:
        form: see above.
        names: the candidates.
        length: L.
        dim: C.
    """
    counts = torch.tensor([count(name, length, dim) for name in names], dtype=torch.float64)  # (o, 2)
    if form == "linear":
        return (counts / counts.sum(dim=0).clamp(min=1)).mean(dim=1)
    shares = torch.softmax(torch.where(counts == 0, 1.0, counts) / 1e6, dim=0)
    return shares.mean(dim=1) * (10 if form == "released" else 1)


def latency_table(milliseconds: Sequence[float]) -> Tensor:
    """c of each operation from what an edge of it was measured to take, float64, shape ``(operations,)``."""
    taken = torch.tensor(milliseconds, dtype=torch.float64)
    return taken / taken.sum().clamp(min=1e-12)


def cell_cost(
    choices: Tensor, table: Tensor, form: CostName, cells: Tensor | float, max_cells: int
) -> Tensor:
    """L_E of the choices of one forward pass, scalar; gradients flow to them.

    Args:
        choices: z, shape ``(edges, operations)``.
        table: c, shape ``(operations,)``.
        form: how the edges' costs are put together.
        cells: K, a number or the choice's own expectation.
        max_cells: K_max.
    """
    edges = choices @ table.to(choices)
    return edges.sum() if form == "released" else edges.mean() * cells / max_cells
