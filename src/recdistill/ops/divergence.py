"""Divergence of two softmaxes over the whole catalogue, a tile of scores at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recdistill.ops.tiles import tile_rows

_NOTHING = -1e30
"""Score of both sides where an item takes no part: no probability, and no difference."""
_TILE_SCORES = 1 << 19
"""Scores of the student held at once on a CPU, but for tiles of the least rows; there are as many targets."""


def softmax_divergence(
    rows: Tensor,
    items: Tensor,
    bias: Tensor | None,
    targets: Callable[[slice], Tensor],
    temperature: float = 1.0,
    reverse: bool = False,
    exclude: Callable[[slice], tuple[Tensor, Tensor]] | None = None,
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
        exclude: of a slice of the rows, which row of it and which item take no part, shape ``(m,)`` each; a row
            without others gives 0.

    Returns:
        Scalar.
    """
    loss: Tensor = _SoftmaxDivergence.apply(rows, items, bias, targets, temperature, reverse, exclude)  # pyright: ignore[reportAssignmentType]
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
        exclude: Callable[[slice], tuple[Tensor, Tensor]] | None,
    ) -> Tensor:
        full = torch.float64 if rows.dtype == torch.float64 else torch.float32
        device = rows.device
        left, right = rows.to(full), items.to(full)
        across = right.T.contiguous()  # products with it and sums into its shape are twice as fast
        with torch.autocast(device.type, enabled=False):
            by_row, by_item = torch.empty_like(left), torch.zeros_like(across)
            by_bias = None if bias is None else torch.zeros_like(bias)
            total = torch.zeros((), dtype=torch.float64, device=device)
            size = tile_rows(len(items), device, _TILE_SCORES)
            buffer = torch.empty(min(size, len(rows)), len(items), dtype=full, device=device)
            for start in range(0, len(rows), size):
                own = slice(start, min(start + size, len(rows)))
                scores = torch.mm(left[own], across, out=buffer[: own.stop - own.start])
                if bias is not None:
                    scores += bias
                scores /= temperature
                wanted = targets(own).to(full) / temperature
                if exclude is not None:
                    place = exclude(own)
                    scores[place] = wanted[place] = _NOTHING
                value, gradient = _tile_divergence(scores, wanted, reverse)
                total += value.sum(dtype=torch.float64)
                by_row[own] = gradient @ right
                by_item.addmm_(left[own].T, gradient)
                if by_bias is not None:
                    by_bias += gradient.sum(dim=0)
        by_item = by_item.T.contiguous()
        ctx.save_for_backward(by_row, by_item, by_bias)
        ctx.scale = temperature / len(rows)
        return (temperature**2 * total / len(rows)).to(full)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        scale = gradient * ctx.scale
        by_row, by_item, by_bias = (None if g is None else g * scale for g in ctx.saved_tensors)
        return by_row, by_item, by_bias, None, None, None, None


def _tile_divergence(scores: Tensor, targets: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """KL of each row, (m,), and its gradient by the scores, (m, I), in the place of ``scores``; overwrites ``targets``.

    KL(p ‖ q) = Σ p (x - y) - log Σ e^x + log Σ e^y for p, q = softmax x, softmax y.
    """
    own, other = scores.amax(dim=1), targets.amax(dim=1)
    wanted = torch.softmax(targets, dim=1)
    apart = torch.sub(targets, scores, out=targets)
    shares = torch.softmax(scores, dim=1, out=scores)
    # the largest share is 1 / Σ exp(s − largest), which never underflows
    own, other = own - shares.amax(dim=1).log(), other - wanted.amax(dim=1).log()
    if reverse:
        mean = torch.linalg.vecdot(shares, apart)
        return other - own - mean, shares.mul_(mean[:, None] - apart)
    return torch.linalg.vecdot(wanted, apart) - other + own, shares.sub_(wanted)
