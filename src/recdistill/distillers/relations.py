"""Squared differences between two sets' cosines over all pairs of a group, value and gradient at once.

With unit rows S and T of one group, Σ_ij (s_i·s_j − t_i·t_j)² = ‖SᵀS‖² + ‖TᵀT‖² − 2 ‖SᵀT‖² (Frobenius norms), so no
matrix of pairs is needed. Where pairs are filtered by sign there is no such form: then pairs exist one block of
rows of one group at a time, each unordered pair once, as they do in groups so small that this is less work.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BLOCK_ROWS = 128
"""Rows of one block, so few that its pairs with a thousand others stay in a core's cache; or columns."""


def relation_error(student: Tensor, teacher: Tensor, sizes: list[int], positive_only: bool) -> Tensor:
    """Mean over ordered pairs (i, j) of one group, i = j too, of (s_i·s_j − t_i·t_j)².

    Args:
        student: unit rows, sorted by group, shape ``(n, dS)``; the gradient goes here alone.
        teacher: unit rows in the same order, shape ``(n, dT)``.
        sizes: rows of each group; they add up to n.
        positive_only: count only pairs whose teacher cosine is above 0.
    """
    with torch.autocast(student.device.type, enabled=False):
        teacher = teacher.detach().to(student.dtype)
        return _RelationError.apply(student, teacher, sizes, positive_only)  # pyright: ignore[reportReturnType]


class _RelationError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, sizes: list[int], positive_only: bool) -> Tensor:
        gradient = torch.empty_like(student)
        total = student.new_zeros((), dtype=torch.float64)
        pairs = torch.zeros((), dtype=torch.int64, device=student.device)
        for s, t, out in zip(student.split(sizes), teacher.split(sizes), gradient.split(sizes), strict=True):
            if (
                positive_only or len(s) < t.shape[1]
            ):  # few rows: their pairs are less work than d × d products
                value, count = _in_blocks(s, t, out, positive_only)
            else:
                value, count = _all_pairs(s, t, out), len(s) ** 2
            total, pairs = total + value, pairs + count
        count = pairs.clamp(min=1)
        ctx.save_for_backward(gradient / count)
        return (total / count).to(student.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None


def _all_pairs(s: Tensor, t: Tensor, gradient: Tensor) -> Tensor:
    """The sum over one group by the Gram form; its gradient is written to ``gradient``."""
    own, cross = s.T @ s, (s.T @ t).T  # (dS, dS), (dT, dS)
    torch.mm(s, own, out=gradient)
    gradient.sub_(t @ cross).mul_(4)
    return _square(own) + _gram_square(t) - 2 * _square(cross)


def _in_blocks(s: Tensor, t: Tensor, gradient: Tensor, positive_only: bool) -> tuple[Tensor, Tensor | int]:
    """The sum over one group's pairs, all or those of positive teacher cosine, and how many there are.

    A block of rows meets only the rows from its own first one on; pairs of two blocks count twice.
    """
    total = s.new_zeros((), dtype=torch.float64)
    pairs = torch.zeros((), dtype=torch.int64, device=s.device)
    gradient.zero_()
    for start in range(0, len(s), _BLOCK_ROWS):
        block_s, block_t = s[start : start + _BLOCK_ROWS], t[start : start + _BLOCK_ROWS]
        own = len(block_s)
        wanted = block_t @ t[start:].T  # (own, n − start)
        error = (block_s @ s[start:].T).sub_(wanted)
        if positive_only:
            counted = wanted > 0
            error.mul_(counted)
            pairs = pairs + 2 * counted.sum() - counted[:, :own].sum()
        every, within = error.view(-1), error[:, :own].reshape(-1)
        total = total + 2 * every.dot(every).double() - within.dot(within).double()
        gradient[start : start + own].addmm_(error, s[start:])
        gradient[start + own :].addmm_(error[:, own:].T, block_s)
    gradient.mul_(4)
    return total, pairs if positive_only else len(s) ** 2


def _gram_square(t: Tensor) -> Tensor:
    """‖TᵀT‖², of which a block of columns meets only those from its own first one on."""
    total = t.new_zeros((), dtype=torch.float64)
    for start in range(0, t.shape[1], _BLOCK_ROWS):
        product = t[:, start : start + _BLOCK_ROWS].T @ t[:, start:]
        total = total + 2 * _square(product) - _square(product[:, : len(product)])
    return total


def _square(matrix: Tensor) -> Tensor:
    """‖matrix‖², added up in float64: the Gram form takes large numbers from one another."""
    return matrix.double().square().sum()
