"""Ranking metrics as pure functions of top-k lists, or of ranks.

With ``h_r = 1`` where the item at rank ``r`` (from 1) is a target, ``n`` the number of targets of the user::

    recall@k    = Σ_{r<=k} h_r / n
    precision@k = Σ_{r<=k} h_r / k
    hit@k       = 1 if any h_r with r <= k
    mrr@k       = 1 / (the smallest r <= k with h_r = 1), 0 without one
    ndcg@k      = Σ_{r<=k} h_r / log2(r + 1)  /  Σ_{r<=min(k, n)} 1 / log2(r + 1)

These are trec_eval's definitions (binary gain) but for MRR, which is cut at ``k``. Every value belongs to
one user and is summed in the order of the ranks, in float64, so it depends on no other user, block or thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recdistill.ops import Rows, contains, owners_of
from recdistill.ops.lists import common_items

ACCURACY = ("recall", "ndcg", "mrr", "hit", "precision")


class Hits(NamedTuple):
    """The targets that were found in the lists, by user row and then by rank.

    Attributes:
        row: (h,) int64, position of the user in the block.
        rank: (h,) int64, rank of the target in the list, from 1.
        item: (h,) int64, the target.
        num_targets: (n,) int64, targets of each user of the block, found or not.
    """

    row: Tensor
    rank: Tensor
    item: Tensor
    num_targets: Tensor


def find_hits(ids: Tensor, targets: Rows) -> Hits:
    """Find the targets in the lists.

    Args:
        ids: (n, k) int64 item ids, best first, padded with -1.
        targets: the n users' targets, as sorted rows.
    """
    found = contains(targets.indptr, targets.items, torch.arange(len(ids)), ids)  # (n, k)
    row, position = found.nonzero(as_tuple=True)
    return Hits(row, position + 1, ids[row, position], targets.indptr.diff())


def list_metrics(ids: Tensor, targets: Rows, ks: Sequence[int]) -> dict[str, Tensor]:
    """The accuracy metrics of each user's list.

    Args:
        ids: (n, max(ks) or more) int64 item ids, best first, padded with -1.
        targets: the n users' targets, as sorted rows.
        ks: the cut-offs, each at least 1.

    Returns:
        ``recall@k``, ``ndcg@k``, ``mrr@k``, ``hit@k``, ``precision@k`` for each k: (n,) float64, NaN for
        users without a target.
    """
    return hit_metrics(find_hits(ids, targets), ks)


def hit_metrics(hits: Hits, ks: Sequence[int]) -> dict[str, Tensor]:
    """The accuracy metrics of each user, from the hits; see `list_metrics`."""
    num_rows = len(hits.num_targets)
    ideal = _cumulative_discount(max(ks))
    missing = hits.num_targets == 0
    values: dict[str, Tensor] = {}
    for k in ks:
        kept = hits.rank <= k
        row, rank = hits.row[kept], hits.rank[kept]
        count = torch.bincount(row, minlength=num_rows).double()
        # bincount adds in the order given, by rank within a row: a perfect list is exactly 1
        gain = torch.bincount(row, weights=_discount(rank), minlength=num_rows)
        first = torch.zeros(num_rows, dtype=torch.float64)
        first.scatter_reduce_(0, row, 1.0 / rank.double(), "amax")
        values[f"recall@{k}"] = count / hits.num_targets
        values[f"ndcg@{k}"] = gain / ideal[hits.num_targets.clamp(max=k)]
        values[f"mrr@{k}"] = first
        values[f"hit@{k}"] = (count > 0).double()
        values[f"precision@{k}"] = count / k
    return {name: value.masked_fill_(missing, torch.nan) for name, value in values.items()}


def rank_metrics(ranks: Tensor, indptr: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """The accuracy metrics of targets that were each ranked alone among candidates (the sampled protocol).

    Every target is a list with one relevant item; a user's value is the mean over the user's targets.
    Recall and hit rate are then the same number, and ndcg is ``1 / log2(rank + 1)``.

    Args:
        ranks: (t,) int64 ranks from 1, grouped by user.
        indptr: (n + 1,) int64, where each user's targets begin.
        ks: the cut-offs.

    Returns:
        as `list_metrics`.
    """
    counts = indptr.diff()
    row = owners_of(counts)
    values: dict[str, Tensor] = {}

    def mean(each: Tensor) -> Tensor:
        return torch.bincount(row, weights=each, minlength=len(counts)) / counts  # 0 / 0 is NaN: no target

    for k in ks:
        kept = (ranks <= k).double()
        values[f"recall@{k}"] = mean(kept)
        values[f"ndcg@{k}"] = mean(kept * _discount(ranks))
        values[f"mrr@{k}"] = mean(kept / ranks)
        values[f"hit@{k}"] = mean(kept)
        values[f"precision@{k}"] = mean(kept / k)
    return values


def group_recall(hits: Hits, targets: Rows, groups: Tensor, num_groups: int, k: int) -> Tensor:
    """Recall@k over the targets of each item group.

    Args:
        hits: the targets found.
        targets: all targets of the same users.
        groups: (I,) int64, the group of each item, in [0, num_groups).
        num_groups: number of groups.
        k: the cut-off.

    Returns:
        (n, num_groups) float64, NaN where a user has no target in the group.
    """
    num_rows = len(hits.num_targets)
    size = num_rows * num_groups
    owner = owners_of(hits.num_targets)
    total = torch.bincount(owner * num_groups + groups[targets.items.long()], minlength=size)
    kept = hits.rank <= k
    found = torch.bincount(hits.row[kept] * num_groups + groups[hits.item[kept]], minlength=size)
    return (found.double() / total).view(num_rows, num_groups)


def overlap(ids: Tensor, reference: Tensor, ks: Sequence[int], num_items: int) -> dict[str, Tensor]:
    """The share of the reference's top k that is in the top k of the lists.

    Args:
        ids: (n, max(ks) or more) int64 item ids, best first, padded with -1.
        reference: the same, of the teacher, integers.
        ks: the cut-offs.
        num_items: size of the catalogue.

    Returns:
        ``overlap@k``: (n,) float64, NaN where the reference's list is empty.
    """
    shared = common_items(ids, reference, ks, num_items).double()  # (n, cut-offs)
    lengths = (reference >= 0).sum(1)
    return {f"overlap@{k}": shared[:, place] / lengths.clamp(max=k) for place, k in enumerate(ks)}


class Coverage:
    """Counts the distinct items in the top k of all lists, block after block.

    Args:
        num_items: size of the catalogue.
        ks: the cut-offs.
    """

    def __init__(self, num_items: int, ks: Sequence[int]) -> None:
        self._ks = sorted(set(ks))
        self._seen = [torch.zeros(num_items, dtype=torch.bool) for _ in self._ks]

    def add(self, ids: Tensor) -> None:
        """Count the lists (n, k) int64 of some users."""
        start = 0
        for seen, k in zip(self._seen, self._ks, strict=True):
            part = ids[:, start:k].reshape(-1)
            seen[part[part >= 0]] = True
            start = k

    def value(self) -> dict[str, float]:
        """``coverage@k``: the share of all items that stand in the top k of at least one user."""
        shares: dict[str, float] = {}
        seen = torch.zeros_like(self._seen[0])
        for k, part in zip(self._ks, self._seen, strict=True):
            seen |= part
            shares[f"coverage@{k}"] = int(seen.sum()) / max(len(seen), 1)
        return shares


def _discount(rank: Tensor) -> Tensor:
    return 1.0 / torch.log2(rank.double() + 1.0)


def _cumulative_discount(k: int) -> Tensor:
    """(k + 1,) float64: the gain of a list whose first 0, 1, …, k items are all targets."""
    return torch.cat([torch.zeros(1, dtype=torch.float64), _discount(torch.arange(1, k + 1)).cumsum(0)])
