"""SimpleX: golden loss, the blend of own vector and history, sampling, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recdistill.distillers.rrd import RRD
from recdistill.models.simplex import SimpleX, cosine_contrastive_loss
from recdistill.ops import Rows
from recdistill.testing import (
    batch_of,
    built,
    check_distiller,
    check_model,
    largest_tensor,
    make_batches,
    tiny_interactions,
)


def test_golden_value() -> None:
    # (.4 + 100 * (.2 + 0) / 2 + .1 + 100 * 0) / 2
    scores = torch.tensor([[0.6, 0.5, 0.1], [0.9, 0.2, 0.3]], dtype=torch.float64)
    assert float(cosine_contrastive_loss(scores, 0.3, 100.0)) == pytest.approx(5.25)


def test_scores_are_cosines_of_the_blend() -> None:
    pairs = tiny_interactions()
    model = built(SimpleX(dim=4, own_weight=0.3), pairs)
    seen = torch.zeros(pairs.num_users, pairs.num_items)
    seen[pairs.users.long(), pairs.items.long()] = 1
    with torch.no_grad():
        items = model.parameter("item_table")
        mean = (seen / seen.sum(1, keepdim=True).clamp(min=1)) @ items
        blend = 0.3 * model.parameter("user_table") + 0.7 * mean @ model.parameter("transform").T
        expected = F.normalize(blend, dim=1) @ F.normalize(items, dim=1).T
        everyone = torch.arange(pairs.num_users)
        torch.testing.assert_close(model.frozen().scores(everyone), expected)
        some = model.state(batch_of(pairs, rows=2))  # users outside of the batch are answered too
        ids = torch.arange(pairs.num_items).repeat(pairs.num_users, 1)
        torch.testing.assert_close(some.scores(everyone, ids), expected)


def test_gradient_is_that_of_the_dense_formula() -> None:
    pairs = tiny_interactions()
    model = built(SimpleX(dim=4, dropout=0.0, num_negatives=2), pairs)
    batch = next(make_batches(model, pairs))
    model.loss(model.state(batch), batch).backward()
    found = {
        name: value.grad.to_dense() for name, value in model.named_parameters() if value.grad is not None
    }
    tables = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    seen = torch.zeros(pairs.num_users, pairs.num_items)
    seen[pairs.users.long(), pairs.items.long()] = 1
    mean = (seen / seen.sum(1, keepdim=True).clamp(min=1)) @ tables["item_table"]
    blend = 0.5 * tables["user_table"] + 0.5 * mean @ tables["transform"].T
    dense = F.normalize(blend, dim=1) @ F.normalize(tables["item_table"], dim=1).T
    assert batch.negatives is not None
    ids = torch.cat([batch.positives[:, None], batch.negatives], dim=1)
    cosine_contrastive_loss(dense[batch.row_users[:, None], ids], 0.3, 100.0).backward()
    for name, table in tables.items():
        torch.testing.assert_close(found[name], table.grad, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_alone_and_once_a_step() -> None:
    pairs = tiny_interactions()
    model = built(SimpleX(dim=16, dropout=0.5), pairs)
    users = torch.arange(pairs.num_users)
    assert torch.equal(model.frozen().user_embeddings(users), model.frozen().user_embeddings(users))
    batch = batch_of(pairs)
    state = model.train().state(batch)
    dropped = state.user_embeddings(batch.users)
    assert 0.2 < float((dropped == 0).float().mean()) < 0.8
    assert torch.equal(dropped, state.user_embeddings(batch.users))


def test_negatives_come_from_all_items_or_from_the_unobserved() -> None:
    pairs = tiny_interactions()
    for negatives, observed in (("all", True), ("unobserved", False)):
        model = built(SimpleX(dim=2, num_negatives=40, negatives=negatives), pairs)
        batches = list(make_batches(model, pairs))
        assert sum(map(len, batches)) == pairs.num_pairs
        hits = [pairs.contains(b.row_users, b.negatives).any() for b in batches if b.negatives is not None]
        assert any(hits) is observed
        again = list(make_batches(model, pairs))
        first, second = batches[1].negatives, again[1].negatives
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)


def test_options_change_the_loss() -> None:
    pairs = tiny_interactions()
    batch = batch_of(pairs)

    def loss(**options: Any) -> float:
        model = built(SimpleX(dim=3, **{"dropout": 0.0, **options}), pairs)
        torch.manual_seed(0)
        return float(model.loss(model.state(batch), batch).detach())

    plain = loss()
    for options in ({"own_weight": 0.9}, {"margin": -0.5}, {"negative_weight": 3.0}, {"dropout": 0.5}):
        assert loss(**options) != plain, options
    assert built(SimpleX(score_scale=3.0), pairs).frozen().score_scale == 3.0


def test_a_new_user_is_scored_by_the_history_alone() -> None:
    pairs = tiny_interactions()
    model = built(SimpleX(dim=4), pairs).eval()
    with torch.no_grad():
        state = model.fold_in(Rows(torch.tensor([0, 2, 2]), torch.tensor([3, 5], dtype=torch.int32)))
        assert state is not None
        scores = state.scores(torch.arange(2))
        items = model.parameter("item_table")
        expected = F.normalize(items[[3, 5]].mean(0) @ model.parameter("transform").T, dim=0)
        torch.testing.assert_close(scores[0], F.normalize(items, dim=1) @ expected)
        assert scores[1].tolist() == [0.0] * pairs.num_items


def test_a_step_never_gathers_a_vector_for_each_negative() -> None:
    pairs = tiny_interactions(50, 60)
    model = built(SimpleX(dim=32, num_negatives=200), pairs)
    batch = next(model.batches(pairs, 64, torch.Generator().manual_seed(0)))
    with largest_tensor() as watch:
        model.loss(model.state(batch), batch).backward()
    assert watch.elements < 64 * 201 * 4, watch.operation


@pytest.mark.parametrize("negatives", ["all", "unobserved"])
def test_conforms(negatives: Any) -> None:
    check_model(
        lambda: SimpleX(dim=3, num_negatives=4, negatives=negatives),
        observed_negatives=negatives == "all",
    )


def test_is_a_student_of_list_wise_methods() -> None:
    check_distiller(
        lambda: RRD(num_interesting=3, num_uninteresting=4, depth=5), lambda: SimpleX(dim=3, dropout=0.0)
    )
