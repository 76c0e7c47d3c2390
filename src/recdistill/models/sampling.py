"""Batches of (user, positive, negatives) rows, drawn without a mask and without a loop over users."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch

_DRAWN_AT_ONCE = 1 << 17
"""Negatives drawn in one call: enough to amortise it, little enough to stay small."""


def pair_batches(
    interactions: Interactions, batch_size: int, num_negatives: int, generator: torch.Generator
) -> Iterator[Batch]:
    """One epoch over all observed pairs in random order, each with uniform unobserved items.

    Args:
        interactions: the pairs to train on.
        batch_size: rows a step, at least 1; the last batch may be shorter.
        num_negatives: unobserved items a row, 0 for none; users who have seen everything have no rows.
        generator: a CPU generator; the same state gives the same epoch.
    """
    row_users = interactions.users
    order = torch.randperm(interactions.num_pairs, generator=generator)
    rows = _DRAWN_AT_ONCE // max(num_negatives, 1)
    step = max(batch_size, rows // batch_size * batch_size)
    for start in range(0, len(order), step):
        chosen = order[start : start + step]
        users = row_users[chosen].long()
        positives = interactions.items[chosen].long()
        negatives = None
        if num_negatives > 0:
            negatives = interactions.sample_unobserved(users, num_negatives, generator)  # (step, m)
            drawn = negatives[:, 0] >= 0
            if not bool(drawn.all()):
                users, positives, negatives = users[drawn], positives[drawn], negatives[drawn]
        for begin in range(0, len(users), batch_size):
            part = slice(begin, begin + batch_size)
            yield make_batch(
                users[part],
                positives[part],
                None if negatives is None else negatives[part],
                interactions.num_users,
                interactions.num_items,
            )


def row_batches(
    interactions: Interactions,
    batch_size: int,
    num_negatives: int,
    generator: torch.Generator,
    *,
    by_item: bool = False,
) -> Iterator[Batch]:
    """One epoch over all users in random order, each with all of its pairs in one batch.

    Args:
        interactions: the pairs to train on.
        batch_size: pairs a step, at least 1; a step ends with the user who reaches it, so it may have more.
        num_negatives: unobserved items a pair, 0 for none; users who have seen everything have no pairs.
        generator: a CPU generator; the same state gives the same epoch.
        by_item: all pairs of some items a step, instead of some users.
    """
    rows = interactions.transpose() if by_item else interactions
    order = torch.randperm(rows.num_users, generator=generator)
    order = order[rows.user_counts[order] > 0]
    counts = rows.user_counts[order]
    steps = (counts.cumsum(0) - counts) // batch_size
    sizes = torch.unique_consecutive(steps, return_counts=True)[1]
    for chosen in order.split(sizes.tolist()):
        taken = rows.rows(chosen)
        owners, others = torch.repeat_interleave(chosen, taken.indptr.diff()), taken.items.long()
        users, positives = (others, owners) if by_item else (owners, others)
        negatives = None
        if num_negatives > 0:
            negatives = interactions.sample_unobserved(users, num_negatives, generator)  # (n, m)
            drawn = negatives[:, 0] >= 0
            if not bool(drawn.all()):
                users, positives, negatives = users[drawn], positives[drawn], negatives[drawn]
        if len(users) > 0:
            yield make_batch(users, positives, negatives, interactions.num_users, interactions.num_items)


def make_batch(
    users: Tensor, positives: Tensor, negatives: Tensor | None, num_users: int, num_items: int
) -> Batch:
    """A batch from one user, one positive and some negatives a row."""
    unique, row = ops.unique_inverse(users, num_users)
    return Batch(users=unique, row=row, positives=positives, negatives=negatives, num_items=num_items)
