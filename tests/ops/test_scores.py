"""Scores at given items: values, dense and row-sparse gradients, against the twin and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recdistill.ops import scores_at, scores_at_reference


def tables(num_users: int, num_items: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_users, dim, generator=generator).requires_grad_(),
        torch.randn(num_items, dim, generator=generator).requires_grad_(),
    )


def gradients(scores: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Dense gradients for a fixed random gradient of the scores."""
    by_scores = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1)).to(scores.dtype)
    found = torch.autograd.grad(scores, inputs, by_scores, allow_unused=True)
    return [
        torch.zeros_like(at) if one is None else one.to_dense() for one, at in zip(found, inputs, strict=True)
    ]


def test_by_hand() -> None:
    users = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    items = torch.tensor([[1.0, 1.0], [0.5, -1.0], [0.0, 2.0]])
    scores = scores_at(users, items, torch.tensor([1, 0, 1]), torch.tensor([[0, -1], [1, 2], [2, 0]]))
    assert torch.equal(scores, torch.tensor([[1.5, 0.0], [0.5, 0.0], [2.0, 1.5]]))


@pytest.mark.parametrize("dim", [1, 3, 20, 33])
@pytest.mark.parametrize(("b", "n"), [(1, 1), (40, 7), (5, 100), (0, 4), (6, 0)])
@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_agrees_with_the_twin(dim: int, b: int, n: int, leaf: bool, threads: int) -> None:
    torch.set_num_threads(threads)
    users, items = tables(30, 50, dim)
    generator = torch.Generator().manual_seed(2)
    chosen = torch.randint(30, (b,), generator=generator)  # users repeat
    ids = torch.randint(-1, 50, (b, n), generator=generator)  # and items, and some are pads
    scores, expected = (
        function(*((users, items) if leaf else (users * 1, items * 1)), chosen, ids)
        for function in (scores_at, scores_at_reference)
    )
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(gradients(scores, users, items), gradients(expected, users, items), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    users, items = tables(600, 400, 5)  # with 300,000 products, more than one thread is worth it
    generator = torch.Generator().manual_seed(3)
    chosen, ids = (
        torch.randint(600, (500,), generator=generator),
        torch.randint(400, (500, 120), generator=generator),
    )
    found: list[list[Tensor]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(gradients(scores_at(users, items, chosen, ids), users, items))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_leaf_read_in_few_rows_has_a_row_sparse_gradient() -> None:
    users, items = tables(100, 100, 4)
    chosen, ids = torch.tensor([3, 3]), torch.tensor([[5, -1], [5, 7]])
    scores_at(users, items, chosen, ids).sum().backward()
    assert users.grad is not None
    assert items.grad is not None
    assert users.grad.is_sparse
    assert items.grad.is_sparse
    assert items.grad.coalesce().indices().tolist() == [[5, 7]]  # the pad reaches no row
    expected = torch.zeros(100, 4)
    expected[5], expected[7] = 2 * users.detach()[3], users.detach()[3]
    torch.testing.assert_close(items.grad.to_dense(), expected)


def test_other_tables_have_dense_gradients() -> None:
    derived = [table * 1.0 for table in tables(10, 10, 4)]
    for table in derived:
        table.retain_grad()
    scores_at(derived[0], derived[1], torch.tensor([3]), torch.tensor([[5]])).sum().backward()
    assert all(table.grad is not None and not table.grad.is_sparse for table in derived)


def test_gradients_of_two_losses_add_up() -> None:
    """A pair loss leaves row-sparse gradients, a list loss dense ones; a leaf takes both, in any order."""
    for order in (1, -1):
        users, items = tables(50, 40, 4)
        few = torch.tensor([1, 2]), torch.tensor([[5], [6]])
        many = torch.arange(50), torch.randint(40, (50, 9), generator=torch.Generator().manual_seed(4))
        losses = [scores_at(users, items, *where).square().sum() for where in (few, many)][::order]
        (losses[0] + losses[1]).backward()
        found = [table.grad.to_dense() for table in (users, items) if table.grad is not None]
        twins = [scores_at_reference(users, items, *where).square().sum() for where in (few, many)]
        expected = torch.autograd.grad(twins[0] + twins[1], (users, items))
        for one, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-4)


def test_one_table_for_both_sides_and_strided_tables() -> None:
    table = torch.randn(20, 6, generator=torch.Generator().manual_seed(5)).requires_grad_()
    chosen, ids = torch.tensor([0, 4]), torch.tensor([[1, 2], [3, 4]])
    for first, second in ((table, table), (table.t()[:3].t(), table[:, 3:])):
        found = gradients(scores_at(first, second, chosen, ids), table)
        expected = gradients(scores_at_reference(first, second, chosen, ids), table)
        torch.testing.assert_close(found, expected)


def test_only_the_asked_gradient_is_computed() -> None:
    users, items = tables(10, 10, 4)
    scores_at(users.detach(), items, torch.tensor([3]), torch.tensor([[5]])).sum().backward()
    assert users.grad is None
    assert items.grad is not None
    assert not scores_at(users.detach(), items.detach(), torch.tensor([3]), torch.tensor([[5]])).requires_grad


def test_extreme_values_stay_what_they_are() -> None:
    users = torch.tensor([[1e30, 1e30], [float("inf"), 0.0], [float("nan"), 1.0], [-1e30, 0.0]])
    items = torch.tensor([[1e10, 0.0], [1.0, 1.0], [0.0, 0.0]])
    ids = torch.arange(3).expand(4, 3)
    found = scores_at(users, items, torch.arange(4), ids)
    torch.testing.assert_close(
        found, scores_at_reference(users, items, torch.arange(4), ids), equal_nan=True, rtol=0, atol=0
    )


@pytest.mark.parametrize("dim", [1, 4, 20, 33])
def test_vectors_of_zeros_score_zero_and_not_minus_zero(dim: int) -> None:
    scores = scores_at(
        torch.zeros(1, dim), -torch.ones(3, dim), torch.tensor([0]), torch.tensor([[0, 1, 2, -1]])
    )
    assert scores.signbit().tolist() == [[False] * 4]


def test_float64_takes_the_twin_whose_gradient_is_right() -> None:
    users, items = (table.detach().double().requires_grad_() for table in tables(4, 5, 3))
    chosen, ids = torch.tensor([0, 3, 3]), torch.tensor([[0, -1], [4, 4], [1, 0]])

    def scores(users: Tensor, items: Tensor) -> Tensor:
        return scores_at(users, items, chosen, ids)

    assert scores(users, items).dtype == torch.float64
    assert torch.autograd.gradcheck(scores, (users, items))


def test_ids_out_of_range_and_shapes_that_do_not_fit_are_named() -> None:
    users, items = (table.detach() for table in tables(4, 5, 3))
    one = torch.tensor([[0]])
    for wrong in (5, -2):
        with pytest.raises(IndexError, match=r"item indices in 0\.\.4"):
            scores_at(users, items, torch.tensor([0]), torch.tensor([[wrong]]))
    for wrong in (4, -1):
        with pytest.raises(IndexError, match=r"user indices in 0\.\.3"):
            scores_at(users, items, torch.tensor([wrong]), one)
    with pytest.raises(ValueError, match="one dim"):
        scores_at(users[:, :2], items, torch.tensor([0]), one)
    with pytest.raises(ValueError, match="users"):
        scores_at(users, items, torch.tensor([0, 1]), one)
