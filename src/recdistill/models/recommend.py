"""Recommendations from external ids to external ids, for users known and new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import polars as pl
import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import DataError, OptionError
from recdistill.models.base import Recommender, ScoreVectors, State
from recdistill.models.history import as_interactions
from recdistill.models.ranking import top_items

_FOLDED_BYTES = 16 << 20
"""Upper bound of a block of float32 matrices (n, dim, dim) when new users are folded in; up to four exist at once."""


@validated
def recommend(
    model: Recommender,
    users: Any = None,
    k: Annotated[int, Field(ge=1)] = 10,
    *,
    exclude_seen: bool = True,
    candidates: Any = None,
    history: Any = None,
    cold: Literal["error", "popular"] = "error",
) -> pl.DataFrame:
    """The top ``k`` items of users, best first.

    A user who was not in training is folded in from ``history``: by the model itself where it scores histories,
    else with the item vectors fixed as the ridge solution of :func:`fold_in`. Without a history ``cold`` decides.

    Args:
        model: trained or loaded, with its vocabularies.
        users: external user ids; all users by default, or those of ``history`` where it is given.
        k: items a user; a user with fewer unseen items gets fewer rows.
        exclude_seen: leave out the train items (and the history) of each user.
        candidates: the only items to recommend, external ids; the whole catalogue by default.
        history: external item ids by external user id, the newest last, for users unknown to the model (it also
            replaces what is known of a known user); items unknown to the model are ignored.
        cold: an unknown user without a history, or with one of unknown items alone: ``error``, or the ``popular``
            items.

    Returns:
        Columns ``user_id``, ``item_id``, ``rank`` (from 1), ``score``, in the order of ``users``.

    Raises:
        DataError: an unknown user and no history; an unknown candidate.
    """
    if k < 1:
        raise OptionError(f"recommend.k: expected an integer >= 1, found {k!r}")
    user_ids, item_ids = model.vocabularies()
    k = min(k, len(item_ids))
    given: Mapping[Any, Sequence[Any]] = history or {}
    if users is None:
        asked = pl.Series(list(given)) if given else user_ids.ids()
    else:
        asked = users if isinstance(users, pl.Series) else pl.Series(list(users))
    allowed = None if candidates is None else _candidates(item_ids, candidates)
    index = user_ids.index(asked)
    fresh = torch.tensor([user in given for user in asked.to_list()] if given else [], dtype=torch.bool)
    fresh = fresh if given else torch.zeros(len(index), dtype=torch.bool)
    histories = None
    if bool(fresh.any()):
        asked_fresh = asked.filter(pl.Series(fresh.numpy()))
        histories = _histories(item_ids, [given[user] for user in asked_fresh.to_list()])
        empty = histories.event_indptr.diff() == 0
        if cold == "error" and bool(empty.any()):
            first = asked_fresh[int(torch.nonzero(empty)[0])]
            raise DataError(
                f"{int(empty.sum())} of {len(empty)} histories hold no item that the model knows, the first is that"
                f" of {first!r}",
                "give items that were in the training data, or cold='popular' for the most popular items",
            )
    unknown = (index < 0) & ~fresh
    if cold == "error" and bool(unknown.any()):
        first = asked[int(torch.nonzero(unknown)[0])]
        raise DataError(
            f"{int(unknown.sum())} of {len(index)} users are unknown to the model, the first is {first!r}",
            "set cold to popular (--cold popular) for the most popular items, or from Python give their history",
        )
    ids = torch.full((len(index), k), -1, dtype=torch.int64)
    scores = torch.full((len(index), k), -torch.inf)
    known = (index >= 0) & ~fresh
    seen = [model.train_pairs] if exclude_seen and model.train_pairs is not None else []
    with torch.no_grad():
        model.eval()
        if bool(known.any()) and model.sequential and model.train_pairs is not None:
            # the histories of those asked for alone, not of all users
            rows = model.train_pairs.rows(index[known])
            own = model.fold_in(model.train_pairs.event_rows(index[known]))
            assert own is not None
            hidden = [as_interactions(rows, len(item_ids))] if exclude_seen else []
            ids[known], scores[known] = _top_folded(own, k, hidden, allowed)
        elif bool(known.any()):
            ids[known], scores[known] = top_items(model.frozen(), index[known], k, seen, allowed)
        if histories is not None:
            rows = ops.Rows(histories.indptr, histories.items)
            events = ops.Rows(histories.event_indptr, histories.event_items)
            own = model.fold_in(events if model.sequential else rows)
            if own is not None:
                hidden = [as_interactions(rows, own.num_items)] if exclude_seen else []
                ids[fresh], scores[fresh] = _top_folded(own, k, hidden, allowed)
            else:
                ids[fresh], scores[fresh] = _recommend_folded(
                    model.frozen().score_vectors(), rows, k, exclude_seen, allowed, model.model_name()
                )
        if histories is not None:
            unknown = unknown.masked_scatter(fresh, histories.event_indptr.diff() == 0)
        if bool(unknown.any()):
            ids[unknown], scores[unknown] = _popular(model, k, int(unknown.sum()), allowed)
    return _table(asked, item_ids, ids, scores)


def _candidates(items: Vocabulary, candidates: Any) -> Tensor:
    index = items.index(candidates if isinstance(candidates, pl.Series) else pl.Series(list(candidates)))
    if bool((index < 0).any()):
        raise DataError(
            f"{int((index < 0).sum())} of {len(index)} candidates are unknown to the model",
            "pass items that were in the training data",
        )
    if len(index) == 0:
        raise OptionError("candidates is empty", "leave it out to rank the whole catalogue")
    return index.unique()


def _histories(items: Vocabulary, histories: list[Sequence[Any]]) -> Interactions:
    """The known items of each history, in order."""
    lengths = torch.tensor([len(history) for history in histories])
    flat = pl.Series([item for history in histories for item in history])
    index = items.index(flat) if len(flat) else torch.empty(0, dtype=torch.int64)
    owner = torch.repeat_interleave(torch.arange(len(histories)), lengths)
    keep = index >= 0
    return Interactions.from_events(
        owner[keep], index[keep], len(histories), len(items), positions=torch.arange(len(index))[keep]
    )


def _top_folded(
    state: State, k: int, hidden: Sequence[Interactions], allowed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The top items of all users of a state that a model made from histories."""
    return top_items(state, torch.arange(state.num_users), k, hidden, allowed)


