"""The log-sum-exp over the catalogue but some items: the dense formula in float64, threads, extremes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recdistill import ops
from recdistill.ops import log_sum_exp_except, log_sum_exp_except_reference
from recdistill.testing import largest_tensor

BOTH = pytest.mark.parametrize("function", [log_sum_exp_except, log_sum_exp_except_reference])


def random_rows(num_rows: int, num_items: int, most: int, seed: int = 0) -> ops.Rows:
    """Up to ``most`` random items in each row."""
    generator = torch.Generator().manual_seed(seed)
    lists = [torch.randperm(num_items, generator=generator)[: row % (most + 1)] for row in range(num_rows)]
    lengths = torch.tensor([0, *(len(ids) for ids in lists)])
    items = torch.cat([ids.sort().values for ids in lists]) if lists else torch.empty(0)
    return ops.Rows(lengths.cumsum(0), items.int())


def direct(rows: Tensor, items: Tensor, exclude: ops.Rows) -> Tensor:
    """Each row's log-sum-exp, written as the equation."""
    mask = torch.zeros(len(rows), len(items), dtype=torch.bool)
    for row in range(len(rows)):
        mask[row, exclude.items[exclude.indptr[row] : exclude.indptr[row + 1]].long()] = True
    return (rows @ items.T).masked_fill(mask, -torch.inf).logsumexp(dim=1)


@BOTH
def test_golden(function: Callable[..., Tensor]) -> None:
    # scores [1, .5, -.5, 0] without the first two: log(e^-.5 + e^0)
    rows, items = torch.ones(1, 1), torch.tensor([[1.0], [0.5], [-0.5], [0.0]])
    exclude = ops.Rows(torch.tensor([0, 2]), torch.tensor([0, 1], dtype=torch.int32))
    assert function(rows, items, exclude).tolist() == pytest.approx([math.log(math.exp(-0.5) + 1)])


@BOTH
@pytest.mark.parametrize("largest", [2.0**24, 2.0**24 + 32, 1.7e9, -3.0e8])
def test_weights_of_large_scores(function: Callable[..., Tensor], largest: float) -> None:
    # e^0 and e^-256 beside it: whoever scales before subtracting is off by powers of two here
    items = torch.tensor([[largest], [largest - 256]], requires_grad=True)
    exclude = ops.Rows(torch.tensor([0, 0]), torch.empty(0, dtype=torch.int32))
    (found,) = function(torch.ones(1, 1), items, exclude)
    assert found.item() == items[0, 0].item()
    (gradient,) = torch.autograd.grad(found, items)
    assert gradient.flatten().tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


