"""The relaxed Plackett-Luce loss of lists, in log space.

For an ordered list S1 (K scores) and an unordered set S2 (L scores) that belongs below all of it:

    PL(S1, S2) = Σ_k [ LSE(S1_k, ..., S1_K, S2_1, ..., S2_L) - S1_k ]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def plackett_luce(
    first: Tensor,
    second: Tensor,
    first_length: Tensor | None = None,
    second_length: Tensor | None = None,
) -> Tensor:
    """Loss of each row's list against its set.

    Args:
        first: (n, K) float, scores in the wanted order, best first.
        second: (n, L) float, scores of what belongs below, in any order; -inf counts as absent.
        first_length: (n,) int64 in [0, K], how many of ``first`` count; None: all.
        second_length: (n,) int64 in [0, L], how many of ``second`` count; None: all.

    Returns:
        (n,) losses >= 0; 0 where the list is empty. A score of -inf in the list makes its row's loss inf.

    Raises:
        ValueError: shapes that do not fit together, or a length beyond its list.
    """
    lengths = [
        _checked_length(name, scores, length, len(first))
        for name, scores, length in (("first", first, first_length), ("second", second, second_length))
    ]
    if not all(scores.is_cpu and scores.dtype == torch.float32 for scores in (first, second)):
        return plackett_luce_reference(first, second, first_length, second_length)
    losses: Tensor = _PlackettLuce.apply(first, second, *lengths)  # pyright: ignore[reportAssignmentType]
    return losses


def plackett_luce_reference(
    first: Tensor,
    second: Tensor,
    first_length: Tensor | None = None,
    second_length: Tensor | None = None,
) -> Tensor:
    """Plain-torch twin of :func:`plackett_luce`."""
    # A finite stand-in for -inf: exp of it is 0 all the same, and no gradient becomes inf - inf.
    absent = torch.finfo(first.dtype).min / 4
    second = second.clamp(min=absent)
    if second_length is not None:
        second = second.masked_fill(_beyond(second, second_length), absent)
    below = first.new_full((len(first), 1), absent)
    if second.shape[1] > 0:
        below = torch.logsumexp(second, dim=1, keepdim=True)  # (n, 1)
    if first.shape[1] == 0:
        return first.sum(dim=1) + second[:, :0].sum(dim=1)  # zeros that still have gradients
    masked = first
    if first_length is not None:
        masked = first.masked_fill(_beyond(first, first_length), absent)
    rest = torch.logcumsumexp(masked.flip(1), dim=1).flip(1)  # (n, K): LSE of S1_k..S1_K
    terms = torch.logaddexp(rest, below) - first
    if first_length is not None:
        terms = terms.masked_fill(_beyond(first, first_length), 0.0)
    return terms.sum(dim=1)


def _beyond(scores: Tensor, length: Tensor) -> Tensor:
    """Mask (n, K) of the columns past each row's length."""
    return torch.arange(scores.shape[1], device=scores.device) >= length.unsqueeze(1)


def _checked_length(name: str, scores: Tensor, length: Tensor | None, num_rows: int) -> Tensor:
    if scores.dim() != 2 or len(scores) != num_rows:
        raise ValueError(f"expected {name} of shape ({num_rows}, width), found {tuple(scores.shape)}")
    width = scores.shape[1]
    if length is None:
        return torch.full((num_rows,), width, device=scores.device)
    if length.shape != (num_rows,):
        raise ValueError(f"expected {name}_length of shape ({num_rows},), found {tuple(length.shape)}")
    if num_rows > 0:
        low, high = torch.aminmax(length)
        if low < 0 or high > width:
            raise ValueError(f"expected {name}_length in 0..{width}, found {int(low)}..{int(high)}")
    return length


class _PlackettLuce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, first_length: Tensor, second_length: Tensor
    ) -> Tensor:
        from recdistill.ops.kernels import plackett_luce as kernels
        from recdistill.ops.kernels import use_torch_threads

        first, second = first.contiguous(), second.contiguous()
        losses = torch.empty(len(first))
        gradients = torch.empty(first.shape), torch.empty(second.shape)
        use_torch_threads(8 * (first.numel() + second.numel()))  # an exponential is worth some reads
        kernels.plackett_luce(
            first.numpy(),
            second.numpy(),
            first_length.long().contiguous().numpy(),
            second_length.long().contiguous().numpy(),
            losses.numpy(),
            gradients[0].numpy(),
            gradients[1].numpy(),
        )
        ctx.save_for_backward(*gradients)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the signature
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        first, second = ctx.saved_tensors
        by_first, by_second = ctx.needs_input_grad[:2]
        column = gradient.unsqueeze(1)
        return first * column if by_first else None, second * column if by_second else None, None, None
