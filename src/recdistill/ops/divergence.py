"""Divergence of two softmaxes over the whole catalogue, a tile of scores at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TILE_ROWS = 256
_TILE_SCORES = 1 << 22


def softmax_divergence(
    rows: Tensor,
    items: Tensor,
    bias: Tensor | None,
    targets: Callable[[slice], Tensor],
    temperature: float = 1.0,
    reverse: bool = False,
) -> Tensor:
    """τ² · mean over n of KL(softmax(t/τ) ‖ softmax(s/τ)), with s = rows · itemsᵀ + bias.

    The gradient of a tile is made with its value, so that never more than a tile of scores is in memory.

    Args:
        rows: (n, d), n at least 1.
        items: (I, d).
        bias: (I,), or None.
        targets: the scores t of a slice of the rows, (m, I); no gradient flows to them.
        temperature: τ, above 0.
        reverse: KL(softmax(s/τ) ‖ softmax(t/τ)).

    Returns:
        Scalar.
    """
    loss: Tensor = _SoftmaxDivergence.apply(rows, items, bias, targets, temperature, reverse)  # pyright: ignore[reportAssignmentType]
    return loss


def divergence(scores: Tensor, targets: Tensor, temperature: float = 1.0, reverse: bool = False) -> Tensor:
    """τ² · KL of each row over the entries that are there, shape ``(n,)``.

    Args:
        scores: s, shape ``(n, m)``.
        targets: t, shape ``(n, m)``, −inf where an entry is padding; a row without entries gives 0.
        temperature: τ, above 0.
        reverse: KL(softmax(s/τ) ‖ softmax(t/τ)).
    """
    present = torch.isfinite(targets)
    none = ~present.any(dim=1, keepdim=True)
    absent = ~present & ~none
    own, other = (
        torch.log_softmax((x.masked_fill(none, 0.0) / temperature).masked_fill(absent, -torch.inf), dim=1)
        for x in (scores, targets)
    )
    first, second = (own, other) if reverse else (other, own)
    terms = first.exp() * (first - second).masked_fill(~present, 0.0)
    return temperature**2 * terms.sum(dim=1)


class _SoftmaxDivergence(torch.autograd.Function):
    @staticmethod
    @torch.no_grad()
    def forward(
        ctx: Any,
        rows: Tensor,
        items: Tensor,
        bias: Tensor | None,
        targets: Callable[[slice], Tensor],
        temperature: float,
        reverse: bool,
    ) -> Tensor:
        accumulate = torch.float64 if rows.dtype == torch.float64 else torch.float32
        left, right = rows.to(accumulate), items.to(accumulate)
        with torch.autocast(rows.device.type, enabled=False):
            by_row, by_item = torch.empty_like(left), torch.zeros_like(right)
            by_bias = None if bias is None else torch.zeros_like(bias)
            total = torch.zeros((), dtype=torch.float64, device=rows.device)
            tile = max(16, min(_TILE_ROWS, _TILE_SCORES // max(len(right), 1)))
            for start in range(0, len(rows), tile):
                own = slice(start, min(start + tile, len(rows)))
                scores = left[own] @ right.T
                if bias is not None:
                    scores += bias
                student = torch.log_softmax(scores / temperature, dim=1)
                teacher = torch.log_softmax(targets(own).to(scores) / temperature, dim=1)
                if reverse:
                    shares, apart = student.exp(), student - teacher
                    value = (shares * apart).sum(dim=1, keepdim=True)
                    gradient = shares * (apart - value)
                else:
                    wanted = teacher.exp()
                    value = (wanted * (teacher - student)).sum(dim=1, keepdim=True)
                    gradient = student.exp() - wanted
                total += value.sum(dtype=torch.float64)
                by_row[own] = gradient @ right
                by_item.addmm_(gradient.T, left[own])
                if by_bias is not None:
                    by_bias += gradient.sum(dim=0)
        ctx.save_for_backward(by_row, by_item, by_bias)
        ctx.scale = temperature / len(rows)
        return (temperature**2 * total / len(rows)).to(accumulate)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        scale = gradient * ctx.scale
        by_row, by_item, by_bias = (None if g is None else g * scale for g in ctx.saved_tensors)
        return by_row, by_item, by_bias, None, None, None
