"""Ranks and scores of listed items, against the full matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from method_cases import INTERACTIONS
from recdistill.data.interactions import Interactions
from recdistill.models import ranking
from recdistill.models.base import EmbeddingState, ScoreVectors, user_scores
from recdistill.models.bpr import BPR
from recdistill.models.cml import CML
from recdistill.models.ranking import item_ranks, items_at, scores_of, top_items, top_users, user_scores_of
from recdistill.testing import built, tiny_interactions


def test_ranks_of_listed_items_are_counted_among_unobserved_items() -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    state = built(BPR(dim=3), interactions).frozen()
    users = torch.arange(30)
    ids = torch.randint(-1, 40, (30, 7), generator=torch.Generator().manual_seed(0))
    scores = state.scores(users)
    unseen = torch.ones(30, 40, dtype=torch.bool)
    unseen[interactions.users.long(), interactions.items.long()] = False
    own = scores.gather(1, ids.clamp(min=0))
    expected = 1 + ((scores[:, None, :] > own[:, :, None]) & unseen[:, None, :]).sum(2)
    assert torch.equal(item_ranks(state, users, ids, interactions), expected.masked_fill(ids < 0, 0))
    assert torch.equal(scores_of(state, users, ids), own.masked_fill(ids < 0, -torch.inf))


def test_items_at_positions_of_the_ranking() -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    state = built(BPR(dim=3), interactions).frozen()
    users = torch.arange(30)
    positions = torch.randint(-1, 45, (30, 4), generator=torch.Generator().manual_seed(0))
    full = top_items(state, users, 45, [interactions])[0]
    expected = full.gather(1, positions.clamp(min=0)).masked_fill(positions < 0, -1)
    assert torch.equal(items_at(state, users, positions, interactions), expected)


class Biased(EmbeddingState):
    """Scores with a bias of each item and each user."""

    vectors = True

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__(users, items)
        self.item_bias = torch.linspace(-1, 1, len(items))
        self.user_bias = torch.linspace(2, -1, len(users))

    def score_vectors(self) -> ScoreVectors | None:
        return ScoreVectors(self.users, self.items, self.item_bias, self.user_bias) if self.vectors else None

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        full = (self.users @ self.items.T + self.item_bias + self.user_bias[:, None])[users]
        return full if items is None else full.gather(1, items.clamp(min=0)).masked_fill(items < 0, 0.0)


@pytest.mark.parametrize("vectors", [True, False])
def test_scores_of_listed_users(vectors: bool) -> None:
    """With score vectors, and pair by pair without: the full matrix at those places, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(rows, 3, generator=generator).requires_grad_() for rows in (30, 40)]
    state = Biased(*tables)
    state.vectors = vectors
    ids = torch.randint(-1, 30, (40, 7), generator=generator)
    items = torch.arange(40)
    full = state.scores(torch.arange(30)).T
    expected = full.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, 0.0)
    found = user_scores(state, items, ids)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), tables),
        torch.autograd.grad(expected.square().sum(), tables),
    )
    torch.testing.assert_close(
        user_scores_of(state, items, ids), expected.detach().masked_fill(ids < 0, -torch.inf)
    )


@pytest.mark.parametrize("size", [1, 7, 100])
def test_top_users_without_score_vectors_are_those_with_them(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole-number scores have ties in plenty, within a block of users and across blocks."""
    interactions = tiny_interactions(30, 40, seed=5)
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randint(-1, 2, (rows, 2), generator=generator).float() for rows in (30, 40)]
    state = Biased(*tables)
    state.item_bias, state.user_bias = state.item_bias.round(), state.user_bias.round()
    for items in (torch.arange(40), torch.tensor([39, 3, 3])):
        for k in (4, 35):
            state.vectors = True
            expected = top_users(state, items, k, interactions)
            state.vectors = False
            monkeypatch.setattr(ranking, "_BLOCK_BYTES", 4 * 40 * size)
            found = top_users(state, items, k, interactions)
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])


def test_scores_of_lists_have_the_users_constant() -> None:
    state = built(CML(dim=3), INTERACTIONS).frozen()
    ids, scores = top_items(state, torch.arange(40), 5)
    torch.testing.assert_close(scores, state.scores(torch.arange(40)).gather(1, ids))


def test_several_sets_of_pairs_are_left_out() -> None:
    state = built(BPR(dim=3), INTERACTIONS).frozen()
    users = torch.arange(40)
    best = top_items(state, users, 1, [INTERACTIONS])[0]
    first = Interactions.from_events(users, best[:, 0], 40, 60)
    found = top_items(state, users, 3, [INTERACTIONS, first])[0]
    assert torch.equal(found, top_items(state, users, 4, [INTERACTIONS])[0][:, 1:])
