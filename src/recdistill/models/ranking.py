"""Top lists of any state over the whole catalogue, one block of scores at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.models.base import State, user_scores

_BLOCK_BYTES = 64 << 20
"""Upper bound of one block of scores for models that have no score vectors."""

_PAIRS = 1 << 16
"""Pairs of one block that such models score one by one."""


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
    device = _device(state)
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
            block_scores = state.scores(chosen.to(device)).float()
            if candidates is not None:
                masked = torch.full_like(block_scores, -torch.inf)
                allowed = candidates.to(device)
                masked[:, allowed] = block_scores[:, allowed]
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
        state: what scores; without score vectors each block of users' scores is made once for all items.
        items: indices, shape ``(n,)``, int64.
        k: list length, at least 1.
        exclude: observed pairs (users × items) that must not be listed.
    """
    vectors = state.score_vectors()
    if vectors is None:
        return _top_users_of_blocks(state, items, k, exclude)
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


def _top_users_of_blocks(
    state: State, items: Tensor, k: int, exclude: Interactions | None
) -> tuple[Tensor, Tensor]:
    """One pass over all users; the best so far of each item compete with the users of each block."""
    ids = torch.full((len(items), k), -1, dtype=torch.int64)
    best = torch.full((len(items), k), -torch.inf)
    for users in torch.arange(state.num_users).split(max(1, _BLOCK_BYTES // (4 * state.num_items))):
        scores = state.scores(users.to(_device(state))).float().cpu()  # (b, I)
        if exclude is not None:
            scores[exclude.rows(users).pairs] = -torch.inf
        for part in torch.arange(len(items)).split(4096):
            # earlier users have smaller indices and come first, so equal scores rank by index
            pool = torch.cat([best[part], scores[:, items[part]].T], dim=1)
            best[part], place = ops.top_k_dense(pool, k)
            owners = torch.cat([ids[part], users.expand(len(part), -1)], dim=1)
            ids[part] = owners.gather(1, place.clamp(min=0)).masked_fill_(place < 0, -1)
    return ids, best


@torch.no_grad()
def scores_of(state: State, users: Tensor, ids: Tensor) -> Tensor:
    """Scores of listed items, one block of users at a time, on the CPU.

    Args:
        state: what scores.
        users: indices, shape ``(n,)``, int64.
        ids: items of each user, shape ``(n, m)``, padded with −1.

    Returns:
        ``(n, m)`` float32, −inf where there is padding.
    """
    device = _device(state)
    found = torch.empty(ids.shape)
    for part in torch.arange(len(users)).split(8192):
        block = ids[part].long()
        scores = state.scores(users[part].to(device), block.to(device)).float().cpu()
        found[part] = scores.masked_fill(block < 0, -torch.inf)
    return found


@torch.no_grad()
def items_at(state: State, users: Tensor, positions: Tensor, exclude: Interactions) -> Tensor:
    """The items at some positions of each user's ranking, without keeping the lists.

    Args:
        state: what scores.
        users: indices, shape ``(n,)``, int64.
        positions: from 0, shape ``(n, m)``, int64, padded with −1.
        exclude: pairs that take no part in the ranking.

    Returns:
        ``(n, m)`` int64; −1 where there is padding, and past the end of a user's ranking.
    """
    found = torch.empty_like(positions)
    vectors, device = state.score_vectors(), _device(state)
    for part in torch.arange(len(users)).split(2048):
        chosen, wanted = users[part], positions[part]
        if vectors is not None:
            rows = _on(ops.Rows(*exclude.rows(chosen)), device)
            own = vectors.users[chosen.to(device)]
            ids = ops.ranked_at(own, vectors.items, wanted.to(device), bias=vectors.item_bias, exclude=rows)
            found[part] = ids.cpu()
            continue
        depth = 1 if wanted.numel() == 0 else max(1, int(wanted.max()) + 1)
        ids = top_items(state, chosen, depth, [exclude])[0]
        found[part] = ids.gather(1, wanted.clamp(min=0)).masked_fill(wanted < 0, -1)
    return found


@torch.no_grad()
def user_scores_of(state: State, items: Tensor, ids: Tensor) -> Tensor:
    """Scores of listed users, one block of items at a time: :func:`scores_of` with the roles swapped.

    Args:
        state: what scores.
        items: indices, shape ``(n,)``, int64.
        ids: users of each item, shape ``(n, m)``, padded with −1.

    Returns:
        ``(n, m)`` float32, −inf where there is padding.
    """
    device = _device(state)
    found = torch.empty(ids.shape)
    rows = 2048 if state.score_vectors() is not None else max(1, _PAIRS // max(ids.shape[1], 1))
    for part in torch.arange(len(items)).split(rows):
        block = ids[part].long()
        scores = user_scores(state, items[part].to(device), block.to(device)).float().cpu()
        found[part] = scores.masked_fill(block < 0, -torch.inf)
    return found


@torch.no_grad()
def item_ranks(state: State, users: Tensor, ids: Tensor, exclude: Interactions) -> Tensor:
    """Ranks (from 1) of listed items among all items that are not excluded, one block of scores at a time.

    rank = 1 + #{j not excluded: s_uj > s_ui}.

    Args:
        state: what scores.
        users: indices, shape ``(n,)``, int64.
        ids: items of each user, shape ``(n, m)``, padded with −1.
        exclude: pairs that take no part in the ranking.

    Returns:
        ``(n, m)`` int64; 0 where there is padding.
    """
    device = _device(state)
    ranks = torch.zeros(ids.shape, dtype=torch.int64)
    block = max(1, _BLOCK_BYTES // (16 * state.num_items))
    for part in torch.arange(len(users)).split(block):
        chosen, listed = users[part], ids[part].long()
        scores = state.scores(chosen.to(device)).float().cpu()  # (b, I)
        own = scores.gather(1, listed.clamp(min=0))
        scores[exclude.rows(chosen).pairs] = -torch.inf
        ascending, order = own.sort(dim=1)
        below = torch.searchsorted(ascending, scores)  # listed items that each item beats
        beaten = torch.zeros(len(chosen), ids.shape[1] + 1, dtype=torch.int64)
        beaten.scatter_add_(1, below, torch.ones_like(below))
        better = beaten.flip(1).cumsum(1).flip(1)[:, 1:]  # items that beat the k-th in ascending order
        ranks[part] = torch.empty_like(better).scatter_(1, order, better + 1).masked_fill_(listed < 0, 0)
    return ranks


def _device(state: State) -> torch.device:
    vectors = state.score_vectors()
    if vectors is None:
        return getattr(state, "device", torch.device("cpu"))
    return vectors.items.device


def _on(rows: ops.Rows | None, device: torch.device) -> ops.Rows | None:
    return rows if rows is None else ops.Rows(rows.indptr.to(device), rows.items.to(device))


def _union(exclude: Sequence[Interactions]) -> Interactions | None:
    if not exclude:
        return None
    first, *others = exclude
    return first.union(*others) if others else first
