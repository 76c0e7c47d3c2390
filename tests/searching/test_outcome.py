"""What is said of a search that has decided nothing, and of budgets that nothing meets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.errors import OptionError
from recdistill.searching import outcome
from recdistill.searching.budget import Found, Meter, Part
from recdistill.searching.options import SearchOptions
from recdistill.searching.outcome import _upwards, check_budget, preferred, searched, undecided
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


def test_a_cell_of_none_is_given_the_one_edge_that_it_misses_least() -> None:
    net = supernet(operations=["conv3", "avg3", "none"])  # edges: input to 1, input to 2, 1 to 2
    notes: list[str] = []
    with torch.no_grad():
        net.architecture["operations"].copy_(
            torch.tensor([[0.0, 1.0, 9.0], [2.0, 0.0, 5.0], [8.0, 0.0, 9.0]])
        )
        found = preferred(SearchOptions(allow_none=True), net, [], notes.append)
    assert str(found.architecture) == "none; conv3, none"  # 3 short of none; avg3 into node 1 is 8 short
    assert notes == [
        "edges prefer 'none' until no node hears the input: one edge from it takes its best other operation"
    ]


def test_the_edge_that_is_added_keeps_to_the_number_of_skips() -> None:
    net = supernet(operations=["conv3", "skip", "none"])
    with torch.no_grad():
        net.architecture["operations"].copy_(
            torch.tensor([[1.0, 2.0, 9.0], [0.0, 4.0, 9.0], [0.0, 0.0, 9.0]])
        )
        found = [
            str(preferred(SearchOptions(allow_none=True, max_skips=m), net, []).architecture) for m in (0, 2)
        ]
    assert found == ["conv3; none, none", "none; skip, none"]


def _pools(found: Found) -> float:
    return float(sum(name == "max3" for name in found.architecture.edges))


def _searched(net: Supernet, candidates: int, meters: list[Meter], seed: int = 0, rated: bool = True) -> Any:
    options = SearchOptions(candidates=candidates, max_megabytes=meters[0].limit if meters else None)
    generator = torch.Generator().manual_seed(seed)
    return searched(options, net, meters, _pools if rated else None, generator, lambda text: None)


def test_the_best_rated_of_the_candidates_is_taken() -> None:
    net = supernet(operations=["skip", "max3"])
    with torch.no_grad():
        net.architecture["operations"].copy_(torch.tensor([[0.5, 0.0]] * 3))  # skip is the more probable
    alone, told = _searched(net, 1, [])
    assert (str(alone.architecture), told) == ("skip; skip, skip", [])
    best, told = _searched(net, 60, [])
    assert str(best.architecture) == "max3; max3, max3"  # of 16, one of 60 draws of at least .05
    assert [one.metric for one in told] == sorted((one.metric for one in told), reverse=True)
    assert len({(one.text, one.cells) for one in told}) == len(told) <= 16
    assert told[0].metric == 3
    assert any(one.text == "skip; skip, skip" for one in told)
    again, _ = _searched(net, 60, [])
    assert again == best
    without, told = _searched(net, 60, [], rated=False)
    assert (str(without.architecture), told) == ("skip; skip, skip", [])


def test_every_candidate_stays_within_the_budget() -> None:
    net = supernet(operations=["skip", "max3"])
    meter = Meter("megabytes", Part(1.0), Part(0.0), {"skip": Part(0.0), "max3": Part(1.0)}, 3.5)
    best, told = _searched(net, 60, [meter])
    assert best.takes["megabytes"] == 3
    assert _pools(best) == 2
    assert all(one.cells * one.metric <= 2 for one in told)


def test_a_share_of_nearly_one_leaves_one_candidate_which_is_not_rated() -> None:
    net = supernet(operations=["skip", "max3"])
    with torch.no_grad():
        net.architecture["operations"].copy_(torch.tensor([[60.0, 0.0]] * 3))
        net.architecture["cells"].copy_(torch.tensor([[60.0, 0.0]]))
    found, told = _searched(net, 20, [])
    assert (str(found.architecture), found.cells, told) == ("skip; skip, skip", 1, [])


def test_budgets_are_named_upwards() -> None:
    assert [_upwards(v) for v in (0.0, 1.0, 1.001, 123.4, 0.012341)] == [0.0, 1.0, 1.01, 124.0, 0.0124]


def test_a_budgeted_cell_hears_the_input_whatever_the_skips() -> None:
    net: Any = built(
        Supernet(dim=4, nodes=2, cells=1, max_length=8, operations=["skip", "none"]), tiny_sequences()
    )
    meter = Meter("megabytes", Part(0.0), Part(0.0), {"skip": Part(0.0), "none": Part(0.0)}, 1.0)
    options = SearchOptions(allow_none=True, max_skips=0, max_megabytes=1.0)
    assert not preferred(options, net, [meter]).architecture.empty


def test_of_several_measurements_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([4.0, 3.0, 5.0, 6.0, 7.0])
    monkeypatch.setattr(outcome, "_latency", lambda *arguments: next(taken))
    net: Any = built(Supernet(dim=4, nodes=1, cells=1, max_length=8, operations=["skip"]), tiny_sequences())
    meter = Meter("latency_ms", Part(1.0), Part(0.0), {"skip": Part(0.0)}, 2.0)
    options = SearchOptions(max_latency_ms=2.0)
    found = outcome.drawn(options, net, [meter], torch.Generator().manual_seed(0), lambda text: None)
    assert found.takes["latency_ms"] == 3.0
