"""Ranks and scores of listed items, against the full matrix."""

from __future__ import annotations

import torch

from recdistill.models.bpr import BPR
from recdistill.models.ranking import item_ranks, scores_of
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
