"""Budgets: bytes counted exactly, the most probable architecture within limits, the nearest where there is none."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from recdistill.models.architecture import SPACES, Architecture
from recdistill.models.cellnet import CellNet
from recdistill.searching import budget
from recdistill.searching.budget import Meter, Part, best_within, bytes_meter, width_of
from recdistill.searching.derivation import log_shares
from recdistill.testing import tiny_sequences

NAMES = SPACES["causal"]
DATA = tiny_sequences()
GENERATOR = torch.Generator().manual_seed(0)


def latency(limit: float | None = None) -> Meter:
    """1 + .1 W for the model, .5 a cell, an operation its kernel in fifths and a hundredth of it an item."""
    parts = {name: Part(0.2 * n, 0.01 * n) for n, name in enumerate(NAMES)}
    return Meter("latency_ms", Part(1.0, 0.1), Part(0.5, 0.0), parts, limit)


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("text", ["conv3; skip, conv5d2", "max3; none, conv3", "skip; avg3, none"])
def test_bytes_are_those_of_the_model(text: str, head: str) -> None:
    architecture = Architecture.parse(text)
    for cells in (1, 3):
        model = CellNet(
            architecture=text, cells=cells, dim=6, max_length=9, head="untied" if head == "untied" else "tied"
        )
        model.build(DATA, GENERATOR)
        meter = bytes_meter(NAMES, DATA.num_items, 6, 9, 2, head == "untied", None)
        assert meter.of(architecture, cells, 9) * 1e6 == pytest.approx(4 * model.num_parameters())


def test_totals_by_hand() -> None:
    architecture = Architecture.parse("conv3d2; skip, conv3")  # places 1, 6, 0
    assert width_of(architecture, 2, 50) == 2 * 6 + 1
    expected = 1 + 0.1 * 13 + 2 * (0.5 + 0.2 * 7 + 0.01 * 7 * 13)
    assert latency().of(architecture, 2, 50) == pytest.approx(expected)
    choices = torch.zeros(3, 8)
    choices[[0, 1, 2], [1, 6, 0]] = 1.0
    found = latency().expected(choices, torch.tensor(2.0), NAMES, 13)
    assert float(found) == pytest.approx(expected)
    assert latency().scaled(2.0).of(architecture, 2, 50) == pytest.approx(2 * expected)


def test_the_most_probable_of_all_that_are_within() -> None:
    names = ("conv3", "conv5d2", "skip", "none")
    alpha = torch.randn(3, 4, generator=GENERATOR)
    shares = log_shares(alpha, names, True)
    cells = torch.log_softmax(torch.randn(3, generator=GENERATOR, dtype=torch.float64), dim=0)
    parts = {name: Part(1.0 + n, 0.1) for n, name in enumerate(names)}
    for limit in (6.0, 8.0, 12.0, 40.0):
        meters = [Meter("x", Part(0.5, 0.05), Part(0.3), parts, limit)]
        every: list[tuple[float, str, int]] = []
        for chosen in itertools.product(range(4), repeat=3):
            architecture = Architecture.from_edges([names[k] for k in chosen])
            for count in (1, 2, 3):
                if meters[0].of(architecture, count, 20) <= limit:
                    score = sum(float(shares[e, k]) for e, k in enumerate(chosen)) + float(cells[count - 1])
                    every.append((score, str(architecture), count))
        found = best_within(shares, cells, names, meters, 20)
        assert found.within
        assert (str(found.architecture), found.cells) == max(every)[1:]
        assert found.takes["x"] <= limit


@pytest.mark.parametrize("nodes", [4, 5])
def test_a_budget_that_the_cheapest_meet_is_met_in_large_spaces(nodes: int) -> None:
    """Of 10 or 15 edges not every cell is looked at, but the cheapest one is."""
    edges = nodes * (nodes + 1) // 2
    alpha = torch.randn(edges, len(NAMES), generator=GENERATOR)
    meter = bytes_meter(NAMES, 100, 4, 10, nodes, False, None)
    least = meter.of(Architecture.from_edges(["skip"] * edges), 1, 10)
    limited = dataclasses.replace(meter, limit=least * (1 + 1e-9))
    found = best_within(log_shares(alpha, NAMES, False), torch.zeros(3), NAMES, [limited], 10)
    assert found.within
    assert found.takes["megabytes"] <= least * (1 + 1e-9)


def test_skips_are_capped_within_budgets() -> None:
    alpha = torch.zeros(3, len(NAMES))
    alpha[:, NAMES.index("skip")] = 5.0
    shares, cells = log_shares(alpha, NAMES, False), torch.zeros(2)
    assert best_within(shares, cells, NAMES, [latency(50.0)], 50).architecture.edges.count("skip") == 3
    assert best_within(shares, cells, NAMES, [latency(50.0)], 50, 1).architecture.edges.count("skip") == 1


def test_pressure_is_what_the_limit_leaves_beside_the_base() -> None:
    choices = torch.nn.functional.one_hot(torch.tensor([0, 1, 2]), len(NAMES)).float()
    meter, cells = latency(5.0), torch.tensor(2.0)
    base, taken = 1 + 0.1 * 7, 2 * (0.5 + 0.2 * 3 + 0.01 * 3 * 7)
    assert float(meter.pressure(choices, cells, NAMES, 7)) == pytest.approx(taken / (5 - base))


@pytest.mark.parametrize("limit", [1.0, 1.7 + 1e-12, 2.0])
def test_pressure_stays_finite_where_the_base_leaves_nothing(limit: float) -> None:
    """The base is 1.7 at 7 items; the cheapest cell takes .5, its edges nothing."""
    choices = torch.nn.functional.one_hot(torch.tensor([0, 0, 0]), len(NAMES)).float()
    one, three = (float(latency(limit).pressure(choices, torch.tensor(k), NAMES, 7)) for k in (1.0, 3.0))
    assert (one, three) == pytest.approx((1, 3))
    assert float(latency(2.7).pressure(choices, torch.tensor(1.0), NAMES, 7)) == pytest.approx(0.5)


def test_without_limits_each_edge_takes_its_best() -> None:
    alpha = torch.randn(6, 8, generator=GENERATOR)
    shares = log_shares(alpha, NAMES, False)
    found = best_within(shares, torch.tensor([0.1, 0.9]).log(), NAMES, [latency()], 50)
    assert found.architecture.edges == tuple(NAMES[int(k)] for k in shares.argmax(dim=1))
    assert found.cells == 2


def test_a_budget_that_nothing_meets_gives_the_nearest() -> None:
    shares = log_shares(torch.zeros(3, 8), NAMES, False)
    found = best_within(shares, torch.zeros(3), NAMES, [latency(0.5)], 50)
    assert not found.within
    assert found.cells == 1
    assert set(found.architecture.edges) == {"conv3"}  # the cheapest here
    assert found.takes["latency_ms"] > 0.5


def test_cells_that_may_not_be_are_left_out() -> None:
    shares = log_shares(torch.zeros(1, 8), NAMES, False)
    found = best_within(shares, torch.tensor([-torch.inf, 0.0]), NAMES, [latency(0.1)], 50)
    assert found.cells == 2


def test_large_spaces_keep_the_most_probable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_MOST", 70)
    alpha = torch.randn(6, 8, generator=GENERATOR)
    shares = log_shares(alpha, NAMES, False)
    found = best_within(shares, torch.zeros(1), NAMES, [latency(100.0)], 50)
    assert found.architecture.edges == tuple(NAMES[int(k)] for k in shares.argmax(dim=1))


def test_reaches_agree_with_the_architectures() -> None:
    names = ("conv3", "conv5d2", "avg3", "skip", "none")
    rows = torch.randint(5, (200, 6), generator=GENERATOR)
    found = budget._reach(rows, names)
    expected = [Architecture.from_edges([names[int(k)] for k in row]).reach for row in rows]
    assert found.tolist() == expected


def test_a_cell_that_hears_nothing_is_neither_found_nor_the_nearest() -> None:
    names = ("conv3", "none")
    shares = torch.tensor([[-9.0, 0.0]] * 3, dtype=torch.float64)  # all prefer 'none'
    for limit, within in ((0.0006, False), (0.0025, True)):
        meter = bytes_meter(names, DATA.num_items, 4, 9, 2, False, limit)
        found = best_within(shares, torch.zeros(1, dtype=torch.float64), names, [meter], 9)
        assert not found.architecture.empty
        assert found.architecture.edges.count("conv3") == 1
        assert found.within is within
    everyone = torch.cartesian_prod(*(torch.arange(2) for _ in range(3)))
    heard = [not Architecture.from_edges([names[int(k)] for k in row]).empty for row in everyone]
    assert budget._hears(everyone, names).tolist() == heard


def test_a_limit_may_be_met_exactly() -> None:
    meter = Meter("x", Part(0.0), Part(0.0), {"conv3": Part(0.5), "skip": Part(0.25)}, 0.5)
    shares = torch.tensor([[0.0, -1.0]], dtype=torch.float64)
    found = best_within(shares, torch.zeros(1), ("conv3", "skip"), [meter], 9)
    assert found.within
    assert found.architecture.edges == ("conv3",)


def test_the_nearest_to_a_budget_need_not_be_the_most_probable() -> None:
    meter = Meter("x", Part(1.0), Part(0.0), {"conv3": Part(0.5), "skip": Part(0.25)}, 0.5)
    shares = torch.tensor([[0.0, -1.0]], dtype=torch.float64)  # conv3 is more probable
    found = best_within(shares, torch.zeros(2), ("conv3", "skip"), [meter], 9)
    assert not found.within
    assert (found.architecture.edges, found.cells) == (("skip",), 1)


def test_the_cheapest_cell_has_all_its_edges() -> None:
    parts = {"conv3": Part(0.5), "skip": Part(0.2)}
    meter = Meter("x", Part(2.0), Part(0.1), parts, 2.0)  # the base leaves nothing
    choices = torch.tensor([[0.0, 1.0]] * 3)
    assert float(meter.pressure(choices, torch.tensor(1.0), ("conv3", "skip"), 5)) == pytest.approx(1.0)