@BOTH
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    ("num_rows", "num_items", "dim"), [(1, 1, 1), (7, 40, 3), (300, 2500, 6), (37, 5000, 21)]
)
def test_values_and_gradients_follow_the_equation(
    function: Callable[..., Tensor], scale: float, num_rows: int, num_items: int, dim: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    tables = [torch.randn(n, dim, generator=generator) * scale for n in (num_rows, num_items)]
    exclude = random_rows(num_rows, num_items, min(num_items - 1, 30))
    weights = torch.rand(num_rows, generator=generator)

    given = [table.clone().requires_grad_() for table in tables]
    found = function(*given, exclude)
    (found * weights).sum().backward()
    exact = [table.double().requires_grad_() for table in tables]
    expected = direct(*exact, exclude)
    (expected * weights.double()).sum().backward()
    torch.testing.assert_close(found.detach().double(), expected.detach(), rtol=2e-6, atol=1e-5)
    for one, wanted in zip(given, exact, strict=True):
        assert one.grad is not None
        assert wanted.grad is not None
        # a score of s has an error of about 1e-7 |s|, and its exponential that error relative
        close = 2e-5 * max(1.0, scale) ** 2
        torch.testing.assert_close(one.grad.double(), wanted.grad, rtol=close, atol=close)


def test_the_twin_has_the_right_gradient_in_float64() -> None:
    generator = torch.Generator().manual_seed(2)
    tables = [torch.randn(n, 3, generator=generator).double().requires_grad_() for n in (5, 9)]
    exclude = random_rows(5, 9, 4)
    assert torch.autograd.gradcheck(lambda rows, items: log_sum_exp_except(rows, items, exclude), tables)


def test_blocks_of_the_catalogue_change_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    items = torch.randn(50, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    exclude = random_rows(6, 50, 20)
    whole = log_sum_exp_except(rows, items, exclude)
    blocks = ops.log_sum_exp_blocks(lambda part: rows @ items[part].T, 50, exclude, elements=42)
    torch.testing.assert_close(blocks, whole)
    wanted = torch.autograd.grad(whole.sum(), [rows, items])
    for one, other in zip(torch.autograd.grad(blocks.sum(), [rows, items]), wanted, strict=True):
        torch.testing.assert_close(one, other)


@BOTH
def test_a_row_that_leaves_out_everything_has_no_gradient(function: Callable[..., Tensor]) -> None:
    rows, items = torch.ones(2, 1, requires_grad=True), torch.tensor([[1.0], [2.0]], requires_grad=True)
    exclude = ops.Rows(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1], dtype=torch.int32))
    found = function(rows, items, exclude)
    assert found.tolist() == [-math.inf, pytest.approx(1.0)]
    torch.nn.functional.softplus(found).sum().backward()
    assert rows.grad is not None
    assert items.grad is not None
    share = 1 / (1 + math.exp(-1))
    assert rows.grad.flatten().tolist() == [0, pytest.approx(share)]
    assert items.grad.flatten().tolist() == [pytest.approx(share), 0]


@BOTH
def test_no_rows(function: Callable[..., Tensor]) -> None:
    rows, items = torch.empty(0, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    found = function(rows, items, ops.Rows(torch.zeros(1, dtype=torch.int64), torch.empty(0).int()))
    found.sum().backward()
    assert found.shape == (0,)
    assert items.grad is not None
    assert not items.grad.any()


def test_scores_that_would_overflow() -> None:
    # the left-out item's score is 500 above the others, which must not drown them
    rows = torch.tensor([[1.0], [-1.0]])
    items = torch.tensor([[900.0], [400.0], [399.0], [-5000.0]])
    exclude = ops.Rows(torch.tensor([0, 1, 1]), torch.tensor([0], dtype=torch.int32))
    found = log_sum_exp_except(rows, items, exclude)
    assert found.tolist() == pytest.approx([400 + math.log1p(math.exp(-1)), 5000.0])


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf])
def test_a_diverged_score_is_not_hidden(bad: float) -> None:
    rows, items = torch.ones(1, 1), torch.randn(3000, 1)
    items[7] = bad
    exclude = ops.Rows(torch.tensor([0, 0]), torch.empty(0, dtype=torch.int32))
    assert not bool(torch.isfinite(log_sum_exp_except(rows, items, exclude)).any())


def test_threads_change_no_bit_and_nothing_of_rows_by_items_is_made() -> None:
    generator = torch.Generator().manual_seed(4)
    tables = [torch.randn(n, 6, generator=generator) for n in (1000, 9000)]
    exclude = random_rows(1000, 9000, 50)
    results: list[list[Tensor]] = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        given = [table.clone().requires_grad_() for table in tables]
        with largest_tensor() as watch:
            found = log_sum_exp_except(*given, exclude)
            found.sum().backward()
        assert watch.elements <= 300_000
        results.append([found.detach(), *(table.grad for table in given if table.grad is not None)])
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_shapes_that_do_not_fit() -> None:
    empty = ops.Rows(torch.zeros(3, dtype=torch.int64), torch.empty(0, dtype=torch.int32))
    with pytest.raises(ValueError, match="one dim"):
        log_sum_exp_except(torch.ones(2, 3), torch.ones(4, 2), empty)
    with pytest.raises(ValueError, match="expected 1 rows"):
        log_sum_exp_except(torch.ones(1, 3), torch.ones(4, 3), empty)