def fold_in(
    vectors: ScoreVectors, histories: ops.Rows, negative_weight: float = 0.1, ridge: float = 1e-3
) -> Tensor:
    """User vectors for given histories, the item vectors fixed.

    p = argmin Σ_{i ∈ history} (1 − p·q_i)² + w · (h / I) Σ_i (p·q_i)² + r · tr/d · ‖p‖², with h the length of the
    history, I the number of items and tr/d the mean diagonal of the first two terms' matrix: the implicit-feedback
    least squares of Hu et al. (ICDM 2008) with its weight on unobserved items made independent of the catalogue.

    Args:
        vectors: the model's.
        histories: item rows, one a user.
        negative_weight: w, the pull to zero of all items together, relative to the history; at least 0.
        ridge: r, above 0.

    Returns:
        shape ``(n, dim)``; a user with an empty history gets the zero vector.
    """
    items = vectors.items.float()
    dim = items.shape[1]
    gram = items.T @ items / len(items)
    lengths = histories.indptr.diff()
    solved = items.new_zeros(len(lengths), dim)
    eye = torch.eye(dim, device=items.device)
    most = max(1, _FOLDED_BYTES // (4 * dim**2))
    size = min(256, most)  # users of a block
    for start in range(0, len(lengths), size):
        own = lengths[start : start + size]
        chosen = histories.items[histories.indptr[start] : histories.indptr[start + len(own)]].long()
        owner = torch.repeat_interleave(torch.arange(len(own)), own).to(items.device)
        rows = items[chosen]
        target = items.new_zeros(len(own), dim).index_add_(0, owner, rows)
        matrix = items.new_zeros(len(own), dim, dim)
        for part in torch.arange(len(rows)).split(min(4096, most)):
            outer = rows[part][:, :, None] * rows[part][:, None, :]
            matrix.index_add_(0, owner[part], outer)
        matrix += negative_weight * own.to(items)[:, None, None] * gram
        scale = matrix.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
        matrix += ridge * scale[:, None, None] * eye
        solved[start : start + len(own)] = torch.linalg.solve(matrix, target)
    return solved


def _recommend_folded(
    vectors: ScoreVectors | None,
    rows: ops.Rows,
    k: int,
    exclude_seen: bool,
    allowed: Tensor | None,
    name: str,
) -> tuple[Tensor, Tensor]:
    if vectors is None:
        raise DataError(
            f"{name} has no vectors to fold new users into", "recommend for users it was trained on"
        )
    if vectors.items.shape[1] == 1:  # one column: the score is the same for all users (popularity)
        folded = torch.ones(len(rows.indptr) - 1, 1, device=vectors.items.device)
    else:
        folded = fold_in(vectors, rows)
    exclude = rows if exclude_seen else None
    scores, ids = ops.top_k(
        folded, vectors.items, k, bias=vectors.item_bias, exclude=exclude, candidates=allowed
    )
    return ids.cpu(), scores.cpu()


def _popular(model: Recommender, k: int, count: int, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    if model.train_pairs is None:
        raise DataError("the model has no train pairs, so no popular items", "load it from its directory")
    counts = model.train_pairs.item_counts.float()
    scores, ids = ops.top_k(torch.ones(1, 1), counts[:, None], k, candidates=allowed)
    return ids.expand(count, -1), scores.expand(count, -1)


def _table(users: pl.Series, items: Vocabulary, ids: Tensor, scores: Tensor) -> pl.DataFrame:
    row, column = torch.nonzero(ids >= 0, as_tuple=True)
    return pl.DataFrame(
        {
            "user_id": users.gather(row.numpy()),
            "item_id": items.ids(ids[row, column]),
            "rank": pl.Series((column + 1).numpy()).cast(pl.Int32),
            "score": pl.Series(scores[row, column].numpy()),
        }
    )
