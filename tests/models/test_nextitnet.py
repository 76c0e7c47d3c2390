"""NextItNet: the convolution and the equation by hand, its size, how far back it reads, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recdistill import config
from recdistill.data.interactions import Interactions
from recdistill.models.cells import Neighbours
from recdistill.models.nextitnet import Convolution, NextItNet
from recdistill.models.sequence_batches import Places
from recdistill.testing import built, check_sequence_model, tiny_sequences
from sequence_options import SHARED, Options, check_every_option

OWN: list[Options] = [
    {"dilations": [1, 2, 3], "groups": 1, "dropout": 0.5},
    {"kernel": 2, "output": "relu", "head": "untied"},
    {"output": "linear", "groups": 3},
]


def model_of(**options: Any) -> NextItNet:
    chosen: dict[str, Any] = {"dim": 4, "max_length": 8, **options}
    return NextItNet(**chosen)


class Opened(NextItNet):
    """Gates that training has moved."""

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        super().build(interactions, generator)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("gate"):
                    parameter.fill_(0.2)


@pytest.mark.parametrize("options", [*SHARED, *OWN], ids=str)
def test_conforms(options: Options) -> None:
    # what relu leaves may hide a change of one item, so only dense outputs are compared item by item
    check_sequence_model(lambda: model_of(**options), causal=options.get("output") != "relu")


def test_conforms_with_gates() -> None:
    check_sequence_model(lambda: Opened(dim=4, max_length=8, gated=True))


def convolution(weights: list[float], dilation: int) -> Convolution:
    made = Convolution(NextItNet(dim=1, kernel=len(weights)), dilation, torch.Generator()).double()
    with torch.no_grad():
        made.taps.weight.copy_(torch.tensor([weights]))
    return made


def test_the_convolution_by_hand() -> None:
    # oldest tap first: 1 x_{t−4} + 10 x_{t−2} + 100 x_t
    made = convolution([1, 10, 100], 2)
    values = torch.tensor([1.0, 2, 3, 4, 5, 7, 9]).double()[:, None]
    alone = made.convolve(values[:5], Neighbours(Places(torch.zeros(1, 5, dtype=torch.int64))))
    assert alone.squeeze(1).tolist() == [100, 200, 310, 420, 531]
    # two windows end to end: the second begins from nothing
    both = Places(torch.tensor([[0, 0, 0, 0, 0], [-1, -1, -1, 0, 0]]))
    assert made.convolve(values, Neighbours(both)).squeeze(1).tolist() == [100, 200, 310, 420, 531, 700, 900]


@pytest.mark.parametrize("output", ["plain", "relu", "linear"])
def test_the_equation_by_hand(output: Any) -> None:
    model = built(model_of(dilations=[1, 2], groups=1, output=output), tiny_sequences(), scale=5.0).eval()
    assert isinstance(model, NextItNet)
    items = torch.tensor([3, 1, 3, 5, 0, 2])
    x = model.item_table[items]

    def convolve(x: torch.Tensor, made: Convolution, dilation: int) -> torch.Tensor:
        taps = made.taps.weight.unflatten(1, (3, 4)).transpose(1, 2)  # (out, in, tap)
        padded = F.pad(x.T[None], (2 * dilation, 0))
        found = F.conv1d(padded, taps, made.taps.bias, dilation=dilation)[0].T
        return F.layer_norm(found, (4,), made.norm.weight, made.norm.bias, 1e-8).relu()

    (group,) = model.groups
    assert isinstance(group, nn.ModuleList)
    for dilation, block in zip([1, 2], group, strict=True):
        made: Any = block
        x = x + convolve(convolve(x, made.first, dilation), made.second, 2 * dilation)
    found = model.encode(Places(items[None]))
    torch.testing.assert_close(found.hidden_states[0], x)
    expected = {"plain": x, "relu": x.relu(), "linear": model.last(x) if output == "linear" else x}[output]
    torch.testing.assert_close(found.outputs, expected)


def test_the_teacher_of_a_published_search_has_its_size() -> None:
    model = NextItNet(dim=256, groups=8, gated=True, head="untied", max_length=300)
    model.build(tiny_sequences(), torch.Generator().manual_seed(0))
    tables = 2 * 14 * 256 + 14  # 14 items come in, 14 go out, and their bias
    assert model.num_layer_parameters() == model.num_parameters() - tables == 6_316_048
    assert model.lookback == 241


def test_users_are_read_from_as_few_items_as_the_convolutions_reach() -> None:
    interactions = tiny_sequences()
    model = built(model_of(dilations=[1], groups=1, max_length=20), interactions).eval()
    assert isinstance(model, NextItNet)
    assert model.lookback == 7  # 2 + 4 places back, and the newest item itself
    assert model_of(max_length=4).lookback == 4
    with torch.no_grad():
        state = model.state(next(model.batches(interactions, 1000, torch.Generator())))
        users = torch.tensor([3, 8])
        assert int(interactions.event_indptr.diff()[users].min()) > 7
        torch.testing.assert_close(model.vectors_of(interactions, users), state.user_embeddings(users))


def test_every_option_changes_something() -> None:
    single: list[Options] = [
        {"dilations": [1, 2]}, {"groups": 1}, {"kernel": 2}, {"gated": True}, {"output": "relu"},
        {"output": "linear"}, {"dropout": 0.2},
    ]  # fmt: skip
    check_every_option(model_of, [*OWN, *single])


def test_dilations_are_a_list_on_the_command_line() -> None:
    assert config.resolve_keys({"dilations": [1, 2]}, {"model": NextItNet}) == {
        "model": {"dilations": [1, 2]}
    }
    made = config.build(NextItNet, {"dilations": [1, 2]}, "model")
    assert made.options["dilations"] == [1, 2]
