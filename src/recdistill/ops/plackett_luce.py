"""The relaxed Plackett-Luce loss of lists, in log space.

For an ordered list S1 (K scores) and an unordered set S2 (L scores) that belongs below all of it:

    PL(S1, S2) = Σ_k [ LSE(S1_k, ..., S1_K, S2_1, ..., S2_L) - S1_k ]
"""

from __future__ import annotations

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
        (n,) losses >= 0; 0 where the list is empty.
    """
    return plackett_luce_reference(first, second, first_length, second_length)


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
        return first.sum(dim=1) + 0.0 * second.sum(dim=1)
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
