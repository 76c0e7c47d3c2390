"""ItemVAE: MultVAE of the transposed data, the expected count, whole items a step, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.distillers.rrd import RRD
from recdistill.models.itemvae import ItemVAE
from recdistill.models.multvae import MultVAE
from recdistill.testing import (
    batch_of,
    built,
    check_distiller,
    check_model,
    largest_tensor,
    make_batches,
    tiny_interactions,
)


def itemvae(score: Any = "expected", scale: float = 3.0, **options: Any) -> ItemVAE:
    chosen: dict[str, Any] = {"dim": 3, "score": score, **options}
    model = built(ItemVAE(**chosen), tiny_interactions(), scale=scale)
    assert isinstance(model, ItemVAE)
    return model


def test_it_is_multvae_with_users_and_items_swapped() -> None:
    pairs = tiny_interactions()
    model, swapped = itemvae("logits"), built(MultVAE(dim=3), pairs.transpose(), scale=3.0)
    batch, turned = batch_of(pairs), batch_of(pairs.transpose())
    assert torch.equal(batch.unique_positives, turned.users)
    losses: list[torch.Tensor] = []
    for one, rows in ((model, batch), (swapped, turned)):
        torch.manual_seed(0)
        losses.append(one.loss(one.state(rows), rows))
    assert torch.equal(losses[0], losses[1])
    users, items = torch.arange(pairs.num_users), torch.arange(pairs.num_items)
    with torch.no_grad():
        torch.testing.assert_close(model.frozen().scores(users), swapped.frozen().scores(items).T)


def test_the_score_is_the_log_of_the_expected_count() -> None:
    model, logits = itemvae(), itemvae("logits")
    pairs = tiny_interactions()
    users = torch.arange(pairs.num_users)
    with torch.no_grad():
        raw = logits.frozen().scores(users)  # (U, I)
        expected = raw.log_softmax(dim=0) + (pairs.item_counts + 1).log()
        torch.testing.assert_close(model.frozen().scores(users), expected)
        ids = torch.tensor([[3, -1, 13, 3]]).repeat(pairs.num_users, 1)
        wanted = expected[users[:, None], ids.clamp(min=0)] * (ids >= 0)
        torch.testing.assert_close(model.frozen().scores(users, ids), wanted)
        assert bool(torch.isfinite(expected[:, -1]).all())  # nobody took the last item


@pytest.mark.parametrize("score", ["expected", "logits"])
def test_scores_of_a_step_and_their_gradient(score: Any) -> None:
    pairs = tiny_interactions()
    model = itemvae(score, dropout=0.0).eval()
    network = model.network
    seen = torch.zeros(pairs.num_items, pairs.num_users)
    seen[pairs.items.long(), pairs.users.long()] = 1
    entry = seen / seen.norm(dim=1, keepdim=True).clamp(min=1)
    code = (entry @ network.input_table + network.input_bias)[:, :3]
    dense = network.output_table @ code.T + network.output_bias[:, None]  # (U, I)
    if score == "expected":
        dense = dense.log_softmax(dim=0) + (pairs.item_counts + 1).log()
    users, ids = torch.tensor([4, 1]), torch.tensor([[3, 5, -1], [0, 3, 3]])
    wanted = dense[users[:, None], ids.clamp(min=0)] * (ids >= 0)
    wanted.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for batch in (None, batch_of(pairs, rows=3), batch_of(pairs)):  # items of the batch, and others
        model.zero_grad()
        found = model.state(batch).scores(users, ids)
        torch.testing.assert_close(found, wanted)
        found.square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad.to_dense(), gradients[name], rtol=1e-4, atol=1e-5)


def test_an_epoch_is_every_item_once_with_all_pairs() -> None:
    pairs = tiny_interactions(40, 30, seed=3)
    model = built(ItemVAE(dim=2), pairs)
    batches = list(make_batches(model, pairs))
    items = torch.cat([batch.unique_positives for batch in batches])
    assert sorted(items.tolist()) == torch.nonzero(pairs.item_counts).squeeze(1).tolist()
    assert sum(map(len, batches)) == pairs.num_pairs
    for batch in batches:
        counts = torch.bincount(batch.positives, minlength=30)[batch.unique_positives]
        assert torch.equal(counts, pairs.item_counts[batch.unique_positives])


def test_options_change_the_loss_or_the_score() -> None:
    pairs = tiny_interactions()
    batch = batch_of(pairs)

    def loss(**options: Any) -> float:
        model = itemvae(**{"dropout": 0.0, "anneal_steps": 4, **options})
        found = torch.zeros(())
        for _ in range(3):
            torch.manual_seed(0)
            found = model.loss(model.state(batch), batch)
        return float(found.detach())

    plain = loss()
    for options in ({"dim": 4}, {"hidden_dim": 5}, {"dropout": 0.5}, {"beta": 0.5}, {"anneal_steps": 0}):
        assert loss(**options) != plain, options
    assert loss(score="logits") == plain


def test_new_users_have_no_way_of_their_own() -> None:
    pairs = tiny_interactions()
    assert itemvae().fold_in(pairs.rows(torch.arange(2))) is None


def test_scoring_everything_holds_no_users_by_items() -> None:
    pairs = tiny_interactions(3000, 4000)
    model = built(ItemVAE(dim=4), pairs).eval()
    with torch.no_grad(), largest_tensor() as watch:
        model.frozen().score_vectors()
    assert watch.elements < 3000 * 4000 * 3 // 4, watch.operation


@pytest.mark.parametrize("options", [{}, {"score": "logits"}, {"dropout": 0.0, "beta": 0.0}])
def test_conforms(options: dict[str, Any]) -> None:
    check_model(lambda: ItemVAE(dim=3, **options))


@pytest.mark.parametrize("score", ["expected", "logits"])
def test_is_a_student_of_list_wise_methods(score: Any) -> None:
    check_distiller(
        lambda: RRD(num_interesting=3, num_uninteresting=4, depth=5), lambda: ItemVAE(dim=3, score=score)
    )
