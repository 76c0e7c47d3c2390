"""GRU4Rec: the equation by hand, windows of unlike length side by side, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.models.gru4rec import GRU4Rec, time_major
from recdistill.models.sequence_batches import Places
from recdistill.testing import built, check_sequence_model, tiny_sequences
from sequence_options import SHARED, Options, check_every_option

OWN: list[Options] = [
    {"layers": 2, "hidden": 5, "dropout": 0.5},
]


def model_of(**options: Any) -> GRU4Rec:
    chosen: dict[str, Any] = {"dim": 4, "max_length": 8, **options}
    return GRU4Rec(**chosen)


@pytest.mark.parametrize("options", [*SHARED, *OWN], ids=str)
def test_conforms(options: Options) -> None:
    check_sequence_model(lambda: model_of(**options))


def test_the_equation_by_hand() -> None:
    model = built(model_of(layers=2, hidden=3), tiny_sequences(), scale=3.0).eval()
    assert isinstance(model, GRU4Rec)
    windows = torch.tensor([[-1, -1, 4, 2], [3, 1, 3, 5], [-1, -1, -1, 7]])
    found = model.encode(Places(windows))
    first: list[torch.Tensor] = []
    last: list[torch.Tensor] = []
    for window in windows:
        states = [torch.zeros(3), torch.zeros(3)]
        for item in window[window >= 0]:
            x = model.item_table[item]
            for place, layer in enumerate(model.layers):
                made: Any = layer
                r_x, z_x, n_x = (made.weight_ih_l0 @ x).split(3)
                r_s, z_s, n_s = (made.weight_hh_l0 @ states[place]).split(3)
                r, z = torch.sigmoid(r_x + r_s), torch.sigmoid(z_x + z_s)
                states[place] = x = (1 - z) * torch.tanh(n_x + r * n_s) + z * states[place]
            first.append(states[0])
            last.append(states[1])
    torch.testing.assert_close(found.hidden_states[0], torch.stack(first))
    torch.testing.assert_close(found.hidden_states[1], torch.stack(last))
    torch.testing.assert_close(found.outputs, torch.stack(last) @ model.last.weight.T + model.last.bias)


def test_items_by_slot() -> None:
    places = Places(torch.tensor([[-1, 1, 2], [-1, -1, -1], [3, 4, 5]]))
    packed, place = time_major(places.items[:, None], places)
    assert packed.data.squeeze(1).tolist() == [3, 1, 4, 2, 5]
    assert packed.batch_sizes.tolist() == [2, 2, 1]
    assert torch.equal(packed.data.squeeze(1)[place], places.items)


def test_every_option_changes_something() -> None:
    single: list[Options] = [
        {"layers": 2}, {"hidden": 5}, {"dropout": 0.0},
    ]  # fmt: skip
    check_every_option(model_of, [*OWN, *single])


def test_dropout_stands_between_layers() -> None:
    data = tiny_sequences()
    model: Any = built(GRU4Rec(dim=4, layers=2, dropout=0.5, max_length=8), data).train()
    with torch.no_grad():
        model.item_table.fill_(0.0)
    calls: list[float] = []
    drop = model._drop
    model._drop = lambda x: calls.append(1.0) or drop(x)
    model.encode(Places(torch.tensor([[3, 1, 3]])))
    assert len(calls) == 2  # x, and the first of two layers
