"""LightGCN: golden propagation, its gradient, its penalty, the conformance kit."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.models.lightgcn import LightGCN, normalised_adjacency
from recdistill.testing import batch_of, built, check_model, tiny_interactions


def test_golden_propagation() -> None:
    graph = Interactions.from_events(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 2)
    model = LightGCN(dim=2, num_layers=2)
    model.build(graph, torch.Generator())
    with torch.no_grad():
        model.table.copy_(torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0], [0.5, -1.0]]))
    state = model.frozen()
    users, items = state.user_embeddings(torch.arange(2)), state.item_embeddings(torch.arange(2))
    expected_users = torch.tensor([[0.96129449, 0.18688672], [0.48570226, 0.26429774]])
    expected_items = torch.tensor([[0.79462783, 0.38214887], [0.69403559, -0.22977994]])
    torch.testing.assert_close(users, expected_users, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(items, expected_items, rtol=1e-5, atol=1e-6)


def test_repr_shows_options_and_sizes() -> None:
    model = LightGCN(dim=3, num_layers=1)
    assert repr(model).startswith("LightGCN(dim=3, num_layers=1, ")
    assert "num_users" not in repr(model)
    graph = tiny_interactions()
    assert f"num_users={graph.num_users}, num_items={graph.num_items})" in repr(built(model, graph))


def test_adjacency_equals_the_dense_formula() -> None:
    graph = tiny_interactions()
    users, items = graph.num_users, graph.num_items
    dense = torch.zeros(users + items, users + items)
    dense[graph.users.long(), graph.items.long() + users] = 1
    dense = dense + dense.T
    scale = dense.sum(1).clamp(min=1).rsqrt()
    torch.testing.assert_close(normalised_adjacency(graph).to_dense(), scale[:, None] * dense * scale)


def test_gradient_reaches_neighbours_as_the_dense_product_says() -> None:
    graph = tiny_interactions()
    model = built(LightGCN(dim=3, num_layers=2, embedding_decay=0.0), graph, scale=3.0)
    batch = batch_of(graph)
    model.loss(model.state(batch), batch).backward()
    adjacency = normalised_adjacency(graph).to_dense()
    table = model.table.detach().clone().requires_grad_()
    mean = (table + adjacency @ table + adjacency @ (adjacency @ table)) / 3
    users, items = mean[: graph.num_users], mean[graph.num_users :]
    assert batch.negatives is not None
    ids = torch.cat([batch.positives[:, None], batch.negatives], dim=1)
    scores = (users[batch.row_users][:, None] * items[ids]).sum(-1)
    torch.nn.functional.softplus(scores[:, 1:] - scores[:, :1]).mean().backward()
    assert model.table.grad is not None
    assert table.grad is not None
    torch.testing.assert_close(model.table.grad.to_dense(), table.grad, rtol=1e-4, atol=1e-6)


def test_penalty_is_half_the_squared_norm_of_the_initial_rows() -> None:
    graph = tiny_interactions()
    batch = batch_of(graph, rows=2)
    plain = built(LightGCN(dim=3, embedding_decay=0.0), graph)
    decayed = built(LightGCN(dim=3, embedding_decay=0.5), graph)
    table = plain.table
    assert batch.negatives is not None
    squares = [
        table[batch.row_users].square().sum(),
        table[batch.positives + graph.num_users].square().sum(),
        table[batch.negatives[:, 0] + graph.num_users].square().sum(),
    ]
    expected = 0.5 * 0.5 * sum(float(s.detach()) for s in squares) / 2
    gap = float((decayed.loss(decayed.state(batch), batch) - plain.loss(plain.state(batch), batch)).detach())
    assert gap == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_layers", [0, 3])
def test_conforms(num_layers: int) -> None:
    check_model(lambda: LightGCN(dim=3, num_layers=num_layers, init_std=0.01))
