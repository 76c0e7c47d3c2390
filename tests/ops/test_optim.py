"""Optimiser steps against torch.optim, against the twins, and their rules for repeated and untouched rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.ops import (
    adam_all,
    adam_all_reference,
    adam_touched,
    adam_touched_reference,
    gradients,
    rowwise_adagrad,
    rowwise_adagrad_reference,
)
from recdistill.ops.gradients import grouped

SETTINGS: dict[str, Any] = {"learning_rate": 0.05, "betas": (0.8, 0.95), "epsilon": 1e-6, "weight_decay": 0.1}
ADAGRAD: dict[str, Any] = {"learning_rate": 0.1, "epsilon": 1e-8, "weight_decay": 0.1}
ALL = pytest.mark.parametrize("function", [adam_all, adam_all_reference])
TOUCHED = pytest.mark.parametrize("function", [adam_touched, adam_touched_reference])
ADAGRADS = pytest.mark.parametrize("function", [rowwise_adagrad, rowwise_adagrad_reference])
SHAPES = pytest.mark.parametrize("shape", [(30, 20), (7,), (5, 3, 4), (1, 1), (2500, 9)])


def state(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    param = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return [param, torch.zeros_like(param), torch.zeros_like(param)]


def pairs(shape: tuple[int, ...], steps: int = 8, n: int = 25) -> Iterator[tuple[Tensor, Tensor]]:
    """Row-sparse gradients with repeated rows."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        ids = torch.randint(shape[0], (n,), generator=generator)
        yield ids, torch.randn((n, *shape[1:]), generator=generator)


def dense(shape: tuple[int, ...], ids: Tensor, values: Tensor) -> Tensor:
    return torch.zeros(shape).index_add_(0, ids, values)


