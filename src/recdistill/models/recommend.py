"""Recommendations from external ids to external ids, for users known and new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import polars as pl
import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import DataError, OptionError
from recdistill.models.base import Recommender, ScoreVectors
from recdistill.models.history import as_interactions
from recdistill.models.ranking import top_items

_FOLDED_BYTES = 16 << 20
"""Upper bound of a block of float32 matrices (n, dim, dim) when new users are folded in; up to four exist at once."""

_COLD = "set cold to popular (--cold popular) for the most popular items, or give their histories (--history FILE)"


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
    else with the item vectors fixed as the ridge solution of :func:`fold_in`. For a user of whom nothing is known,
    neither train rows nor a history, ``cold`` decides.

    Args:
        model: trained or loaded, with its vocabularies.
        users: external user ids; by default those of ``history`` where it is given, else all users with train rows
            (with ``cold="popular"`` those without too).
        k: items a user; a user with fewer unseen items gets fewer rows.
        exclude_seen: leave out the train items (and the history) of each user.
        candidates: the only items to recommend, external ids; the whole catalogue by default.
        history: external item ids by external user id, the newest last, or a table of ``user_id`` and ``item_id`` in
            that order, for users unknown to the model (it also replaces what is known of a known user); items
            unknown to the model are ignored.
        cold: a user of whom nothing is known, or a history of unknown items alone: ``error``, or the ``popular``
            items.

    Returns:
        Columns ``user_id``, ``item_id``, ``rank`` (from 1), ``score``, in the order of ``users``.

    Raises:
        DataError: a user of whom nothing is known, a history of something else, or an unknown candidate.
    """
    if k < 1:
        raise OptionError(f"recommend.k: expected an integer >= 1, found {k!r}")
    user_ids, item_ids = model.vocabularies()
    k = min(k, len(item_ids))
    given = None if history is None else Histories.of(history, item_ids)
    if users is not None:
        asked = users if isinstance(users, pl.Series) else pl.Series(list(users))
    else:
        asked = served(model, cold) if given is None else given.order
    if given is not None and not len(given.users):
        given = None
    allowed = None if candidates is None else _candidates(item_ids, candidates)
    index = user_ids.index(asked)
    own = torch.full_like(index, -1) if given is None else given.users.index(asked)
    fresh = own >= 0
    known = (index >= 0) & ~fresh
    if model.train_pairs is not None:  # the rows of those asked for alone
        starts, at = model.train_pairs.indptr, index.clamp(min=0)
        known &= starts[at + 1] > starts[at]
    unknown = ~known & ~fresh
    empty = fresh.clone()
    if given is not None:
        empty &= given.events.indptr.diff()[own.clamp(min=0)] == 0
    if cold == "error":
        _forbid_cold(asked, empty, unknown & (index >= 0), unknown)
    ids = torch.full((len(index), k), -1, dtype=torch.int64)
    scores = torch.full((len(index), k), -torch.inf)
    seen = [model.train_pairs] if exclude_seen and model.train_pairs is not None else []
    with torch.no_grad():
        model.eval()
        if bool(known.any()) and model.sequential and model.train_pairs is not None:
            # the histories of those asked for alone, not of all users
            ids[known], scores[known] = _read(
                model, model.train_pairs, index[known], k, exclude_seen, allowed
            )
        elif bool(known.any()):
            ids[known], scores[known] = top_items(model.frozen(), index[known], k, seen, allowed)
        if given is not None and bool(fresh.any()):
            ids[fresh], scores[fresh] = _read(model, given.events, own[fresh], k, exclude_seen, allowed)
        if bool((unknown | empty).any()):
            cold_ones = unknown | empty
            ids[cold_ones], scores[cold_ones] = _popular(model, k, int(cold_ones.sum()), allowed)
    return _table(asked, item_ids, ids, scores)


def served(model: Recommender, cold: str) -> pl.Series:
    """External ids of the users that a model recommends for unasked: all with train rows, or all where ``cold`` users
    get the popular items."""
    users = model.vocabularies()[0]
    return users.ids() if cold == "popular" else users.ids(known_users(model))


