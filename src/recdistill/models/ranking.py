"""Top lists of any state over the whole catalogue, one block of scores at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.models.base import State

_BLOCK_BYTES = 64 << 20
"""Upper bound of one block of scores for models that have no score vectors."""


@torch.no_grad()
def top_items(
    state: State,
    users: Tensor,
    k: int,
    exclude: Sequence[Interactions] = (),
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best ``k`` items of each user, best first, equal scores by smaller index.

    Args:
        state: what scores.
        users: indices, shape ``(n,)``, int64.
        k: list length, at least 1; it may exceed what a user has left, the rest is padded.
        exclude: pairs that must not be listed (their union).
        candidates: the only items that may be listed, ascending unique indices ``(c,)``; all without it.

    Returns:
        ids ``(n, k)`` int64 padded with −1, and scores ``(n, k)`` float32 padded with −inf, on the CPU.
    """
    excluded = _union(exclude)
    vectors = state.score_vectors()
    ids = torch.empty(len(users), k, dtype=torch.int64)
    scores = torch.empty(len(users), k, dtype=torch.float32)
    device = torch.device("cpu") if vectors is None else vectors.items.device
    block = 8192 if vectors is not None else max(1, _BLOCK_BYTES // (4 * state.num_items))
    for start in range(0, len(users), block):
        part = slice(start, start + block)
        chosen = users[part]
        rows = None if excluded is None else ops.Rows(*excluded.rows(chosen))
        if vectors is not None:
            part_scores, part_ids = ops.top_k(
                vectors.users[chosen.to(vectors.users.device)],
                vectors.items,
                k,
                bias=vectors.item_bias,
                exclude=_on(rows, device),
                candidates=None if candidates is None else candidates.to(device),
            )
        else:
            block_scores = state.scores(chosen).float()
            if candidates is not None:
                masked = torch.full_like(block_scores, -torch.inf)
                masked[:, candidates] = block_scores[:, candidates]
                block_scores = masked
            part_scores, part_ids = ops.top_k_dense(block_scores, k, exclude=_on(rows, block_scores.device))
            if candidates is not None:
                part_ids = torch.where(part_scores.isneginf(), -1, part_ids)
        if vectors is not None and vectors.user_bias is not None:
            part_scores = part_scores + vectors.user_bias[chosen.to(device)][:, None]
        ids[part], scores[part] = part_ids.cpu(), part_scores.cpu()
    return ids, scores


@torch.no_grad()
def top_users(
    state: State, items: Tensor, k: int, exclude: Interactions | None = None
) -> tuple[Tensor, Tensor]:
    """The best ``k`` users of each item, as :func:`top_items` with the roles swapped.

    Args:
        state: what scores; it must have score vectors.
        items: indices, shape ``(n,)``, int64.
        k: list length, at least 1.
        exclude: observed pairs (users × items) that must not be listed.
    """
    vectors = state.score_vectors()
    if vectors is None:
        raise ValueError("top_users needs a state with score vectors")
    swapped = None if exclude is None else exclude.transpose()
    ids = torch.empty(len(items), k, dtype=torch.int64)
    scores = torch.empty(len(items), k, dtype=torch.float32)
    users = vectors.users.contiguous()
    for start in range(0, len(items), 8192):
        part = slice(start, start + 8192)
        chosen = items[part]
        rows = None if swapped is None else ops.Rows(*swapped.rows(chosen))
        part_scores, part_ids = ops.top_k(
            vectors.items[chosen.to(users.device)],
            users,
            k,
            bias=vectors.user_bias,
            exclude=_on(rows, users.device),
        )
        if vectors.item_bias is not None:
            part_scores = part_scores + vectors.item_bias[chosen.to(users.device)][:, None]
        ids[part], scores[part] = part_ids.cpu(), part_scores.cpu()
    return ids, scores


def _on(rows: ops.Rows | None, device: torch.device) -> ops.Rows | None:
    return rows if rows is None else ops.Rows(rows.indptr.to(device), rows.items.to(device))


def _union(exclude: Sequence[Interactions]) -> Interactions | None:
    if not exclude:
        return None
    first, *others = exclude
    return first.union(*others) if others else first
