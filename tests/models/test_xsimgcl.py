"""XSimGCL: golden contrast, the pass with and without noise, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.errors import OptionError
from recdistill.models.bpr import bpr_loss, pair_scores
from recdistill.models.lightgcn import initial_penalty, normalised_adjacency
from recdistill.models.xsimgcl import XSimGCL, info_nce, perturbation
from recdistill.testing import batch_of, built, check_model, tiny_interactions


def test_golden_contrast() -> None:
    # row 0: cosines 1 and 0; row 1: (.5, 1) / 1.118 with I: .4472 and .8944; all divided by .5
    one = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    assert float(info_nce(one, torch.eye(2), 0.5)) == pytest.approx(0.23484795, abs=1e-6)


def test_perturbation_has_its_length_and_its_sign() -> None:
    torch.manual_seed(0)
    layer = torch.randn(50, 6)
    noise = perturbation(layer, 0.3)
    torch.testing.assert_close(noise.norm(dim=1), torch.full((50,), 0.3))
    assert bool((noise * layer >= 0).all())
    assert perturbation(torch.zeros(1, 3), 0.3).tolist() == [[0.0] * 3]


def test_evaluation_is_the_mean_of_the_layers_without_the_first() -> None:
    graph = tiny_interactions()
    model = built(XSimGCL(dim=3, num_layers=2, noise=0.5), graph)
    adjacency, table = normalised_adjacency(graph).to_dense(), model.parameter("table").detach()
    first = adjacency @ table
    expected = (first + adjacency @ first) / 2
    state = model.frozen()
    found = torch.cat(
        [
            state.user_embeddings(torch.arange(graph.num_users)),
            state.item_embeddings(torch.arange(graph.num_items)),
        ]
    )
    torch.testing.assert_close(found, expected)


def test_noise_is_drawn_in_training_from_the_seed() -> None:
    graph = tiny_interactions()
    model = built(XSimGCL(dim=3), graph).train()
    users = torch.arange(graph.num_users)
    found: list[torch.Tensor] = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(model.state().user_embeddings(users))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_options_change_the_loss() -> None:
    graph = tiny_interactions()
    batch = batch_of(graph)

    def loss(**options: Any) -> float:
        model = built(XSimGCL(dim=3, num_layers=2, **options), graph)
        torch.manual_seed(0)
        return float(model.loss(model.state(batch), batch).detach())

    plain = loss()
    for options in (
        {"contrast_layer": 2},
        {"contrast_weight": 0.5},
        {"temperature": 1.0},
        {"noise": 0.0},
        {"embedding_decay": 0.1},
    ):
        assert loss(**options) != plain, options


def test_a_contrast_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(OptionError, match="contrast_layer must be at most num_layers, 2; found 3"):
        XSimGCL(num_layers=2, contrast_layer=3)


@pytest.mark.parametrize("options", [{}, {"num_layers": 1, "contrast_weight": 0.0, "noise": 0.0}])
def test_conforms(options: dict[str, Any]) -> None:
    check_model(lambda: XSimGCL(dim=3, **options))


@pytest.mark.parametrize("layer", [1, 2])
def test_the_loss_by_hand(layer: int) -> None:
    pairs = tiny_interactions()
    batch = batch_of(pairs)
    model: Any = built(XSimGCL(dim=3, contrast_layer=layer, noise=0.0, contrast_weight=0.7), pairs)
    adjacency, table = normalised_adjacency(pairs).to_dense(), model.table.detach()
    layers = [adjacency @ table]
    layers.append(adjacency @ layers[0])
    final, other = (layers[0] + layers[1]) / 2, layers[layer - 1]
    expected = bpr_loss(pair_scores(model.state(), batch)) + 1e-4 * initial_penalty(table, 9, batch)
    for rows in (batch.users, 9 + batch.unique_positives):
        expected = expected + 0.7 * info_nce(final[rows], other[rows], 0.2)
    torch.testing.assert_close(model.loss(model.state(batch), batch), expected)
