"""Transport between layer sets: worked values, both exact solvers, Sinkhorn, the weights' update and its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.errors import OptionError
from recdistill.ops import transport
from recdistill.ops.transport import Solver, cooperative_weights, sinkhorn_plan, transport_plan

SOLVERS: list[Solver] = ["pot", "linprog"]


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


THIRDS, HALVES = torch.full((3,), 1 / 3, dtype=torch.float64), f64([0.5, 0.5])
COST = f64([[1, 5], [4, 2], [6, 1]])
PLAN = f64([[1 / 3, 0], [1 / 6, 1 / 6], [0, 1 / 3]])


def value(plan: Tensor, cost: Tensor) -> float:
    return float((plan * cost).sum())


def same(found: Tensor, expected: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, f64(expected), atol=tolerance, rtol=0)


def is_optimal(plan: Tensor, cost: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Marginals hold, and no cycle of two rows and two columns that carry flow can be made cheaper."""
    same(plan.sum(dim=1), rows.tolist())
    same(plan.sum(dim=0), columns.tolist())
    assert bool((plan >= 0).all())
    flows = [(i, j) for i, j in (plan > 1e-9).nonzero().tolist()]
    for i, j in flows:
        for k, m in flows:
            assert cost[i, j] + cost[k, m] <= cost[i, m] + cost[k, j] + 1e-9


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_plan_worked_by_hand(solver: Solver) -> None:
    plan = transport_plan(COST, THIRDS, HALVES, solver)
    same(plan, PLAN.tolist())
    assert value(plan, COST) == pytest.approx(1 / 3 + 2 / 3 + 1 / 3 + 1 / 3, abs=1e-9)
    f, g = f64([-1, 2, 1]), f64([2, 0])  # dual prices: feasible, tight where there is flow, of the same value
    slack = COST - f[:, None] - g
    assert bool((slack >= 0).all())
    assert value(plan, slack) == pytest.approx(0, abs=1e-9)
    assert float(THIRDS @ f + HALVES @ g) == pytest.approx(5 / 3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_transpose_has_the_transposed_plan(solver: Solver) -> None:
    same(transport_plan(COST.T, HALVES, THIRDS, solver), PLAN.T.tolist())


@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_that_are_not_uniform(solver: Solver) -> None:
    plan = transport_plan(COST, f64([0.2, 0.5, 0.3]), f64([0.6, 0.4]), solver)
    same(plan, [[0.2, 0], [0.4, 0.1], [0, 0.3]])
    assert value(plan, COST) == pytest.approx(0.2 + 1.6 + 0.2 + 0.3)


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    ties=st.booleans(),
)
def test_every_plan_is_optimal(solver: Solver, n: int, m: int, seed: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(n, m, generator=generator, dtype=torch.float64)
    if ties:
        cost = (3 * cost).round()
    rows, columns = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.01 for k in (n, m))
    rows, columns = rows / rows.sum(), columns / columns.sum()
    plan = transport_plan(cost, rows, columns, solver)
    is_optimal(plan, cost, rows, columns)
    least = max(float(rows @ cost.min(dim=1).values), float(columns @ cost.min(dim=0).values))
    assert least - 1e-9 <= value(plan, cost) <= float(rows @ cost @ columns) + 1e-9


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_two_columns_are_filled_greedily(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    rows = torch.rand(n, generator=generator, dtype=torch.float64) + 0.01
    rows = rows / rows.sum()
    first = float(torch.rand((), generator=generator, dtype=torch.float64))
    left, expected = first, 0.0
    for i in (cost[:, 0] - cost[:, 1]).argsort().tolist():
        taken = min(left, float(rows[i]))
        left -= taken
        expected += taken * float(cost[i, 0]) + (float(rows[i]) - taken) * float(cost[i, 1])
    found = value(transport_plan(cost, rows, f64([first, 1 - first])), cost)
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_plan_is_the_gradient() -> None:
    cost = COST.clone().requires_grad_()
    (-3 * (transport_plan(cost, THIRDS, HALVES) * cost).sum()).backward()
    assert cost.grad is not None
    same(cost.grad, (-3 * PLAN).tolist())


def test_dtype_sums_and_rounding() -> None:
    plan = transport_plan(COST.float(), 2 * THIRDS.float(), HALVES.float())
    assert plan.dtype == torch.float32
    same(plan.double(), PLAN.tolist(), 1e-6)
    below = transport_plan(f64([[-2.8e-17, 1], [1, 0]]), HALVES, HALVES)
    same(below, [[0.5, 0], [0, 0.5]])
    none = transport_plan(COST, f64([0.5, 0, 0.5]), HALVES)
    same(none, [[0.5, 0], [0, 0], [0, 0.5]])


def test_pot_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_has_pot", lambda: False)
    same(transport_plan(COST, THIRDS, HALVES), PLAN.tolist())  # scipy stands in
    with pytest.raises(OptionError, match=r"recdistill\[ot\]"):
        transport_plan(COST, THIRDS, HALVES, "pot")


@pytest.mark.parametrize(("epsilon", "expected"), [(1.0, 1.71341), (0.5, 1.66913), (0.1, 1.6666667)])
def test_sinkhorn_falls_to_the_exact_value(epsilon: float, expected: float) -> None:
    plan = sinkhorn_plan(COST, THIRDS, HALVES, epsilon, iterations=500)
    assert value(plan, COST) == pytest.approx(expected, abs=1e-5)
    same(plan.sum(dim=1), THIRDS.tolist(), 1e-6)
    same(plan.sum(dim=0), HALVES.tolist())


def test_sinkhorn_is_batched_and_differentiable() -> None:
    costs = torch.stack([COST, 10 * COST.flip(0)])
    together = sinkhorn_plan(costs, THIRDS.expand(2, 3), HALVES.expand(2, 2))
    for cost, plan in zip(costs, together, strict=True):
        torch.testing.assert_close(plan, sinkhorn_plan(cost, THIRDS, HALVES))
        assert value(plan, cost) == pytest.approx(value(transport_plan(cost, THIRDS, HALVES), cost), rel=1e-3)

    def distance(cost: Tensor) -> Tensor:
        return (sinkhorn_plan(cost, THIRDS, HALVES, 0.7, iterations=20) * cost).sum()

    assert torch.autograd.gradcheck(distance, (COST.clone().requires_grad_(),))


def test_sinkhorn_without_cost_or_with_weights_of_zero() -> None:
    same(sinkhorn_plan(torch.zeros_like(COST), THIRDS, HALVES), [[1 / 6, 1 / 6]] * 3)
    plan = sinkhorn_plan(COST, f64([0.5, 0, 0.5]), HALVES)
    assert bool(torch.isfinite(plan).all())
    assert float(plan[1].sum()) == pytest.approx(0, abs=1e-9)


def test_weights_worked_by_hand() -> None:
    """c = (1, 3, 1), v = (5, 5/3, 5); d = (2, 4/3), q = (5/3, 5/2)."""
    w, u = cooperative_weights(PLAN, COST, THIRDS, HALVES, temperature=10, smoothing=0, floor=0)
    same(w, [0.3681165007, 0.2637669987, 0.3681165007])
    same(u, [0.4791787146, 0.5208212854])
    plan = transport_plan(COST, w, u)
    same(plan, [[0.3681165007, 0], [0.1110622140, 0.1527047847], [0, 0.3681165007]])
    assert value(plan, COST) == pytest.approx(1.4858914266, abs=1e-9)
    w, u = cooperative_weights(PLAN, COST, THIRDS, HALVES, temperature=1, smoothing=0, floor=0)
    same(w, [0.4912377931, 0.0175244138, 0.4912377931])
    same(u, [0.3029407160, 0.6970592840])


def test_weights_with_smoothing() -> None:
    w, u = cooperative_weights(PLAN, COST, THIRDS, HALVES)
    same(w, [0.3619433772, 0.2761132455, 0.3619433772])
    same(u, [0.4829126397, 0.5170873603])


def test_the_layer_that_fits_perfectly_gets_the_most() -> None:
    plan = torch.eye(3, dtype=torch.float64) / 3
    c = [0.065406018, -2.8e-17, 0.1438410362]
    cost = torch.diag(f64(c))
    w, _ = cooperative_weights(plan, cost, THIRDS, THIRDS)
    same(w, [0.0591598886, 0.8899384467, 0.0509016647])
    w, _ = cooperative_weights(plan, cost, THIRDS, THIRDS, smoothing=0)
    same(w, [1e-4 / 1.0002, 1 / 1.0002, 1e-4 / 1.0002])


def test_weights_stay_where_nothing_costs_anything() -> None:
    w, u = cooperative_weights(PLAN, torch.zeros_like(COST), f64([0.2, 0.3, 0.5]), HALVES)
    same(w, [0.2, 0.3, 0.5])
    same(u, [0.5, 0.5])


def test_a_side_that_is_absent_stays_absent() -> None:
    rows = f64([0.5, 0.0, 0.5])
    plan = transport_plan(COST, rows, HALVES)
    w, _ = cooperative_weights(plan, COST, rows, HALVES)
    assert float(w[1]) == 0
    assert math.isclose(float(w.sum()), 1)


def test_the_columns_may_have_a_cost_of_their_own() -> None:
    _, u = cooperative_weights(PLAN, COST, THIRDS, HALVES, column_cost=COST.flip(1))
    _, swapped = cooperative_weights(PLAN, COST, THIRDS, HALVES)
    assert not torch.allclose(u, swapped)


def test_sinkhorn_goes_on_until_its_rows_fit() -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(6, 8, generator=generator) ** 3
    rows = torch.softmax(2 * torch.randn(6, generator=generator), dim=0)
    columns = torch.softmax(2 * torch.randn(8, generator=generator), dim=0)
    plan = sinkhorn_plan(cost, rows, columns)
    torch.testing.assert_close(plan.sum(dim=1), rows, atol=1e-5, rtol=0)
    exact = transport_plan(cost, rows, columns)
    assert value(plan, cost) >= value(exact, cost) - 1e-5
    few = sinkhorn_plan(cost, rows, columns, iterations=5)
    assert float((few.sum(dim=1) - rows).abs().max()) > 1e-3


def test_costs_are_a_unit_of_weight() -> None:
    # all of both rows costs 1 a unit of weight: c = 1, 1, whatever their weights
    plan = torch.tensor([[0.9], [0.1]], dtype=torch.float64)
    cost = torch.ones(2, 1, dtype=torch.float64)
    w, u = cooperative_weights(plan, cost, torch.tensor([0.9, 0.1]).double(), torch.ones(1).double())
    assert w.tolist() == pytest.approx([0.5, 0.5])
    assert u.tolist() == [1.0]
