"""Optimisers: parity with torch's, what sparse variants touch, and that each learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from recdistill.training.optimisers import make_optimiser


def sparse(rows: int, ids: list[int], values: torch.Tensor) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor([ids]), values, (rows, values.shape[1]), check_invariants=True
    )


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        ids = [number % 7, 3, 3, (2 * number) % 7]  # repeated rows
        found.append(sparse(7, ids, torch.randn(4, 5, generator=generator)))
    return found


def run(name: Any, steps: list[torch.Tensor], **options: float) -> torch.Tensor:
    table = nn.Parameter(torch.linspace(-1, 1, 35).view(7, 5).clone())
    chosen = {"learning_rate": 0.05, "weight_decay": 0.0, "epsilon": 1e-8, **options}
    optimiser = make_optimiser(name, [("table", table)], **chosen)
    for gradient in steps:
        table.grad = gradient.clone()
        optimiser.step()
        optimiser.zero_grad()
        assert table.grad is None
    return table.detach()


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("dense", [False, True])
def test_adam_is_torch_adam(weight_decay: float, dense: bool) -> None:
    steps = gradients(9)
    table = nn.Parameter(torch.linspace(-1, 1, 35).view(7, 5).clone())
    reference = torch.optim.Adam([table], lr=0.05, weight_decay=weight_decay)
    for gradient in steps:
        table.grad = gradient.to_dense()
        reference.step()
    found = run("adam", [g.to_dense() for g in steps] if dense else steps, weight_decay=weight_decay)
    torch.testing.assert_close(found, table.detach(), rtol=1e-5, atol=1e-6)


def test_steps_without_a_gradient_do_not_count() -> None:
    """An architecture that waits while weights warm up starts with Adam's first step, as torch's does."""
    generator = torch.Generator().manual_seed(1)
    always, late = (nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in range(2))
    others = [nn.Parameter(p.detach().clone()) for p in (always, late)]
    optimiser = make_optimiser(
        "adam", [("always", always), ("late", late)], learning_rate=0.1, weight_decay=0.0, epsilon=1e-8
    )
    reference = torch.optim.Adam(others, lr=0.1)
    for step in range(60):
        for mine, theirs in zip((always, late), others, strict=True):
            gradient = torch.randn(3, 2, generator=generator) if step > 50 or mine is always else None
            mine.grad, theirs.grad = gradient, None if gradient is None else gradient.clone()
        optimiser.step()
        reference.step()
    for mine, theirs in zip((always, late), others, strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-5, atol=1e-6)


def test_sparse_adam_is_torch_sparse_adam() -> None:
    steps = gradients(9)
    table = nn.Parameter(torch.linspace(-1, 1, 35).view(7, 5).clone())
    reference = torch.optim.SparseAdam([table], lr=0.05)
    for gradient in steps:
        table.grad = gradient.coalesce()
        reference.step()
    torch.testing.assert_close(run("sparse-adam", steps), table.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sparse-adam", "rowwise-adagrad"])
def test_sparse_variants_leave_untouched_rows_alone(name: str) -> None:
    start = torch.linspace(-1, 1, 35).view(7, 5)
    found = run(name, [sparse(7, [2, 5], torch.ones(2, 5))] * 3, weight_decay=0.1)
    moved = (found != start).any(dim=1)
    assert moved.tolist() == [False, False, True, False, False, True, False]


def test_sparse_adam_treats_a_dense_gradient_like_the_sparse_one() -> None:
    steps = gradients(5)
    found = run("sparse-adam", [g.to_dense() for g in steps], weight_decay=0.1)
    assert torch.equal(found, run("sparse-adam", steps, weight_decay=0.1))


def test_rowwise_adagrad_by_hand() -> None:
    # one row, gradient g: state = mean(g²) = 2.5; step = -lr · g / (sqrt(2.5) + eps)
    table = nn.Parameter(torch.zeros(2, 2))
    optimiser = make_optimiser(
        "rowwise-adagrad", [("table", table)], learning_rate=0.5, weight_decay=0.0, epsilon=1e-10
    )
    table.grad = sparse(2, [1], torch.tensor([[1.0, 2.0]]))
    optimiser.step()
    expected = torch.tensor([[0.0, 0.0], [-0.5 / 2.5**0.5, -1.0 / 2.5**0.5]])
    torch.testing.assert_close(table.detach(), expected)


@pytest.mark.parametrize("name", ["adam", "sparse-adam", "rowwise-adagrad"])
def test_state_goes_round(name: Any) -> None:
    steps = gradients(6)
    straight = run(name, steps)
    table = nn.Parameter(torch.linspace(-1, 1, 35).view(7, 5).clone())
    options = {"learning_rate": 0.05, "weight_decay": 0.0, "epsilon": 1e-8}
    first = make_optimiser(name, [("table", table)], **options)
    for gradient in steps[:3]:
        table.grad = gradient.clone()
        first.step()
    second = make_optimiser(name, [("table", table)], **options)
    second.load_state_tensors({key: value.clone() for key, value in first.state_tensors().items()})
    for gradient in steps[3:]:
        table.grad = gradient.clone()
        second.step()
    assert torch.equal(table.detach(), straight)


@pytest.mark.parametrize("name", ["adam", "sparse-adam", "rowwise-adagrad"])
def test_vectors_and_scalars_are_parameters_too(name: Any) -> None:
    parameters = [
        (key, nn.Parameter(torch.ones(shape))) for key, shape in (("a", (3,)), ("b", (1,)), ("c", ()))
    ]
    optimiser = make_optimiser(name, parameters, learning_rate=0.1, weight_decay=0.0, epsilon=1e-8)
    (parameters[0][1].sum() * parameters[1][1].sum() * parameters[2][1]).backward()
    optimiser.step()
    for _, parameter in parameters:
        assert bool((parameter < 1).all())


def test_weights_that_decay_to_nothing_become_zero_and_not_denormal() -> None:
    found = run("adam", [sparse(7, [0], torch.zeros(1, 5))] * 400, weight_decay=0.5, learning_rate=0.5)
    smallest = torch.finfo(torch.float32).tiny
    assert not bool(((found.abs() > 0) & (found.abs() < smallest)).any())
