"""Sums of rectified units: values and gradients, against the twin and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recdistill.ops import rectified_at, rectified_at_reference


def inputs(num_rows: int, num_items: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (num_rows, width), (num_items, width), (width,)
    rows, items, weight = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
    return rows, items, weight


def gradients(sums: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        sums, of, torch.randn(sums.shape, generator=torch.Generator().manual_seed(1)).to(sums.dtype)
    )


def test_by_hand() -> None:
    rows = torch.tensor([[1.0, -1.0], [0.0, 2.0]], requires_grad=True)
    items = torch.tensor([[1.0, 0.5], [-3.0, -1.0]], requires_grad=True)
    weight = torch.tensor([2.0, -1.0], requires_grad=True)
    sums = rectified_at(rows, items, weight, torch.tensor([0, 1]), torch.tensor([[0, 1], [1, -1]]))
    # [2, -.5] and [-2, -2] of the first row, [-3, 1] of the second
    assert torch.equal(sums, torch.tensor([[4.0, 0.0], [-1.0, 0.0]]))
    sums.sum().backward()
    assert [part.grad.tolist() for part in (rows, items, weight) if part.grad is not None] == [
        [[2.0, 0.0], [0.0, -1.0]],
        [[2.0, 0.0], [0.0, -1.0]],
        [2.0, 1.0],
    ]


@pytest.mark.parametrize("width", [1, 3, 20, 33])
@pytest.mark.parametrize(("b", "n"), [(1, 1), (40, 7), (5, 100), (0, 4), (6, 0)])
@pytest.mark.parametrize("threads", [1, 2])
def test_agrees_with_the_twin(width: int, b: int, n: int, threads: int) -> None:
    torch.set_num_threads(threads)
    parts = inputs(30, 50, width)
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(30, (b,), generator=generator)  # rows repeat
    ids = torch.randint(-1, 50, (b, n), generator=generator)  # and items, and some are pads
    found, expected = (function(*parts, rows, ids) for function in (rectified_at, rectified_at_reference))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, wanted in zip(gradients(found, *parts), gradients(expected, *parts), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-4)


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    parts = inputs(600, 400, 5)
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(600, (500,), generator=generator)
    ids = torch.randint(400, (500, 120), generator=generator)
    found: list[tuple[Tensor, ...]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(gradients(rectified_at(*parts, rows, ids), *parts))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_only_the_asked_gradient_is_computed(asked: int) -> None:
    parts = [part if index == asked else part.detach() for index, part in enumerate(inputs(10, 10, 4))]
    sums = rectified_at(parts[0], parts[1], parts[2], torch.tensor([3]), torch.tensor([[5, 2]]))
    sums.sum().backward()
    assert [part.grad is not None for part in parts] == [index == asked for index in range(3)]


def test_extreme_values_stay_what_they_are() -> None:
    rows = torch.tensor([[1e30, 1e30], [torch.inf, 0.0], [torch.nan, 1.0], [-1e30, -torch.inf]])
    items = torch.tensor([[1e10, 0.0], [1.0, 1.0], [0.0, 0.0]])
    args = rows, items, torch.tensor([1.0, 1.0]), torch.arange(4), torch.arange(3).expand(4, 3)
    torch.testing.assert_close(
        rectified_at(*args), rectified_at_reference(*args), equal_nan=True, rtol=0, atol=0
    )


def test_float64_takes_the_twin_whose_gradient_is_right() -> None:
    parts = tuple(part.detach().double().requires_grad_() for part in inputs(4, 5, 3))
    ids = torch.tensor([[0, -1], [4, 4], [1, 0]])

    def sums(rows: Tensor, items: Tensor, weight: Tensor) -> Tensor:
        return rectified_at(rows, items, weight, torch.tensor([0, 3, 3]), ids)

    assert torch.autograd.gradcheck(sums, parts)


def test_ids_out_of_range_and_shapes_that_do_not_fit_are_named() -> None:
    rows, items, weight = (part.detach() for part in inputs(4, 5, 3))
    first, one = torch.tensor([0]), torch.tensor([[0]])
    for wrong in (5, -2):
        with pytest.raises(IndexError, match=r"item indices in 0\.\.4"):
            rectified_at(rows, items, weight, first, torch.tensor([[wrong]]))
    for wrong in (4, -1):
        with pytest.raises(IndexError, match=r"row indices in 0\.\.3"):
            rectified_at(rows, items, weight, torch.tensor([wrong]), one)
    with pytest.raises(ValueError, match="weights"):
        rectified_at(rows[:, :2], items, weight, first, one)
    with pytest.raises(ValueError, match="rows"):
        rectified_at(rows, items, weight, torch.tensor([0, 1]), one)
