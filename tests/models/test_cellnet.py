"""CellNet: the conformance kit, the equation by hand, how far back it reads, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.errors import OptionError
from recdistill.models.cellnet import CellNet
from recdistill.models.cells import Cell, Neighbours
from recdistill.models.sequence_batches import Places
from recdistill.models.sequence_state import SequenceState
from recdistill.testing import built, check_sequence_model, tiny_sequences
from sequence_options import SHARED, Options, check_every_option

OWN: list[Options] = [
    {"architecture": "conv3; max3, avg3; none, conv5d2, skip"},
    {"architecture": "skip", "cells": 3},
    {"cells": 1, "dropout": 0.5},
]


def model_of(**options: Any) -> CellNet:
    chosen: dict[str, Any] = {"dim": 4, "max_length": 8, **options}
    return CellNet(**chosen)


@pytest.mark.parametrize("options", [o for o in [*SHARED, *OWN] if o.get("architecture") != "skip"], ids=str)
def test_conforms(options: Options) -> None:
    check_sequence_model(lambda: model_of(**options))


def test_what_looks_ahead_conforms_but_for_that() -> None:
    around = model_of(architecture="around3; skip, aroundmax3", causal=False)
    assert around.lookback == 7
    check_sequence_model(
        lambda: model_of(architecture="around3; skip, aroundmax3", causal=False), causal=False
    )
    with pytest.raises(AssertionError, match="changes what is made of earlier ones"):
        check_sequence_model(lambda: model_of(architecture="around3; skip, aroundmax3", causal=False))


def test_the_equation_by_hand() -> None:
    model = built(model_of(), tiny_sequences(), scale=5.0).eval()
    assert isinstance(model, CellNet)
    items = torch.tensor([3, 1, 3])
    x = 2.0 * model.item_table[items] + model.position_table[[2, 1, 1]]  # √4 = 2
    places = Places(items[None])
    found = model.encode(places)
    torch.testing.assert_close(found.embeddings, x)
    for cell, hidden in zip(model.cells, found.hidden_states, strict=True):
        assert isinstance(cell, Cell)
        x = cell(x, Neighbours(places))
        torch.testing.assert_close(hidden, x)
    torch.testing.assert_close(found.outputs, x)


def test_every_option_changes_something() -> None:
    check_every_option(model_of, OWN)


def test_users_are_read_from_as_few_items_as_the_convolutions_reach() -> None:
    interactions = tiny_sequences()
    model = built(model_of(architecture="conv3; skip, none", cells=2, max_length=20), interactions).eval()
    assert model.lookback == 5  # 2 cells of 2 places back, and the newest item itself
    assert (
        model_of(architecture="conv3; skip, none", cells=2, max_length=4).lookback == 3
    )  # as many as training reads
    with torch.no_grad():
        state = model.state(next(model.batches(interactions, 1000, torch.Generator())))
        assert isinstance(state, SequenceState)
        users = torch.tensor([3, 8])
        assert int(interactions.event_indptr.diff()[users].min()) > 5
        torch.testing.assert_close(model.vectors_of(interactions, users), state.user_embeddings(users))


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("none; none, none", "no node of the architecture 'none; none, none' hears the input"),
        ("none; none, conv3", "no node of the architecture 'none; none, conv3' hears the input"),
        ("around3", "reads the item that is to be predicted"),
        ("conv3; conv4, skip", "no operation is called 'conv4'"),
        ("", "at least one node"),
    ],
)
def test_architectures_that_are_refused(architecture: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        CellNet(architecture=architecture)
