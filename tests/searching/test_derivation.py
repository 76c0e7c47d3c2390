"""From parameters to an architecture: policies, degenerate cells, spaces that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.errors import OptionError
from recdistill.models.architecture import SPACES
from recdistill.searching.derivation import derive, entropy, space

NAMES = ("conv3", "skip", "none")


def alpha(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def test_each_edge_takes_its_best() -> None:
    found = derive(alpha([1, 0, 0], [0, 1, 0], [0, 0, 9]), NAMES, allow_none=True)
    assert str(found) == "conv3; skip, none"
    assert str(derive(alpha([1, 0, 0], [0, 1, 0], [0, 1, 9]), NAMES)) == "conv3; skip, skip"


def test_equal_preferences_go_to_the_first() -> None:
    assert str(derive(alpha([0, 0, 0]), NAMES)) == "conv3"


def test_a_cell_of_none() -> None:
    flat = alpha([0, 0, 1], [0, 0, 1], [0, 0, 1])
    assert derive(flat, NAMES, allow_none=True).empty
    assert not derive(flat, NAMES).empty
    assert derive(flat[:, 2:], NAMES[2:], allow_none=True).empty


def test_two_edges_a_node() -> None:
    rows = [[1.0, 0, 0]] * 3 + [[3.0, 0, 0], [1.0, 0, 0], [0, 2.0, 0]]
    assert str(derive(alpha(*rows), NAMES, policy="darts")) == "conv3; conv3, conv3; conv3, none, skip"
    strong_none = [[1.0, 0, 0]] * 3 + [[3.0, 0, 9], [1.0, 0, 0], [0, 2.0, 0]]
    assert str(derive(alpha(*strong_none), NAMES, policy="darts")).endswith("none, conv3, skip")


def test_skips_are_capped() -> None:
    rows = [[0, 3.0, 0], [0, 1.0, 0], [0, 2.0, 0]]
    assert derive(alpha(*rows), NAMES).edges == ("skip", "skip", "skip")
    assert derive(alpha(*rows), NAMES, max_skips=2).edges == ("skip", "conv3", "skip")
    assert derive(alpha(*rows), NAMES, max_skips=0).edges == ("conv3",) * 3
    only = alpha([1, 0], [1, 0], [1, 0])
    assert derive(only, ("skip", "none"), max_skips=1).edges == ("skip",) * 3  # there is nothing else


def test_entropy() -> None:
    assert entropy(torch.zeros(3, 8)) == pytest.approx(math.log(8))
    assert entropy(alpha([100, 0, 0])) == pytest.approx(0, abs=1e-9)


def test_spaces() -> None:
    assert space("causal") == SPACES["causal"]
    assert space("released", causal=False) == SPACES["released"]
    assert space(["skip", "conv3", "skip"]) == ("skip", "conv3")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("released", "sees the item that is to be predicted"),
        (["around3", "skip"], "found around3"),
        ("wide", "no space is called 'wide'"),
        (["conv7"], "no operation is called 'conv7'"),
        (["none"], "holds no operation"),
        ([], "holds no operation"),
    ],
)
def test_spaces_that_are_refused(names: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        space(names)


def test_none_is_one_of_the_two_edges_where_it_is_allowed() -> None:
    rows = [[1.0, 0, 0]] * 3 + [[0, 0, 9.0], [1.0, 0, 0], [0, 2.0, 0]]
    found = derive(alpha(*rows), NAMES, policy="darts", allow_none=True)
    assert str(found).endswith("none, none, skip")


def test_skips_that_nothing_can_replace_stay() -> None:
    only = alpha(*[[0, 1.0]] * 3)
    assert derive(only, ("none", "skip"), max_skips=1).edges == ("skip",) * 3
