"""Rank aggregation: one ranking from the top lists of any number of teachers, at any of their states.

The importance of item i for user u is, over teachers x with weights w_x (1 by default),

    g_ui = Σ_x w_x · [ e^{−r/T} + c · e^{−σ/100} ]      r = r_x(u, i) < depth, else the teacher adds nothing

where r counts from 0 among the user's unobserved items in teacher x's list, T is ``temperature`` (10), and the second
term, off by default (c = ``consistency`` = 0), rewards items that teacher x has always ranked alike: σ is the standard
deviation of the item's rank over the teacher's states, an item beyond the list counting as rank ``depth``, and the item
must be on the final list. Items are ranked by g, equal ones by the smaller index.

HetComp: Kang, Kweon, Lee, Lian, Xie, Yu, "Distillation from Heterogeneous Models for Top-K Recommendation", WWW 2023.
The second term is that of the same group's ConCF, "Consensus Learning from Heterogeneous Objectives for One-Class
Collaborative Filtering", WWW 2022.

**Debiasing** by the teachers' disagreement (ours; off by default). Write a_x for what teacher x adds to item i, without
its weight, and A_ui = Σ w_x a_x / (Σ w_x · max_x a_x), which is 1 where all teachers rank the item alike and falls to a
teacher's share of the weight where it alone lists it. Then

    g'_ui = g_ui · A_ui^{β·p_i}       p_i = ln(1 + n_i) / ln(1 + max n),  n_i = train interactions of item i

with β = ``debias``. A popular item that only some teachers rank high may be there for its popularity, and loses; what
all agree on keeps its place however popular it is, and an item that nobody has taken loses nothing. With one teacher
A is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recdistill.knowledge.base import Lists
from recdistill.ops import owners_of
from recdistill.ops.aggregation import sum_lists

TEMPERATURE = 10.0
CONSISTENCY_TEMPERATURE = 100.0

_BLOCK = 1 << 16


def importance(depth: int, temperature: float = TEMPERATURE) -> Tensor:
    """e^{−r/T} of the ranks r = 0, 1, ..., shape ``(depth,)``, float64."""
    return torch.exp(-torch.arange(depth, dtype=torch.float64) / temperature)


def aggregate(
    lists: Sequence[Tensor],
    num_items: int,
    depth: int = 100,
    *,
    temperature: float = TEMPERATURE,
    weights: Sequence[float] | None = None,
    spreads: Sequence[Tensor] | None = None,
    consistency: float = 0.0,
    popularity: Tensor | None = None,
    debias: float = 0.0,
) -> Lists:
    """One list a row from the lists of several teachers, by summed importance.

    Args:
        lists: of each teacher, ids ``(b, K_x)``, best first, padded with −1; what lies beyond ``depth`` is not read.
        num_items: size of the catalogue.
        depth: ranks that count, and the length of the result.
        temperature: T of the importance e^{−r/T}, greater than 0 (paper: 10).
        weights: of each teacher, greater than 0; default 1.
        spreads: of each teacher, the standard deviation of each listed item's rank over its states ``(b, K_x)``, see
            :func:`rank_spread`; read where ``consistency`` is not 0.
        consistency: weight of e^{−spread/100}, at least 0.
        popularity: p of each item, in [0, 1], ``(I,)``, see :func:`popularity_shares`; read where ``debias`` is not 0.
        debias: β, how much popular items lose on which the teachers disagree, at least 0.

    Returns:
        ids ``(b, depth)`` int32 and summed importances, float32, padded with −1 and −inf. As many as the lists hold
        together, which is ``depth`` or more wherever some teacher's list is that long.
    """
    cut = [ids[:, :depth].int() for ids in lists]
    weight = torch.ones(len(cut)) if weights is None else torch.tensor(list(weights), dtype=torch.float64)
    widths = torch.tensor([ids.shape[1] for ids in cut])
    of_column = torch.repeat_interleave(weight.double(), widths)  # (Σ K_x,)
    ranked = torch.cat([importance(ids.shape[1], temperature) for ids in cut])[None]
    exponents = None
    if debias:
        assert popularity is not None
        exponents = debias * popularity
    rows, parts = cut[0].shape[0], list[tuple[Tensor, Tensor]]()
    for start in range(0, rows, _BLOCK):
        block = slice(start, start + _BLOCK)
        values = ranked
        if consistency:
            assert spreads is not None
            spread = torch.cat([each[block, :depth] for each in spreads], dim=1)
            values = ranked + consistency * torch.exp(-spread.double() / CONSISTENCY_TEMPERATURE)
        ids = torch.cat([each[block] for each in cut], dim=1)
        scale = weight.sum().float() / of_column.float()
        values = (values * of_column).float()
        device = ids.device
        parts.append(
            sum_lists(
                ids,
                values.to(device),
                num_items,
                depth,
                scale=scale.to(device),
                exponents=None if exponents is None else exponents.to(device),
            )
        )
    if len(parts) == 1:
        return Lists(*parts[0])
    empty = (cut[0].new_empty(0, depth), torch.empty(0, depth))
    return Lists(*(torch.cat(each) for each in zip(*(parts or [empty]), strict=True)))


def rank_spread(states: Sequence[Tensor], ids: Tensor | None = None) -> Tensor:
    """Standard deviation, over a teacher's states, of the rank of each item on a list.

    Args:
        states: ids ``(b, K)`` of each state, padded with −1, early to final.
        ids: the list, ``(b, K)``, padded with −1; by default that of the last state.

    Returns:
        ``(b, K)`` float32; 0 at padding and for a single state. An item that is not on a state's list has rank K there.
    """
    ids = states[-1] if ids is None else ids
    if ids.shape[1] == 0:
        return torch.zeros(ids.shape)
    ranks = torch.stack([_ranks_in(state, ids) for state in states]).double()
    return ranks.std(dim=0, correction=0).masked_fill_(ids < 0, 0.0).float()


def _ranks_in(state: Tensor, ids: Tensor) -> Tensor:
    """Where each of ``ids`` (b, K) stands in the rows of ``state``, from 0; K where it does not."""
    ordered, column = state.sort(dim=1)
    at = torch.searchsorted(ordered, ids.to(ordered.dtype).contiguous()).clamp_(max=state.shape[1] - 1)
    return torch.where(ordered.gather(1, at) == ids, column.gather(1, at), ids.shape[1])


def popularity_shares(item_counts: Tensor) -> Tensor:
    """p_i = ln(1 + n_i) / ln(1 + max n) of the train interactions n, shape ``(I,)``, float32."""
    logs = torch.log1p(item_counts.double())
    return (logs / logs.max().clamp(min=1e-12)).float()


def observed_importance(
    scores: Sequence[Tensor],
    indptr: Tensor,
    *,
    temperature: float = TEMPERATURE,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """The teachers' common order of each user's observed items: Σ_x w_x e^{−r_x/T}, without a cut.

    Args:
        scores: of each teacher, one number a train pair, in the order of the train CSR, ``(P,)``.
        indptr: ``(U + 1,)`` int64, where each user's pairs start.
        temperature: T, greater than 0 (paper: 10).
        weights: of each teacher, greater than 0; default 1.

    Returns:
        ``(P,)`` float32: r_x is the rank, from 0, of the pair's item among its user's observed items by teacher x,
        equal scores by the smaller index.
    """
    total = torch.zeros(len(scores[0]), dtype=torch.float64)
    start = torch.repeat_interleave(indptr[:-1], indptr.diff())
    users = owners_of(indptr.diff())
    for place, each in enumerate(scores):
        by_score = each.double().sort(descending=True, stable=True).indices
        order = by_score[users[by_score].sort(stable=True).indices]
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(len(order)) - start
        total += (1.0 if weights is None else weights[place]) * torch.exp(-ranks / temperature)
    return total.float()


def by_item(lists: Lists) -> Lists:
    """The lists with each row in ascending order of its ids, for :func:`listed_scores`."""
    ids, order = lists.ids.sort(dim=1)
    return Lists(ids, lists.scores.gather(1, order))


def listed_scores(ordered: Lists, users: Tensor, items: Tensor | None, num_items: int) -> Tensor:
    """What the lists of ``users`` (b,) give to ``items`` (b, n), or to all: 0 to an item that is on no list.

    Args:
        ordered: what :func:`by_item` gave for all users.
        users: rows of it.
        items: ids, −1 for padding, which gets 0; None for all items.
        num_items: size of the catalogue.

    Returns:
        ``(b, n)``, or ``(b, I)``, float32, on the device of ``users``.
    """
    ids, scores = (each[users.to(each.device)].to(users.device) for each in ordered)
    if items is None:
        table = torch.zeros(len(users), num_items + 1, device=users.device)
        return table.scatter_(1, torch.where(ids < 0, num_items, ids.long()), scores)[:, :num_items]
    at = torch.searchsorted(ids, items.to(ids.dtype).contiguous()).clamp_(max=max(ids.shape[1] - 1, 0))
    return torch.where((ids.gather(1, at) == items) & (items >= 0), scores.gather(1, at), 0.0)


def users_of_items(lists: Lists, num_items: int, depth: int) -> Lists:
    """For each item the users on whose lists it stands, by its importance there; equal ones by the smaller index.

    Args:
        lists: ids ``(U, K)`` and scores; equal importances of different users are comparable, as ranks are.
        num_items: size of the catalogue.
        depth: the most users of an item.

    Returns:
        ids ``(I, depth)`` int32 and scores, padded; an item on no list has an empty row.
    """
    users, columns = (lists.ids >= 0).nonzero(as_tuple=True)
    items, scores = lists.ids[users, columns].long(), lists.scores[users, columns]
    order = scores.sort(descending=True, stable=True).indices  # users ascend within equal scores
    order = order[items[order].sort(stable=True).indices]
    items, users, scores = items[order], users[order], scores[order]
    counts = torch.bincount(items, minlength=num_items)
    column = torch.arange(len(items)) - (counts.cumsum(0) - counts)[items]
    kept = column < depth
    found = Lists(
        torch.full((num_items, depth), -1, dtype=torch.int32), torch.full((num_items, depth), -torch.inf)
    )
    found.ids[items[kept], column[kept]] = users[kept].int()
    found.scores[items[kept], column[kept]] = scores[kept]
    return found