def sparse(shape: tuple[int, ...], ids: Tensor, values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(ids[None], values, shape, check_invariants=False)


def as_forms(shape: tuple[int, ...], ids: Tensor, values: Tensor) -> dict[str, Any]:
    return {
        "pair": (ids, values),
        "dense": dense(shape, ids, values),
        "sparse": sparse(shape, ids, values),
        "coalesced": sparse(shape, ids, values).coalesce(),
        "strided": (ids, values.mT.contiguous().mT if values.dim() > 1 else values),
    }


@ALL
@SHAPES
@pytest.mark.parametrize("form", ["pair", "dense", "sparse", "coalesced", "strided"])
def test_adam_on_all_rows_is_torchs_adam(function: Callable[..., None], shape: Any, form: str) -> None:
    found = state(shape)
    theirs = torch.nn.Parameter(found[0].clone())
    optimiser = torch.optim.Adam([theirs], lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for step, (ids, values) in enumerate(pairs(shape), start=1):
        function(*found, as_forms(shape, ids, values)[form], step=step, **SETTINGS)
        theirs.grad = dense(shape, ids, values)
        optimiser.step()
    torch.testing.assert_close(found[0], theirs.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], optimiser.state[theirs]["exp_avg"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[2], optimiser.state[theirs]["exp_avg_sq"], rtol=1e-5, atol=1e-6)


@TOUCHED
@SHAPES
@pytest.mark.parametrize("form", ["pair", "dense", "sparse", "coalesced", "strided"])
def test_adam_on_touched_rows_is_torchs_sparse_adam(
    function: Callable[..., None], shape: Any, form: str
) -> None:
    found = state(shape)
    theirs = torch.nn.Parameter(found[0].clone())
    optimiser = torch.optim.SparseAdam([theirs], lr=0.05, betas=(0.8, 0.95), eps=1e-6)
    for step, (ids, values) in enumerate(pairs(shape, n=4), start=1):
        function(*found, as_forms(shape, ids, values)[form], step=step, **{**SETTINGS, "weight_decay": 0.0})
        theirs.grad = sparse(shape, ids, values)
        optimiser.step()
    torch.testing.assert_close(found[0], theirs.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[2], optimiser.state[theirs]["exp_avg_sq"], rtol=1e-5, atol=1e-6)


@TOUCHED
def test_untouched_rows_stay_and_weight_decay_reaches_touched_ones(function: Callable[..., None]) -> None:
    found, before = state((6, 3)), state((6, 3))[0]
    ids = torch.tensor([4, 1, 4, 2, 2, -1])
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    values[3] = -values[4]  # row 2's gradient adds up to zero: not touched
    function(*found, (ids, values), step=1, **SETTINGS)
    assert (found[0] != before).any(dim=1).tolist() == [False, True, False, False, True, False]
    assert (found[1] != 0).any(dim=1).tolist() == [False, True, False, False, True, False]
    slope = values[0] + values[2] + 0.1 * before[4]
    expected = before[4] - 0.05 * slope / (slope.abs() + 1e-6 / math.sqrt(1 - 0.95))
    torch.testing.assert_close(found[0][4], expected, rtol=1e-5, atol=1e-6)


@ALL
def test_rows_without_gradient_decay_and_keep_their_momentum(function: Callable[..., None]) -> None:
    found, before = state((6, 3)), state((6, 3))[0]
    function(*found, (torch.tensor([4, -1]), torch.ones(2, 3)), step=1, **SETTINGS)
    torch.testing.assert_close(found[1][0], 0.2 * 0.1 * before[0])
    torch.testing.assert_close(found[1][4], 0.2 * (1 + 0.1 * before[4]))
    assert (found[0] != before).all()


@ADAGRADS
@pytest.mark.parametrize("form", ["pair", "dense", "sparse", "coalesced", "strided"])
@pytest.mark.parametrize("shape", [(30, 20), (7,), (5, 3, 4)])
def test_rowwise_adagrad_follows_its_formula(function: Callable[..., None], shape: Any, form: str) -> None:
    param = state(shape)[0]
    squares = torch.zeros(shape[0])
    rows, summed = param.clone().reshape(shape[0], -1), [0.0] * shape[0]
    for ids, values in pairs(shape, n=4):
        function(param, squares, as_forms(shape, ids, values)[form], **ADAGRAD)
        sums = dense(shape, ids, values).reshape(shape[0], -1)
        for row in set(ids.tolist()):
            slope = sums[row] + 0.1 * rows[row]
            summed[row] += slope.square().mean().item()
            rows[row] -= 0.1 * slope / (math.sqrt(summed[row]) + 1e-8)
    torch.testing.assert_close(param, rows.reshape(shape), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(squares, torch.tensor(summed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["pair", "dense"])
def test_steps_do_not_depend_on_the_number_of_threads(form: str) -> None:
    shape, results = (8000, 7), []  # large enough that more than one thread is worth it
    for threads in (1, 2):
        torch.set_num_threads(threads)
        every, touched, grad = state(shape), state(shape), [state(shape)[0], torch.zeros(8000)]
        for step, (ids, values) in enumerate(pairs(shape, steps=3, n=9000), start=1):
            gradient = as_forms(shape, ids, values)[form]
            adam_all(*every, gradient, step=step, **SETTINGS)
            adam_touched(*touched, gradient, step=step, **SETTINGS)
            rowwise_adagrad(*grad, gradient, **ADAGRAD)
        results.append([*every, *touched, *grad])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("num_rows", [40, 4000])
def test_places_are_grouped_by_rows_in_order(num_rows: int) -> None:
    """Both where most rows have places and where few have; what is kept between calls is as it was."""
    ids = torch.randint(-1, num_rows, (90,), generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        with grouped(ids, num_rows) as places:
            assert places.rows.tolist() == sorted(set(ids.tolist()) - {-1})
            for u, row in enumerate(places.rows):
                found = places.order[places.starts[u] : places.starts[u + 1]].tolist()
                assert found == torch.nonzero(ids == int(row)).flatten().tolist()
                assert places.slots[row] == u
            slots = places.slots
            assert int((slots >= 0).sum()) == len(places.rows)
        assert bool((slots == -1).all())
        for wrong in (num_rows, -2):
            message = rf"row indices in 0\.\.{num_rows - 1}"
            with pytest.raises(IndexError, match=message), grouped(torch.tensor([3, wrong]), num_rows):
                pass
            assert bool((slots == -1).all())
    for other in range(1, 9):  # sizes that are not used any more are forgotten
        with grouped(torch.zeros(1, dtype=torch.int64), other):
            pass
    assert num_rows not in gradients._kept


@pytest.mark.parametrize("n", [0, 3])
def test_a_gradient_without_rows(n: int) -> None:
    """No values at all, or pads only: decay alone for every row, nothing for touched ones."""
    nothing = torch.full((n,), -1), torch.ones(n, 3)
    found, expected = state((4, 3)), state((4, 3))
    adam_all(*found, nothing, step=1, **SETTINGS)
    adam_all_reference(*expected, torch.zeros(4, 3), step=1, **SETTINGS)
    torch.testing.assert_close(found, expected)
    for function, arguments in (
        (adam_touched, {"step": 1, **SETTINGS}),
        (adam_touched_reference, {"step": 1, **SETTINGS}),
    ):
        found = state((4, 3))
        function(*found, nothing, **arguments)
        assert torch.equal(found[0], state((4, 3))[0])
    param, squares = state((4, 3))[0], torch.zeros(4)
    rowwise_adagrad(param, squares, nothing, **ADAGRAD)
    assert torch.equal(param, state((4, 3))[0])
    assert not squares.any()


def test_float64_and_strided_parameters_take_the_twin() -> None:
    shape = (6, 4)
    ids, values = next(pairs(shape))
    exact = state(shape, torch.float64)
    adam_all(*exact, (ids, values.double()), step=1, **SETTINGS)
    assert exact[0].dtype == torch.float64
    strided = [tensor.t().contiguous().t() for tensor in state(shape)]
    adam_all(*strided, (ids, values), step=1, **SETTINGS)
    torch.testing.assert_close(strided[0], exact[0].float())
    touched = [tensor.t().contiguous().t() for tensor in state(shape)]
    adam_touched(*touched, (ids, values), step=1, **SETTINGS)
    expected = state(shape)
    adam_touched(*expected, (ids, values), step=1, **SETTINGS)
    torch.testing.assert_close(touched, expected)


def test_an_empty_table_is_left_alone() -> None:
    for shape in ((0, 3), (4, 0)):
        found = state(shape)
        adam_all(*found, torch.zeros(shape), step=1, **SETTINGS)
        adam_touched(*found, torch.zeros(shape), step=1, **SETTINGS)
        rowwise_adagrad(found[0], torch.zeros(shape[0]), torch.zeros(shape), **ADAGRAD)
        assert found[0].shape == shape


def test_a_gradient_that_is_not_finite_reaches_only_its_rows() -> None:
    values = torch.tensor([[math.nan, 1.0], [math.inf, 1.0]])
    for function in (adam_all, adam_touched):
        found = state((4, 2))
        function(*found, (torch.tensor([1, 3]), values), step=1, **SETTINGS)
        assert found[0].isfinite().tolist() == [[True, True], [False, True], [True, True], [False, True]]


def test_autograd_notices_the_change() -> None:
    """A graph that saved the parameter refuses to go backward through its new value, as after torch.optim."""
    param = torch.ones(3, 2, requires_grad=True)
    loss = param.square().sum()
    adam_all(param, torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3, 2), step=1, **SETTINGS)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_that_do_not_fit_are_named() -> None:
    found = state((4, 3))
    with pytest.raises(ValueError, match=r"gradient of shape \(4, 3\), found \(4, 2\)"):
        adam_all(*found, torch.zeros(4, 2), step=1, **SETTINGS)
    with pytest.raises(ValueError, match=r"values of shape \(2, 3\), found \(2, 2\)"):
        adam_touched(*found, (torch.tensor([0, 1]), torch.zeros(2, 2)), step=1, **SETTINGS)
