"""What every model states as its tables: what grows with the catalogue, the users or the positions, and no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill import config
from recdistill.data.interactions import Interactions
from recdistill.models.base import Recommender
from recdistill.searching.supernet import Supernet
from recdistill.testing import tiny_interactions

OTHER_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "ease": [{"num_weights": 5}],
    "multvae": [{"hidden_dim": 7}],
    "itemvae": [{"hidden_dim": 7}],
    **{
        name: [{"head": "untied"}]
        for name in [*config.names("models"), "supernet"]
        if name == "supernet" or config.find("models", name).sequential
    },
}
CASES = [
    (name, options)
    for name in [*config.names("models"), "supernet"]
    for options in [{}, *OTHER_OPTIONS.get(name, [])]
]


def model_for(name: str, options: dict[str, Any], interactions: Interactions) -> Recommender:
    model: Recommender = (Supernet if name == "supernet" else config.find("models", name))(**options)
    model.build(interactions, torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_tables_are_what_grows_with_the_data(name: str, options: dict[str, Any]) -> None:
    # 16 and 64 are also the width of layers, which must not count as tables for that
    small, large = (model_for(name, options, tiny_interactions(*sizes)) for sizes in ((9, 14), (16, 64)))
    before, after = small.state_dict(), large.state_dict()
    assert before.keys() == after.keys()
    grown = {key for key in before if before[key].shape != after[key].shape}
    assert grown
    assert set(large.tables) & before.keys() == grown | ({"position_table"} & before.keys())
    assert small.num_layer_parameters() == large.num_layer_parameters()
    tables = sum(after[key].numel() for key in after if key in large.tables)
    assert large.num_layer_parameters() == large.num_parameters() - tables


def test_a_model_that_states_no_tables_has_layers_alone() -> None:
    class Own(Recommender):
        def build(self, interactions: Interactions, generator: torch.Generator) -> None:
            self.weight = torch.nn.Parameter(torch.zeros(interactions.num_items, 2))

    model = Own()
    model.build(tiny_interactions(), torch.Generator())
    assert model.num_layer_parameters() == model.num_parameters() == 28
