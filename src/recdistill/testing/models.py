"""What every model must do, checked without knowing its equation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from recdistill.data.interactions import Interactions
from recdistill.knowledge.frozen import frozen_state, read_arrays, stored_arrays
from recdistill.models.base import Recommender, user_scores
from recdistill.models.ranking import top_items
from recdistill.testing.tiny import (
    assert_finite_scalar,
    batch_of,
    built,
    largest_tensor,
    make_batches,
    reached,
    sparse_interactions,
    tiny_interactions,
)


def check_model(
    make: Callable[[], Recommender], *, observed_negatives: bool = False, catalogue: int = 6000
) -> None:
    """Every promise of a model that can be checked without knowing its equation.

    Args:
        make: builds the model (unbuilt).
        observed_negatives: its negatives are drawn from all items on purpose, so some are observed.
        catalogue: items of the data on which nothing of users × items may be built; fewer for a model that
            holds an items × items block by design.
    """
    interactions = tiny_interactions()
    model = built(make(), interactions)
    check_state(model)
    check_stored(model)
    if not model.closed_form:
        _trains(make, interactions, observed_negatives)
    again = built(make(), interactions)
    again.frozen()  # a model may settle its parameters when its state is computed
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), f"the same seed builds another {name}"
    check_lists(model, interactions)
    _never_users_by_items(make, catalogue)


def check_state(model: Recommender) -> None:
    """Scores of all items, of given ones and from score vectors agree; padding scores 0."""
    state = model.frozen()
    users = torch.arange(state.num_users)
    with torch.no_grad():
        full = state.scores(users)
        assert full.shape == (state.num_users, state.num_items), f"scores have shape {tuple(full.shape)}"
        ids = torch.arange(state.num_items).expand(state.num_users, -1)
        torch.testing.assert_close(state.scores(users, ids.contiguous()), full)
        padded = state.scores(users[:1], torch.tensor([[-1, 0]]))
        assert float(padded[0, 0]) == 0.0, "the id -1 (padding) must score 0"
        everything = torch.arange(state.num_items)
        listed = users.repeat(state.num_items, 1)
        listed[::2, 0] = -1
        wanted = full.T.masked_fill(listed < 0, 0.0)
        torch.testing.assert_close(
            user_scores(state, everything, listed), wanted, msg="user_scores are others"
        )
        vectors = state.score_vectors()
        if vectors is not None:
            product = vectors.users @ vectors.items.T
            for bias, shape in ((vectors.item_bias, (1, -1)), (vectors.user_bias, (-1, 1))):
                product = product if bias is None else product + bias.view(shape)
            torch.testing.assert_close(product, full, msg="score_vectors do not give the scores")
        if "embeddings" in state.kinds:
            assert state.user_embeddings(users).shape[1] == state.item_embeddings(users[:1]).shape[1]


def check_stored(model: Recommender) -> None:
    """A store of the model answers what its class says."""
    state = frozen_state(model)
    stored = read_arrays(stored_arrays(state)).kinds if state.embeddings is not None else frozenset[str]()
    assert stored == model.storable, (
        f"a store answers {sorted(stored)}, storable says {sorted(model.storable)}"
    )


def _trains(make: Callable[[], Recommender], interactions: Interactions, observed_negatives: bool) -> None:
    for rows in (None, 1):
        model = built(make(), interactions)
        batch = batch_of(interactions, rows)
        loss = model.loss(model.state(batch), batch)
        assert_finite_scalar(loss)
        loss.backward()
        assert reached(model.parameters()), "no gradient reaches the parameters"
    epoch = list(make_batches(model, interactions))
    rows_seen = sum(len(batch) for batch in epoch)
    assert rows_seen > 0, "an epoch has no rows"
    for batch in epoch:
        if batch.negatives is not None:
            users = batch.row_users[:, None].expand_as(batch.negatives).reshape(-1)
            seen = interactions.contains(users, batch.negatives.reshape(-1))
            assert observed_negatives or not bool(seen.any()), "a negative is an observed item"


def check_lists(model: Recommender, interactions: Interactions) -> None:
    """Top lists of all items hold each unseen item once, sorted."""
    users = torch.arange(interactions.num_users)
    ids, scores = top_items(model.frozen(), users, interactions.num_items, [interactions])
    for user in users.tolist():
        found = ids[user][ids[user] >= 0]
        owner = torch.full_like(found, user)
        assert not bool(interactions.contains(owner, found).any()), "a seen item is listed"
        left = interactions.num_items - int(interactions.user_counts[user])
        assert len(found) == left, f"user {user} gets {len(found)} items of {left} unseen"
        ranked = scores[user][: len(found)]
        assert bool((ranked.diff() <= 0).all()), "the list is not sorted"


def _never_users_by_items(make: Callable[[], Recommender], items: int) -> None:
    users = 6000
    interactions = sparse_interactions(users, items)
    with largest_tensor() as watch:
        model = built(make(), interactions)
        if not model.closed_form:
            batch = batch_of(interactions, rows=64)
            model.loss(model.state(batch), batch).backward()
    assert watch.elements < users * items // 2, (
        f"{watch.operation} makes {watch.elements:,} elements for {users:,} users x {items:,} items"
    )
