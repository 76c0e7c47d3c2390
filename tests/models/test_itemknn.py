"""ItemKNN: similarities by hand and by the dense formula, the conformance kit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.models import itemknn
from recdistill.models.itemknn import ItemKNN, nearest
from recdistill.ops import Rows
from recdistill.testing import built, check_model, tiny_interactions


def test_similarities_by_hand() -> None:
    # items of three users: {0, 1}, {0, 1}, {0, 2}; item 3 has nobody
    pairs = Interactions.from_events(torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 2]), 3, 4)
    ids, found = nearest(pairs, 2, shrinkage=1.0)
    assert ids.tolist() == [[1, 2], [0, -1], [0, -1], [-1, -1]]
    one, two = 2 / (math.sqrt(3 * 2) + 1), 1 / (math.sqrt(3 * 1) + 1)
    torch.testing.assert_close(found, torch.tensor([[one, two], [one, 0], [two, 0], [0, 0]]))
    scores = built(ItemKNN(num_neighbors=2, shrinkage=1.0), pairs).frozen().scores(torch.tensor([0, 2]))
    torch.testing.assert_close(scores, torch.tensor([[one, one, two, 0], [two, one, two, 0]]))


@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
def test_scores_are_those_of_the_dense_formula(shrinkage: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itemknn, "_BLOCK_BYTES", 7 * 40 * itemknn._PAIR_BYTES)
    pairs = tiny_interactions(30, 40, seed=5)
    taken = torch.zeros(30, 40)
    taken[pairs.users.long(), pairs.items.long()] = 1
    both, lengths = taken.T @ taken, taken.sum(0).sqrt()
    similar = torch.nan_to_num(both / (lengths[:, None] * lengths + shrinkage)).fill_diagonal_(0)
    smallest = similar.topk(6, dim=1).values[:, -1:]
    model = built(ItemKNN(num_neighbors=39, shrinkage=shrinkage), pairs)
    torch.testing.assert_close(model.frozen().scores(torch.arange(30)), taken @ similar)
    ids, found = nearest(pairs, 6, shrinkage)
    assert bool((found[ids >= 0] >= smallest.expand(-1, 6)[ids >= 0]).all())
    assert torch.equal((ids >= 0).sum(1), (similar > 0).sum(1).clamp(max=6))


def test_blocks_hold_items_of_like_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itemknn, "_BLOCK_BYTES", 10 * itemknn._PAIR_BYTES)
    found = [part.tolist() for part in itemknn._blocks(np.array([3, 0, 12, 5, 5, 1]))]
    assert found == [[2], [3, 4], [0, 5]]  # 12 is more than a block holds; 2 x 5, and 3 rows of 3 would go in


def test_options_change_the_scores() -> None:
    pairs = tiny_interactions()
    users = torch.arange(pairs.num_users)
    plain = built(ItemKNN(), pairs).frozen().scores(users)
    for model in (ItemKNN(num_neighbors=2), ItemKNN(shrinkage=0.0)):
        assert not torch.equal(built(model, pairs).frozen().scores(users), plain)


def test_a_new_user_is_scored_by_the_history() -> None:
    pairs = tiny_interactions()
    model = built(ItemKNN(), pairs)
    known = pairs.rows(torch.tensor([4]))
    state = model.fold_in(Rows(known.indptr, known.items))
    assert state is not None
    assert torch.equal(state.scores(torch.tensor([0])), model.frozen().scores(torch.tensor([4])))


@pytest.mark.parametrize("options", [{}, {"num_neighbors": 3, "shrinkage": 0.0}])
def test_conforms(options: dict[str, Any]) -> None:
    check_model(lambda: ItemKNN(**options))
