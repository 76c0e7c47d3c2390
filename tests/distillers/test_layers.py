"""Layers side by side: worked distances, the transport between them, maps by name."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.distillers.layers import LayerTransport, layer_distances, layer_map, pair_distances
from recdistill.ops.transport import cooperative_weights, transport_plan

LN2, LN3 = math.log(2), math.log(3)
GENERATOR = torch.Generator().manual_seed(0)


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one_position(rows: list[tuple[float, float]]) -> Tensor:
    return f64([[list(row)] for row in rows])  # (N, 1, 2)


TEACHERS = one_position([(0, 0), (LN3, 0)])
STUDENTS = one_position([(0, LN2), (LN2, 0), (0, LN3)])
THIRDS, HALVES = torch.full((3,), 1 / 3, dtype=torch.float64), f64([0.5, 0.5])
FORWARD = [[0.0588915178, 0.3629903489], [0.0588915178, 0.0164167586], [0.1438410362, 0.5493061443]]
REVERSE = [[0.0566330123, 0.3835760966], [0.0566330123, 0.0173720004], [0.1308120359, 0.5493061443]]


def same(found: Tensor, expected: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, f64(expected), atol=tolerance, rtol=0)


def transported(cost: Tensor) -> tuple[Tensor, Tensor]:
    plan = transport_plan(cost, THIRDS, HALVES)
    return plan, (plan * cost).sum()


def test_forward_divergences_and_what_moving_them_costs() -> None:
    students = STUDENTS.clone().requires_grad_()
    cost = layer_distances(students, TEACHERS)
    same(cost.detach(), FORWARD)
    plan, loss = transported(cost)
    same(plan, [[1 / 6, 1 / 6], [0, 1 / 3], [1 / 3, 0]])
    analytic = (
        (0.5 * LN2 + 0.5 * math.log(2 / 3)) / 3
        + (0.5 * math.log(1.5) + 0.5 * math.log(0.75)) / 6
        + (0.75 * math.log(2.25) + 0.25 * math.log(0.375)) / 6
        + (0.75 * math.log(1.125) + 0.25 * math.log(0.75)) / 3
    )
    assert float(loss.detach()) == pytest.approx(analytic, abs=1e-9)
    assert float(loss.detach()) == pytest.approx(0.1237329094079954, abs=1e-9)
    loss.backward()
    assert students.grad is not None
    same(students.grad[:, 0], [[-7 / 72, 7 / 72], [-1 / 36, 1 / 36], [-1 / 12, 1 / 12]])


def test_reverse_divergences() -> None:
    students = STUDENTS.clone().requires_grad_()
    cost = layer_distances(students, TEACHERS, reverse=True)
    same(cost.detach(), REVERSE)
    _, loss = transported(cost)
    assert float(loss.detach()) == pytest.approx(0.1227628635848539, abs=1e-9)
    loss.backward()
    assert students.grad is not None
    same(students.grad[:, 0, 0], [-0.0920335796, -0.0300344525, -0.0686632680])


def test_weights_after_a_step() -> None:
    forward, reverse = layer_distances(STUDENTS, TEACHERS), layer_distances(STUDENTS, TEACHERS, reverse=True)
    published: dict[str, Any] = {"smoothing": 0.0, "floor": 0.0}
    plan, _ = transported(forward)
    w, u = cooperative_weights(plan, forward, THIRDS, HALVES, **published)
    same(w, [0.0987055996, 0.7941443039, 0.1071500965])
    same(u, [0.5066628801, 0.4933371199])
    assert float((transport_plan(forward, w, u) * forward).sum()) == pytest.approx(0.0470394916, abs=1e-9)
    _, other = cooperative_weights(plan, forward, THIRDS, HALVES, column_cost=reverse, **published)
    same(other, [0.5138367513, 0.4861632487])
    w, _ = cooperative_weights(plan, forward, THIRDS, HALVES)
    same(w, [0.1942350262, 0.5971547131, 0.2086102606])
    w, u = cooperative_weights(plan, reverse, THIRDS, HALVES, column_cost=forward, **published)
    same(w, [0.1090678877, 0.7686676501, 0.1222644622])
    same(u, [0.5066628801, 0.4933371199])
    assert float((transport_plan(reverse, w, u) * reverse).sum()) == pytest.approx(0.0463335562, abs=1e-9)


def test_a_layer_that_agrees_with_one_of_the_teacher() -> None:
    students = one_position([(0, 0), (LN3, 0), (0, LN3)])
    cost = layer_distances(students, TEACHERS)
    assert float(cost[1, 1]) == pytest.approx(0, abs=1e-15)
    plan, loss = transported(cost)
    assert float(loss) == pytest.approx(0.0697490180654863, abs=1e-9)
    w, _ = cooperative_weights(plan, cost, THIRDS, HALVES)
    assert bool(torch.isfinite(w).all())
    assert float(w[1]) == pytest.approx(0.8899384467, abs=1e-9)
    assert bool((w > 0).all())


def test_squared_errors_over_positions_and_channels() -> None:
    teachers = torch.stack([f64([[1, 0], [0, 1]]), torch.full((2, 2), 2.0, dtype=torch.float64)])
    ones = torch.ones(2, 2, dtype=torch.float64)
    students = torch.stack([f64([[1, 0], [0, 0]]), ones, f64([[2, 1], [2, 3]])]).requires_grad_()
    cost = layer_distances(students, teachers, "mse")
    same(cost.detach(), [[0.25, 3.25], [0.5, 1], [2.5, 0.5]])
    plan, loss = transported(cost)
    same(plan, [[1 / 3, 0], [1 / 6, 1 / 6], [0, 1 / 3]])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5)
    assert students.grad is not None
    same(students.grad.flatten(1), [[0, 0, 0, -1 / 6], [-1 / 12, 0, 0, -1 / 12], [0, -1 / 6, 0, 1 / 6]])
    w, u = cooperative_weights(plan, cost.detach(), THIRDS, HALVES, smoothing=0, floor=0)
    same(w, [0.4147418727, 0.2780097912, 0.3072483362])
    same(u, [0.5374298453, 0.4625701547])


@pytest.mark.parametrize("metric", ["kl", "mse", "cosine"])
def test_pairs_are_the_diagonal(metric: Any) -> None:
    a, b = (torch.randn(4, 5, 3, dtype=torch.float64, generator=GENERATOR) for _ in range(2))
    found = pair_distances(a, b, metric)
    torch.testing.assert_close(found, layer_distances(a, b, metric).diagonal())
    assert float(pair_distances(a, a, metric).abs().max()) < 1e-12
    assert bool((found > 0).all())


def test_cosine_by_hand() -> None:
    student, teacher = f64([[[1, 0], [0, 2]]]), f64([[[3, 0], [1, 0]]])
    same(layer_distances(student, teacher, "cosine"), [[(0 + 1) / 2]])


@pytest.mark.parametrize(
    ("scheme", "student", "teacher", "expected"),
    [
        ("left", 4, 8, [0, 1, 2, 3]),
        ("right", 4, 8, [4, 5, 6, 7]),
        ("left-jump", 4, 8, [0, 2, 4, 6]),
        ("right-jump", 4, 8, [1, 3, 5, 7]),
        ("left-jump", 1, 8, [0]),
        ("right-jump", 1, 8, [7]),
        ("left", 1, 8, [0]),
        ("right", 1, 8, [7]),
        ("left", 5, 2, [0, 0, 0, 0, 1]),
        ("right", 5, 2, [0, 1, 1, 1, 1]),
        ("left-jump", 5, 2, [0, 0, 1, 1, 1]),
        ("right-jump", 5, 2, [0, 0, 0, 1, 1]),
        *((scheme, 3, 3, [0, 1, 2]) for scheme in ("left", "right", "left-jump", "right-jump", "random")),
    ],
)
def test_maps(scheme: Any, student: int, teacher: int, expected: list[int]) -> None:
    assert layer_map(scheme, student, teacher, GENERATOR) == expected


def test_random_maps_are_in_order_and_repeat_only_where_they_must() -> None:
    few = [layer_map("random", 3, 8, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(found == sorted(set(found)) and len(found) == 3 for found in few)
    assert len({tuple(found) for found in few}) > 5
    many = layer_map("random", 6, 2, GENERATOR)
    assert many == sorted(many)
    assert set(many) <= {0, 1}


def test_distances_keep_their_digits_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 40, 16, generator=generator)
    teacher = student + 0.1 * torch.randn(3, 40, 16, generator=generator)
    expected = layer_distances(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer_distances(student, teacher), expected)


def test_only_the_active_layers_take_part() -> None:
    transport = LayerTransport(3, 2)
    transport.student_weights.copy_(torch.tensor([0.5, 0.3, 0.2]))
    cost = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    found = transport(cost, active=2)
    # of 5/8 and 3/8 to halves: 1/2 at 1, 1/8 at 2, 3/8 at 1
    assert float(found) == pytest.approx(0.5 + 0.25 + 0.375)
    transport.after_step()
    assert float(transport.student_weights[2]) == pytest.approx(0.2)
    assert float(transport.student_weights.sum()) == pytest.approx(1.0)


def test_the_plan_that_is_kept_has_no_graph() -> None:
    transport = LayerTransport(2, 2, solver="sinkhorn")
    transport(torch.tensor([[0.1, 1.0], [1.0, 0.2]], requires_grad=True)).backward()
    transport.after_step()
    assert not transport.flow.requires_grad
    assert not transport.student_weights.requires_grad