def known_users(model: Recommender) -> Tensor:
    """Indices of the users with train rows; of all where the model knows no rows."""
    if model.train_pairs is None:
        return torch.arange(len(model.vocabularies()[0]))
    return torch.nonzero(model.train_pairs.indptr.diff()).squeeze(1)


@dataclass(frozen=True)
class Histories:
    """What users took, in order, over the items that a model knows.

    Attributes:
        order: external ids of the users, distinct, as they were given.
        users: the same, indexed.
        events: of ``users``, over the model's items; items unknown to it are left out.
    """

    order: pl.Series
    users: Vocabulary
    events: Interactions

    @classmethod
    def of(cls, history: Any, items: Vocabulary) -> Histories:
        """The histories of a mapping of users to items, or of a table of ``user_id`` and ``item_id``; newest last.

        Raises:
            DataError: it is something else, or a user's items are no sequence.
        """
        if isinstance(history, Histories):
            return history
        if isinstance(history, pl.DataFrame):
            if missing := [name for name in ("user_id", "item_id") if name not in history.columns]:
                raise DataError(
                    f"history: no column {' and no column '.join(missing)}; columns present:"
                    f" {', '.join(history.columns)}",
                    "expected a table of user_id and item_id, a user's newest item last",
                )
            owners, taken = history["user_id"], history["item_id"]
            order = owners.unique(maintain_order=True)
        elif isinstance(history, Mapping):
            given = cast(Mapping[Any, Any], history)
            for user, own in given.items():
                if isinstance(own, str | bytes) or not hasattr(own, "__len__"):
                    raise DataError(
                        f"history: expected a list of items for user {user!r}, found {own!r}",
                        'give {"user": ["item", "newer item"]}',
                    )
            order = pl.Series(list(given))
            lengths = [len(own) for own in given.values()]
            owners = order.gather(torch.repeat_interleave(torch.tensor(lengths, dtype=torch.int64)).numpy())
            taken = pl.Series([item for own in given.values() for item in own])
        else:
            raise DataError(
                f"history: expected a mapping of users to their items, or a table, found {type(history).__name__}",
                'give {"user": ["item", "newer item"]}',
            )
        users = Vocabulary.from_ids(order) if len(order) else Vocabulary(order)
        owner = users.index(owners)
        index = items.index(taken) if len(taken) else torch.empty(0, dtype=torch.int64)
        kept = index >= 0
        events = Interactions.from_events(
            owner[kept], index[kept], len(users), len(items), positions=torch.arange(len(index))[kept]
        )
        return cls(order, users, events)


def _forbid_cold(asked: pl.Series, empty: Tensor, rowless: Tensor, unknown: Tensor) -> None:
    """Refuse users of whom nothing is known.

    Args:
        asked: external ids.
        empty: whose histories hold no known item.
        rowless: without a history, in the vocabulary, but without train rows.
        unknown: ``rowless``, and those that the model has never met.

    Raises:
        DataError: there are some.
    """
    for mask, what, hint in (
        (
            empty,
            "histories hold no item that the model knows, the first is that of",
            "give items that were in the training data, or set cold to popular (--cold popular) for the most"
            " popular items",
        ),
        (unknown & ~rowless, "users are unknown to the model, the first is", _COLD),
        (rowless, "users have no train rows, so that the model knows nothing of them, the first is", _COLD),
    ):
        if bool(mask.any()):
            first = asked[int(torch.nonzero(mask)[0])]
            raise DataError(f"{int(mask.sum())} of {len(asked)} {what} {first!r}", hint)


def _read(
    model: Recommender,
    histories: Interactions,
    rows: Tensor,
    k: int,
    exclude_seen: bool,
    allowed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The top items of users by their histories: of a model that scores histories, else folded in.

    Args:
        model: whose vectors.
        histories: over its items.
        rows: of ``histories``, which users.
        k, exclude_seen, allowed: as :func:`recommend`.
    """
    own = histories.rows(rows)
    state = model.fold_in(histories.event_rows(rows) if model.sequential else own)
    if state is not None:
        hidden = [as_interactions(own, state.num_items)] if exclude_seen else []
        return top_items(state, torch.arange(state.num_users), k, hidden, allowed)
    return _recommend_folded(
        model.frozen().score_vectors(), own, k, exclude_seen, allowed, model.model_name()
    )


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
        owner = ops.owners_of(own).to(items.device)
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
