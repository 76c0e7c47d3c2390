"""How popular the recommended items are: groups of equal share of the train interactions, and the lift."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions

NUM_GROUPS = 5


def popularity_groups(item_counts: Tensor, num_groups: int = NUM_GROUPS) -> Tensor:
    """Cut the items, least popular first, into groups of about equal share of the train interactions.

    Laid end to end by ascending train count (equal counts by index), each item takes up as much as it has
    interactions; it belongs to the group that its middle falls into. Group 0 is the tail, items unseen in train
    among them; a group is empty where one item has more than a group's share.

    Args:
        item_counts: (I,) int64, train interactions of each item.
        num_groups: at least 1.

    Returns:
        (I,) int64 in [0, num_groups).
    """
    order = item_counts.argsort(stable=True)
    ascending = item_counts[order]
    before = ascending.cumsum(0) - ascending
    total = max(int(item_counts.sum()), 1)
    groups = torch.empty_like(order)
    groups[order] = torch.div(num_groups * (2 * before + ascending), 2 * total, rounding_mode="floor")
    return groups


def list_popularity(ids: Tensor, item_counts: Tensor) -> Tensor:
    """The mean train count of the items in each list.

    Args:
        ids: (n, k) int64, padded with -1.
        item_counts: (I,) int64.

    Returns:
        (n,) float64, NaN for empty lists.
    """
    real = ids >= 0
    total = item_counts[ids.clamp(min=0)].masked_fill_(~real, 0).sum(1)
    return total.double() / real.sum(1)


def profile_popularity(train: Interactions, users: Tensor) -> float:
    """The mean over users of the mean train count of their own train items (users without any left out).

    `popularity_lift` of a user is `list_popularity` over this one number, so that its mean over users is
    the ratio
    of the two averages: 1 where the lists are as popular as what the users chose themselves.

    Args:
        train: the train interactions.
        users: (n,) int64, the users averaged over.

    Returns:
        the mean, NaN where none of the users has train items.
    """
    counts = train.item_counts[train.items.long()]
    running = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    total = running[train.indptr[users + 1]] - running[train.indptr[users]]
    lengths = train.user_counts[users]
    known = lengths > 0
    return float((total[known].double() / lengths[known]).mean())
