"""What is said of a search that has decided nothing, and of budgets that nothing meets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.errors import OptionError
from recdistill.searching.budget import Meter, Part
from recdistill.searching.options import SearchOptions
from recdistill.searching.outcome import check_budget, undecided
from recdistill.searching.supernet import Supernet
from recdistill.testing import built, tiny_sequences


def supernet(**options: Any) -> Supernet:
    net = built(Supernet(dim=4, nodes=2, cells=2, max_length=8, **options), tiny_sequences())
    assert isinstance(net, Supernet)
    return net


def test_even_shares_are_told() -> None:
    net = supernet(operations=["conv3", "avg3", "skip", "none"])
    alpha = net.architecture["operations"]
    with torch.no_grad():
        alpha.zero_()
        told = undecided(net)
        assert told is not None
        assert "largest share is 25.0% on average, and 25.0% is even" in told
        alpha[:, 1] = torch.log(torch.tensor(1.7))  # 1.7 / 4.7 = .362, and 1.5 times .25 is .375
        assert undecided(net) is not None
        alpha[:, 1] = torch.log(torch.tensor(1.9))
        assert undecided(net) is None


@pytest.mark.parametrize(
    ("missed", "hint"),
    [
        (["megabytes"], "raise the budget, or lower model.dim (tables take dim numbers an item)"),
        (["latency_ms"], "raise the budget, or lower model.dim or model.max_length"),
        (
            ["megabytes", "latency_ms"],
            "raise the budget, or lower model.dim (tables take dim numbers an item) or model.max_length",
        ),
    ],
)
def test_what_helps_against_a_budget_that_nothing_meets(missed: list[str], hint: str) -> None:
    net = supernet(operations=["avg3"])
    meters = [
        Meter(name, Part(3.0), Part(0.0), {"avg3": Part(1.0)}, 0.5 if name in missed else 100.0)
        for name in ("megabytes", "latency_ms")
    ]
    with pytest.raises(OptionError, match="in 1 cell, takes") as caught:
        check_budget(SearchOptions(max_megabytes=1.0), net, meters)
    assert caught.value.hint == hint
