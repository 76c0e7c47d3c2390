"""The relaxed Plackett-Luce loss: worked numbers, a direct formula in float64, and extremes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recdistill.ops import plackett_luce, plackett_luce_reference

BOTH = pytest.mark.parametrize("function", [plackett_luce, plackett_luce_reference])


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0.5, -0.5], [0.0], 1.65434665),
        ([0.8, -1.0], [0.2], 2.00217677),
        ([0.5, -0.5, 0.0], [1.0, 0.2], 5.28379475),
        ([200.0, 100.0], [0.0], 0.0),
        ([100.0, 200.0], [0.0], 100.0),
        ([-200.0], [200.0], 400.0),
        ([3.0], [], 0.0),
        ([], [1.0], 0.0),
        ([1.0, 1.0], [-math.inf], math.log(2)),
    ],
)
def test_golden(
    function: Callable[..., Tensor],
    dtype: torch.dtype,
    first: list[float],
    second: list[float],
    expected: float,
) -> None:
    lists = torch.tensor([first], dtype=dtype), torch.tensor([second], dtype=dtype)
    torch.testing.assert_close(function(*lists), torch.tensor([expected], dtype=dtype), rtol=1e-6, atol=1e-30)


def direct(first: Tensor, second: Tensor) -> Tensor:
    """Σ_k [LSE(S1_k..S1_K, S2) - S1_k] of one row, written as the equation."""
    terms = [torch.cat([first[k:], second]).logsumexp(0) - first[k] for k in range(len(first))]
    return torch.stack(terms).sum() if terms else first.sum()


@BOTH
@pytest.mark.parametrize("scale", [1.0, 40.0, 200.0])
@pytest.mark.parametrize(("width", "below"), [(1, 1), (7, 5), (30, 60), (1, 0), (4, 0), (0, 3)])
@pytest.mark.parametrize("with_lengths", [True, False])
def test_values_and_gradients_follow_the_equation(
    function: Callable[..., Tensor], scale: float, width: int, below: int, with_lengths: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(9, size, generator=generator) * scale for size in (width, below))
    lengths = [torch.randint(size + 1, (9,), generator=generator) for size in (width, below)]
    if not with_lengths:
        lengths = [torch.full((9,), size) for size in (width, below)]
    weights = torch.randn(9, generator=generator)

    given = first.clone().requires_grad_(), second.clone().requires_grad_()
    losses = function(*given, *(lengths if with_lengths else ()))
    (losses * weights).sum().backward()

    exact = first.double().requires_grad_(), second.double().requires_grad_()
    expected = torch.stack(
        [direct(s1[:k], s2[:m]) for s1, s2, k, m in zip(*exact, *(x.tolist() for x in lengths), strict=True)]
    )
    (expected * weights.double()).sum().backward()
    torch.testing.assert_close(losses.detach().double(), expected.detach(), rtol=2e-5, atol=1e-5)
    for one, wanted in zip(given, exact, strict=True):
        if one.numel() > 0 and wanted.grad is not None:
            assert one.grad is not None
            torch.testing.assert_close(one.grad.double(), wanted.grad, rtol=1e-4, atol=2e-5)


def test_the_twin_has_the_right_gradient_in_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    lists = [torch.randn(4, size, generator=generator).double().requires_grad_() for size in (5, 3)]
    lengths = torch.tensor([5, 2, 0, 1]), torch.tensor([3, 0, 2, 0])
    assert torch.autograd.gradcheck(plackett_luce, tuple(lists))
    assert torch.autograd.gradcheck(
        lambda first, second: plackett_luce(first, second, *lengths), tuple(lists)
    )


@BOTH
def test_absent_scores_and_masked_tails_have_no_part(function: Callable[..., Tensor]) -> None:
    nan, inf = math.nan, math.inf
    first = torch.tensor([[0.5, -0.5, nan], [0.5, -0.5, inf]], requires_grad=True)
    second = torch.tensor([[0.0, -inf, nan], [0.0, -inf, inf]], requires_grad=True)
    losses = function(first, second, torch.tensor([2, 2]), torch.tensor([2, 2]))
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), torch.full((2,), 1.65434665))
    assert first.grad is not None
    assert second.grad is not None
    assert (first.grad[:, 2] == 0).all()
    assert (second.grad[:, 1:] == 0).all()
    assert torch.isfinite(first.grad).all()


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_score_that_is_not_finite_shows_in_its_row_alone(
    function: Callable[..., Tensor], bad: float, side: int
) -> None:
    lists = [torch.zeros(2, 3), torch.zeros(2, 3)]
    lists[side][0, 1] = bad
    losses = function(*lists)
    assert not math.isfinite(losses[0])
    assert math.isfinite(losses[1])


@BOTH
def test_an_impossible_item_on_the_list_costs_everything(function: Callable[..., Tensor]) -> None:
    first = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    assert torch.equal(function(first, torch.zeros(2, 1)), torch.full((2,), math.inf))


def test_no_rows_and_no_gradient() -> None:
    assert plackett_luce(torch.zeros(0, 3), torch.zeros(0, 2)).shape == (0,)
    assert not plackett_luce(torch.zeros(2, 3), torch.zeros(2, 2)).requires_grad
    second = torch.zeros(2, 2, requires_grad=True)
    plackett_luce(torch.zeros(2, 3), second).sum().backward()
    assert second.grad is not None


def test_a_long_list_neither_overflows_nor_loses_terms() -> None:
    """The totals are multiplied before one logarithm is taken: 4,000 of them pass 1e308 many times over."""
    first, second = torch.zeros(1, 4000), torch.zeros(1, 1)
    expected = math.lgamma(4002) - 0.0  # Σ_k log(k + 1), k = 1..4000
    assert plackett_luce(first, second).item() == pytest.approx(expected, rel=1e-6)


def test_shapes_and_lengths_that_do_not_fit_are_named() -> None:
    first, second = torch.zeros(2, 3), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"first_length in 0\.\.3, found 1\.\.4"):
        plackett_luce(first, second, torch.tensor([1, 4]))
    with pytest.raises(ValueError, match=r"second_length in 0\.\.4, found -1\.\.0"):
        plackett_luce(first, second, None, torch.tensor([-1, 0]))
    with pytest.raises(ValueError, match=r"second of shape \(2, width\)"):
        plackett_luce(first, second[:1])
    with pytest.raises(ValueError, match="first_length of shape"):
        plackett_luce(first, second, torch.tensor([1]))
