"""EASE: the closed form, what is stored, the limit on items, the conformance kit."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.errors import OptionError
from recdistill.models import ease, history
from recdistill.models.ease import EASE
from recdistill.ops import Rows
from recdistill.testing import built, check_model, tiny_interactions


def dense(pairs: Interactions) -> torch.Tensor:
    table = torch.zeros(pairs.num_users, pairs.num_items, dtype=torch.float64)
    table[pairs.users.long(), pairs.items.long()] = 1
    return table


def closed_form(pairs: Interactions, regularisation: float) -> torch.Tensor:
    taken = dense(pairs)
    inverse = torch.linalg.inv(taken.T @ taken + regularisation * torch.eye(pairs.num_items))
    weights = -inverse / inverse.diagonal()
    return weights.fill_diagonal_(0)


def test_two_items_by_hand() -> None:
    # X = [[1, 1], [1, 0]]: XᵀX + I = [[3, 1], [1, 2]], its inverse [[2, -1], [-1, 3]] / 5
    pairs = Interactions.from_events(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), 2, 2)
    model = built(EASE(regularisation=1.0), pairs)
    expected = torch.tensor([[0.0, 1 / 3], [1 / 2, 0.0]])
    torch.testing.assert_close(model.get_buffer("weights"), expected)
    torch.testing.assert_close(
        model.frozen().scores(torch.arange(2)), torch.tensor([[1 / 2, 1 / 3], [0, 1 / 3]])
    )


def test_weights_and_scores_are_those_of_the_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    for rows in (7, 1024):
        monkeypatch.setattr(ease, "_ROWS_AT_ONCE", rows)
        monkeypatch.setattr(history, "_BLOCK_BYTES", rows * 40 * 4)
        model = built(EASE(regularisation=2.0), pairs)
        expected = closed_form(pairs, 2.0)
        torch.testing.assert_close(model.get_buffer("weights").double(), expected, rtol=1e-4, atol=1e-6)
        scores = (dense(pairs) @ expected).float()
        users = torch.arange(pairs.num_users)
        torch.testing.assert_close(model.frozen().scores(users), scores, rtol=1e-4, atol=1e-5)
        repeated = torch.tensor([5, 3, 5, 29, 3])
        ids = torch.tensor([[0, 39], [7, -1], [1, 1], [2, 3], [8, 9]])
        found = model.frozen().scores(repeated, ids)
        wanted = scores[repeated[:, None], ids.clamp(min=0)] * (ids >= 0)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_largest_weights_of_a_column_are_kept() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    full = built(EASE(regularisation=2.0), pairs).get_buffer("weights")
    model = built(EASE(regularisation=2.0, num_weights=5), pairs)
    kept = full.abs().topk(5, dim=0).indices
    thin = torch.zeros_like(full).scatter_(0, kept, full.gather(0, kept))
    scores = dense(pairs).float() @ thin
    torch.testing.assert_close(model.frozen().scores(torch.arange(30)), scores, rtol=1e-4, atol=1e-5)
    assert model.num_parameters() == 2 * 40 * 5
    everything = built(EASE(regularisation=2.0, num_weights=60), pairs)
    torch.testing.assert_close(
        everything.frozen().scores(torch.arange(30)), dense(pairs).float() @ full, rtol=1e-4, atol=1e-5
    )


def test_regularisation_changes_the_weights() -> None:
    pairs = tiny_interactions()
    one, other = (built(EASE(regularisation=r), pairs).get_buffer("weights") for r in (1.0, 100.0))
    assert float(one.abs().max()) > 10 * float(other.abs().max())


def test_too_many_items_are_refused_with_the_memory_that_they_take() -> None:
    pairs = tiny_interactions(5, 40)
    with pytest.raises(OptionError, match=r"40 items take 6\.\d [kK]i?B; max_items is 39"):
        EASE(max_items=39).build(pairs, torch.Generator())
    assert "40 x 40 items" in EASE().announcement(pairs)
    assert "of it are stored" in EASE(num_weights=3).announcement(pairs)


def test_a_new_user_is_scored_by_the_history() -> None:
    pairs = tiny_interactions()
    model = built(EASE(regularisation=1.0), pairs)
    state = model.fold_in(Rows(torch.tensor([0, 2]), torch.tensor([3, 5], dtype=torch.int32)))
    assert state is not None
    weights = model.get_buffer("weights")
    torch.testing.assert_close(state.scores(torch.tensor([0])), (weights[3] + weights[5])[None])


def test_it_says_that_it_has_no_embeddings() -> None:
    state = built(EASE(), tiny_interactions()).frozen()
    assert state.score_vectors() is None
    for read in (state.user_embeddings, state.item_embeddings):
        with pytest.raises(OptionError, match="ease has no embeddings; it supplies scores"):
            read(torch.tensor([0]))


@pytest.mark.parametrize("num_weights", [None, 4])
def test_conforms(num_weights: int | None) -> None:
    check_model(lambda: EASE(regularisation=1.0, num_weights=num_weights), catalogue=600)
