"""Divergences over the catalogue: worked values, the tiled kernel against its twin, padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recdistill.ops import tiles
from recdistill.ops.divergence import divergence, softmax_divergence

STUDENT = torch.tensor([[1.2, -0.3, 0.7, 0]], dtype=torch.float64)
TEACHER = torch.tensor([[2.0, 0, 1, -1]], dtype=torch.float64)


def kl(first: list[float], second: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(first, second, strict=True))


def softmax(scores: Tensor, temperature: float) -> list[float]:
    return torch.softmax(scores[0] / temperature, dim=0).tolist()


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.0966145697), (2.0, 0.1601527330)])
def test_worked_values(temperature: float, expected: float) -> None:
    found = float(divergence(STUDENT, TEACHER, temperature))
    by_hand = kl(softmax(TEACHER, temperature), softmax(STUDENT, temperature))
    assert found == pytest.approx(temperature**2 * by_hand, abs=1e-12)
    assert found == pytest.approx(expected, abs=1e-9)
    reverse = float(divergence(STUDENT, TEACHER, temperature, reverse=True))
    by_hand = kl(softmax(STUDENT, temperature), softmax(TEACHER, temperature))
    assert reverse == pytest.approx(temperature**2 * by_hand, abs=1e-12)


def test_padding_is_left_out() -> None:
    padded = torch.cat([TEACHER, torch.full((1, 2), -torch.inf, dtype=torch.float64)], dim=1)
    scores = torch.cat([STUDENT, torch.randn(1, 2, dtype=torch.float64)], dim=1).requires_grad_()
    for reverse in (False, True):
        found = divergence(scores, padded, reverse=reverse)
        torch.testing.assert_close(found, divergence(STUDENT, TEACHER, reverse=reverse))
        (gradient,) = torch.autograd.grad(found.sum(), scores)
        assert bool(torch.isfinite(gradient).all())
        assert gradient[0, 4:].tolist() == [0, 0]
    empty = divergence(scores, torch.full_like(padded, -torch.inf))
    assert float(empty.detach()) == 0
    (gradient,) = torch.autograd.grad(empty.sum(), scores)
    assert float(gradient.abs().max()) == 0


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_tiles_agree_with_the_twin(reverse: bool, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_TILE_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    rows, items, bias = (
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((37, 3), (11, 3), (11,))
    )
    teacher = torch.randn(37, 11, dtype=torch.float64, generator=generator)
    wanted = [rows, items, bias] if biased else [rows, items]
    found = softmax_divergence(rows, items, bias if biased else None, lambda own: teacher[own], 1.7, reverse)
    scores = rows @ items.T + (bias if biased else 0)
    expected = divergence(scores, teacher, 1.7, reverse).mean()
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(3 * found, wanted), torch.autograd.grad(3 * expected, wanted), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("reverse", [False, True])
def test_what_takes_no_part(reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_TILE_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    rows, items, bias = (
        torch.randn(*shape, generator=generator).requires_grad_() for shape in ((37, 3), (11, 3), (11,))
    )
    teacher = torch.randn(37, 11, generator=generator)
    left_out = torch.rand(37, 11, generator=generator) < 0.4
    left_out[3], left_out[4], left_out[30, :10] = True, False, True  # a row without others, all, one

    def exclude(part: slice) -> tuple[Tensor, Tensor]:
        row, item = left_out[part].nonzero().unbind(1)
        return row, item

    found = softmax_divergence(rows, items, bias, lambda own: teacher[own], 1.7, reverse, exclude)
    expected = divergence(
        rows @ items.T + bias, teacher.masked_fill(left_out, -torch.inf), 1.7, reverse
    ).mean()
    torch.testing.assert_close(found, expected)
    wanted = [rows, items, bias]
    for one, other in zip(
        torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_student_that_scores_as_the_teacher_has_no_loss() -> None:
    rows, items = torch.randn(5, 3), torch.randn(7, 3, requires_grad=True)
    found = softmax_divergence(rows, items, None, lambda own: (rows[own] @ items.T).detach())
    assert float(found.detach()) == pytest.approx(0, abs=1e-6)
    found.backward()
    assert items.grad is not None
    assert float(items.grad.abs().max()) < 1e-6
