"""MultVAE: golden values, the dense equation, whole users a step, new users, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.data.synthetic import synthetic
from recdistill.distillers.base import Objective
from recdistill.distillers.rrd import RRD
from recdistill.evaluation.validate import validator
from recdistill.models.autoencoder import divergence, multinomial_loss
from recdistill.models.base import Recommender
from recdistill.models.itemvae import ItemVAE
from recdistill.models.multvae import MultVAE
from recdistill.models.popularity import Popularity
from recdistill.models.sampling import row_batches
from recdistill.ops import Rows
from recdistill.testing import batch_of, built, check_distiller, check_model, make_batches, tiny_interactions
from recdistill.training.loop import train
from recdistill.training.options import TrainingOptions


class Gentle(MultVAE):
    """Two layers more, whose weights the kit's factor of 50 would take out of float32's range."""

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        super().build(interactions, generator)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(0.1)


def seen_by(pairs: Interactions) -> torch.Tensor:
    seen = torch.zeros(pairs.num_users, pairs.num_items)
    seen[pairs.users.long(), pairs.items.long()] = 1
    return seen


def test_golden_likelihood() -> None:
    # items 0 and 3 of one user, scores 1, .5, -.5, 0
    scores = torch.tensor([[1.0, 0.5, -0.5, 0.0]], dtype=torch.float64)
    rows = Rows(torch.tensor([0, 2]), torch.tensor([0, 3], dtype=torch.int32))
    found = multinomial_loss(scores, torch.eye(4, dtype=torch.float64), torch.zeros(4).double(), rows)
    assert float(found) == pytest.approx(2.57467734, abs=1e-7)


def test_golden_divergence() -> None:
    # ½ [(1 + .25 - 1 - 0) + (1/e + 1 - 1 + 1)]
    mean, log_variance = torch.tensor([[0.5, -1.0]]).double(), torch.tensor([[0.0, -1.0]]).double()
    assert float(divergence(mean, log_variance)) == pytest.approx(0.80893972, abs=1e-7)


def test_loss_and_gradient_are_those_of_the_dense_equation() -> None:
    pairs = tiny_interactions()
    model = built(MultVAE(dim=4, dropout=0.0, beta=0.3, anneal_steps=0), pairs, scale=3.0)
    assert isinstance(model, MultVAE)
    batch = batch_of(pairs)
    torch.manual_seed(5)
    loss = model.loss(model.state(batch), batch)
    loss.backward()
    found = {name: p.grad.to_dense().clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.manual_seed(5)
    network, seen = model.network, seen_by(pairs)[batch.users]
    latent = seen / seen.norm(dim=1, keepdim=True) @ network.input_table + network.input_bias
    mean, log_variance = latent.chunk(2, dim=1)
    code = mean + (0.5 * log_variance).exp() * torch.randn(len(seen), 4)
    scores = code @ network.output_table.T + network.output_bias
    likelihood = -(seen * scores.log_softmax(dim=1)).sum(dim=1).mean()
    dense = likelihood + 0.3 * 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(dim=1).mean()
    torch.testing.assert_close(loss, dense)
    dense.backward()
    assert len(found) == 4
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_the_loss_reads_whole_histories() -> None:
    pairs = tiny_interactions()
    model = built(MultVAE(dim=3, dropout=0.0), pairs, scale=3.0).eval()
    batch = batch_of(pairs)
    first = torch.unique_consecutive(batch.row.sort().values, return_counts=True)[1].cumsum(0) - 1
    fewer = batch_of(pairs)  # one pair a user
    chosen = batch.row.argsort()[first]
    object.__setattr__(fewer, "row", batch.row[chosen])
    object.__setattr__(fewer, "positives", batch.positives[chosen])
    losses = [float(model.loss(model.state(b), b).detach()) for b in (batch, fewer)]
    assert losses[0] == losses[1]


def test_an_epoch_is_every_user_once_with_all_pairs() -> None:
    pairs = tiny_interactions(40, 30, seed=3)
    model = built(MultVAE(dim=2), pairs)
    batches = list(make_batches(model, pairs))
    users = torch.cat([batch.users for batch in batches])
    assert sorted(users.tolist()) == torch.nonzero(pairs.user_counts).squeeze(1).tolist()
    assert sum(map(len, batches)) == pairs.num_pairs
    longest = int(pairs.user_counts.max())
    for batch in batches:
        assert torch.equal(torch.bincount(batch.row), pairs.user_counts[batch.users])
        assert len(batch) < 7 + longest
    order = [batch.users.tolist() for batch in batches]
    assert order == [batch.users.tolist() for batch in make_batches(model, pairs)]
    assert order != [batch.users.tolist() for batch in make_batches(model, pairs, seed=5)]
    few = list(model.batches(pairs, 10_000, torch.Generator().manual_seed(0)))
    assert len(few) == 1


def test_a_user_who_took_everything_is_left_out() -> None:
    pairs = Interactions.from_events([0, 0, 1], [0, 1, 1], 2, 2)
    model = built(MultVAE(dim=2), pairs)
    (batch,) = make_batches(model, pairs)
    assert batch.users.tolist() == [1]


def test_beta_grows_by_steps_of_training_alone() -> None:
    pairs = tiny_interactions()
    model = built(MultVAE(dim=2, anneal_steps=2), pairs, scale=1.0)
    batch = batch_of(pairs)
    model.eval()
    model.loss(model.state(batch), batch)
    assert int(model.get_buffer("steps")) == 0
    model.train()
    for steps in (1, 2, 3):
        model.loss(model.state(batch), batch)
        assert int(model.get_buffer("steps")) == steps


def test_options_change_the_loss() -> None:
    pairs = tiny_interactions()
    batch = batch_of(pairs)

    def loss(**options: Any) -> float:
        chosen: dict[str, Any] = {"dim": 3, "dropout": 0.0, "anneal_steps": 4, **options}
        model = built(MultVAE(**chosen), pairs, scale=3.0)
        found = torch.zeros(())
        for _ in range(3):
            torch.manual_seed(0)
            found = model.loss(model.state(batch), batch)
        return float(found.detach())

    plain = loss()
    for options in ({"dim": 4}, {"hidden_dim": 5}, {"dropout": 0.5}, {"beta": 0.5}, {"beta": 0.0}):
        assert loss(**options) != plain, options
    assert loss(anneal_steps=0) > loss(anneal_steps=40)


def test_one_pass_serves_all_losses_of_a_step() -> None:
    pairs = tiny_interactions()
    model = built(MultVAE(dim=6), pairs, scale=3.0).train()
    batch = batch_of(pairs)
    torch.manual_seed(0)
    state = model.state(batch)
    vectors = state.user_embeddings(batch.users)
    assert torch.equal(vectors, state.user_embeddings(batch.users))
    ids = batch.positives[:, None]
    expected = (vectors[batch.row] * state.item_embeddings(batch.positives)).sum(dim=1, keepdim=True)
    torch.testing.assert_close(
        state.scores(batch.row_users, ids), expected + model.get_parameter("network.output_bias")[ids]
    )
    frozen = model.frozen()
    everyone = torch.arange(pairs.num_users)
    with torch.no_grad():
        assert torch.equal(frozen.scores(everyone), model.frozen().scores(everyone))


def test_a_new_user_is_encoded_as_a_known_one() -> None:
    pairs = tiny_interactions()
    model = built(MultVAE(dim=3), pairs, scale=3.0).eval()
    users = torch.tensor([4, 2, 0])  # user 2 has no items
    with torch.no_grad():
        folded = model.fold_in(pairs.rows(users))
        assert folded is not None
        torch.testing.assert_close(folded.scores(torch.arange(3)), model.frozen().scores(users))
        assert bool(torch.isfinite(folded.scores(torch.tensor([1]))).all())


@pytest.mark.parametrize("make", [lambda: MultVAE(dim=24), lambda: ItemVAE(dim=24)], ids=["user", "item"])
def test_it_learns_more_than_popularity(make: Any) -> None:
    table = synthetic(num_users=400, num_items=300, num_interactions=12_000, num_groups=4, dim=16)
    users = table["user_id"].to_numpy()
    items = table["item_id"].str.strip_prefix("item-").cast(int).to_numpy()
    held = torch.rand(len(users), generator=torch.Generator().manual_seed(0)).numpy() < 0.2
    pairs, valid = (Interactions.from_events(users[part], items[part], 400, 300) for part in (~held, held))
    validate = validator(valid, (pairs,))
    options = TrainingOptions(epochs=10, batch_size=512, learning_rate=5e-3, validate_every=2)

    def best(model: Recommender) -> float:
        found = train(model, Objective(), pairs, options, validate).best_metric
        assert found is not None
        return found

    assert best(make()) > 1.5 * best(Popularity())


@pytest.mark.parametrize("options", [{}, {"dropout": 0.0, "beta": 0.0}, {"anneal_steps": 0}])
def test_conforms(options: dict[str, Any]) -> None:
    check_model(lambda: MultVAE(dim=3, **options))


def test_conforms_with_hidden_layers() -> None:
    check_model(lambda: Gentle(dim=3, hidden_dim=5))


def test_is_a_student_of_list_wise_methods() -> None:
    check_distiller(lambda: RRD(num_interesting=3, num_uninteresting=4, depth=5), lambda: MultVAE(dim=3))


def test_a_step_ends_with_the_row_that_reaches_the_batch_size() -> None:
    pairs = Interactions.from_events([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1], 3, 4)
    for size, steps in ((2, [2, 2, 2]), (3, [4, 2]), (4, [4, 2]), (5, [6])):
        found = row_batches(pairs, size, 0, torch.Generator().manual_seed(0))
        assert [len(batch) for batch in found] == steps


def test_the_first_step_has_no_divergence() -> None:
    pairs = tiny_interactions()
    batch = batch_of(pairs)
    losses = []
    for beta in (0.0, 5.0):
        model = built(MultVAE(dim=3, beta=beta, anneal_steps=10, dropout=0.0), pairs, scale=1.0).train()
        torch.manual_seed(0)
        losses.append(float(model.loss(model.state(batch), batch).detach()))
    assert losses[0] == losses[1]
