"""Costs: exact counts, the published table rebuilt, worked sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.models.architecture import SPACES
from recdistill.models.cells import Convolution, make_operation
from recdistill.searching.costs import SHIPPED, cell_cost, cost_table, count, latency_table

RELEASED = SPACES["released"]
EDGES = ["conv3d2", "skip", "around5", "aroundmax3", "none", "around3d2"]


def one_hot(names: list[str]) -> Tensor:
    places = torch.tensor([RELEASED.index(name) for name in names])
    return torch.nn.functional.one_hot(places, len(RELEASED)).double()


def by_kind(table: Tensor, names: tuple[str, ...] = RELEASED) -> list[float]:
    """Costs of conv3, conv5, pool, skip, none."""
    wanted = [
        next(i for i, name in enumerate(names) if key in name) for key in ("3", "5", "max", "skip", "none")
    ]
    return [float(table[i]) for i in wanted]


def test_counts() -> None:
    assert count("conv3", 100, 128) == (4_953_600, 49_536)
    assert count("around5d2", 100, 128) == (8_230_400, 82_304)
    assert count("max3", 100, 128) == (12_800, 0)
    assert count("skip", 100, 128) == count("none", 100, 128) == (0, 0)
    for name in SPACES["causal"]:
        module = make_operation(name, 6, torch.Generator())
        size = sum(p.numel() for p in module.parameters()) if isinstance(module, Convolution) else 0
        assert count(name, 10, 6).parameters == size


def test_the_published_table() -> None:
    found = by_kind(cost_table("released", RELEASED, *SHIPPED))
    assert found == pytest.approx([0.56531834, 2.12701275, 0.48075444, 0.48074893, 0.48074893], abs=1e-8)
    assert float(cost_table("released", RELEASED, *SHIPPED).sum()) == pytest.approx(10)


@pytest.mark.parametrize(
    ("length", "dim", "expected"),
    [
        (50, 64, [1.0186, 1.2846, 0.7731, 0.7722, 0.7722]),
        (20, 32, [1.0063, 1.0285, 0.9740, 0.9737, 0.9737]),
        (10, 8, [1.0003, 1.0010, 0.9991, 0.9991, 0.9991]),
    ],
)
def test_its_softmax_is_flat_at_a_students_size(length: int, dim: int, expected: list[float]) -> None:
    assert by_kind(cost_table("released", RELEASED, length, dim)) == pytest.approx(expected, abs=5e-5)


def test_linear_costs() -> None:
    found = by_kind(cost_table("linear", RELEASED, 50, 64))
    assert found == pytest.approx([0.12540198, 0.20771713, 0.00032134, 0, 0], abs=5e-9)
    causal = cost_table("linear", SPACES["causal"], 50, 64)
    assert by_kind(causal, SPACES["causal"]) == pytest.approx(
        [0.1880426, 0.3114757, 0.0004817, 0, 0], abs=5e-8
    )
    assert float(causal.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("form", "names", "expected"),
    [
        ("released", EDGES, 4.69990173),
        ("released", ["none"] * 6, 2.88449358),
        ("released", ["around5"] * 6, 12.7620765),
        ("adabert", EDGES, 4.69990173 / 10 / 6 / 2),
        ("linear", EDGES, 0.45884242670875 / 6 / 2),
    ],
)
def test_costs_of_a_cell(form: Any, names: list[str], expected: float) -> None:
    size = (50, 64) if form == "linear" else SHIPPED
    table = cost_table(form, RELEASED, *size)
    assert float(cell_cost(one_hot(names), table, form, 4, 8)) == pytest.approx(expected, abs=3e-8)


def test_costs_worked_out() -> None:
    adabert = cell_cost(one_hot(EDGES), cost_table("adabert", RELEASED, *SHIPPED), "adabert", 4, 8)
    assert float(adabert) == pytest.approx(0.0391658476653886, abs=1e-12)
    linear = cell_cost(one_hot(EDGES), cost_table("linear", RELEASED, 50, 64), "linear", 1, 1)
    assert float(linear) == pytest.approx(0.07647373778479, abs=1e-12)
    uniform = torch.full((6, 10), 0.1, dtype=torch.float64)
    released = cell_cost(uniform, cost_table("released", RELEASED, *SHIPPED), "released", 4, 8)
    assert float(released) == pytest.approx(6, abs=1e-8)


def test_the_trade_offs_of_the_published_sum() -> None:
    """8 · 4.69990173 + ½ · 2 + ½ (0.3 + 0.5 + 0.7)."""
    table = cost_table("released", RELEASED, *SHIPPED)
    cost = float(cell_cost(one_hot(EDGES), table, "released", 4, 8))
    assert 0.5 * 2 + 0.5 * (0.3 + 0.5 + 0.7) + 8 * cost == pytest.approx(39.34921384, abs=1e-7)


def test_gradients_reach_the_choices() -> None:
    choices = torch.full((6, 8), 1 / 8, requires_grad=True)
    cell_cost(choices, cost_table("linear", SPACES["causal"], 50, 64), "linear", 2, 4).backward()
    assert choices.grad is not None
    assert float(choices.grad[0, 2]) == pytest.approx(0.3114757 / 6 / 2, abs=1e-6)


def test_measured_costs_are_shares_of_their_sum() -> None:
    table = latency_table([4.0, 1.0, 0.0])
    assert table.tolist() == pytest.approx([0.8, 0.2, 0.0])
    choices = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert float(cell_cost(choices, table, "latency", 2, 4)) == pytest.approx((0.8 + 0.2) / 2 * 2 / 4)
    assert latency_table([0.0, 0.0]).tolist() == [0.0, 0.0]
