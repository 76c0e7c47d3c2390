"""NeuMF: golden loss, the split first layer, blocks, the conformance kit."""

from __future__ import annotations

import pytest
import torch

from recdistill.distillers.rrd import RRD
from recdistill.models import neumf
from recdistill.models.neumf import NeuMF, pair_loss
from recdistill.testing import (
    built,
    check_distiller,
    check_model,
    largest_tensor,
    tiny_interactions,
)


def dense_scores(model: NeuMF) -> torch.Tensor:
    """The paper's equation for all pairs."""
    users, items = model.num_users, model.num_items
    product = model.user_table[:, None] * model.item_table[None]
    hidden = torch.cat(
        [model.user_tower[:, None].expand(-1, items, -1), model.item_tower[None].expand(users, -1, -1)], dim=2
    )
    for weight, bias in zip(model.weights, model.biases, strict=True):
        hidden = (hidden @ weight.T + bias).relu()
    return torch.cat([product, hidden], dim=2) @ model.head[0] + model.head_bias


def neumf_of(num_layers: int, dim: int = 4) -> NeuMF:
    model = built(NeuMF(dim=dim, num_layers=num_layers), tiny_interactions(), scale=5.0)
    assert isinstance(model, NeuMF)
    return model


def test_golden_value() -> None:
    # softplus(-1) + softplus(-.5) + softplus(-.4) + softplus(-1), scores of two rows
    scores = torch.tensor([[1.0, -0.5], [0.4, -1.0]], dtype=torch.float64)
    assert float(pair_loss(scores)) * 2 == pytest.approx(1.61361561, abs=1e-7)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_scores_are_those_of_the_equation(num_layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = neumf_of(num_layers)
    everyone = torch.arange(model.num_users)
    ids = torch.arange(model.num_items).repeat(model.num_users, 1)
    expected = dense_scores(model).detach()
    for block in (1, 20, 1 << 20):
        monkeypatch.setattr(neumf, "_TILE", block)
        monkeypatch.setattr(neumf, "_BLOCK", block)
        state = model.frozen()
        with torch.no_grad():
            torch.testing.assert_close(state.scores(everyone), expected)
            torch.testing.assert_close(state.scores(everyone, ids), expected)
        torch.testing.assert_close(model.state().scores(everyone).detach(), expected)


@pytest.mark.parametrize(("num_layers", "block"), [(1, 7), (2, 7), (2, 1 << 20)])
def test_gradients_are_those_of_the_equation(
    num_layers: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neumf, "_BLOCK", block)
    model = neumf_of(num_layers)
    ids = torch.tensor([[3, 5, -1], [0, 3, 3]])
    users = torch.tensor([4, 1])
    model.state().scores(users, ids).square().sum().backward()
    found = {name: p.grad.to_dense().clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    scores = dense_scores(model)[users[:, None], ids.clamp(min=0)] * (ids >= 0)
    scores.square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_it_has_features_and_no_score_vectors() -> None:
    state = neumf_of(1).frozen()
    assert state.score_vectors() is None
    assert state.user_embeddings(torch.arange(3)).shape == (3, 8)


def test_the_whole_catalogue_is_scored_in_bounded_memory() -> None:
    pairs = tiny_interactions(40, 3000)
    model = built(NeuMF(dim=16), pairs)
    state = model.frozen()
    with torch.no_grad(), largest_tensor() as watch:
        state.scores(torch.arange(40))
    assert watch.elements <= max(neumf._TILE, 40 * 3000), watch.operation


def test_the_tower_narrows() -> None:
    assert [tuple(weight.shape) for weight in neumf_of(3, dim=4).weights] == [(4, 8), (2, 4), (1, 2)]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "num_negatives": 1}])
def test_conforms(options: dict[str, int]) -> None:
    check_model(lambda: NeuMF(dim=3, **options))


def test_is_a_student_of_list_wise_methods() -> None:
    check_distiller(lambda: RRD(num_interesting=3, num_uninteresting=4, depth=5), lambda: NeuMF(dim=3))
