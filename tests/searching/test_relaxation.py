"""Gumbel-softmax with the noise fixed: values and gradients worked by hand; the temperature's schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recdistill.searching.relaxation import annealed, chosen, gumbel, relaxed, straight_through


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mixture(
    alpha: Tensor, noise: Tensor, outputs: Tensor, temperature: float, hard: bool
) -> tuple[list[float], float, list[float]]:
    alpha = alpha.clone().requires_grad_()
    soft = relaxed(alpha, noise, temperature)
    value = ((straight_through(soft) if hard else soft) * outputs).sum()
    (gradient,) = torch.autograd.grad(value, alpha)
    return soft.tolist(), float(value.detach()), gradient.tolist()


@pytest.mark.parametrize(
    ("temperature", "shares", "soft", "gradient"),
    [
        (
            1.0,
            [0.5064803911, 0.3071958857, 0.1863237232],
            1.4510597893,
            [0.2780274526, -0.7529554829, 0.4749280303],
        ),
        (
            0.5,
            [0.6652409558, 0.2447284711, 0.0900305732],
            1.4458757332,
            [0.7372523138, -1.1971508571, 0.4598985434],
        ),
    ],
)
def test_a_mixture_of_three(
    temperature: float, shares: list[float], soft: float, gradient: list[float]
) -> None:
    parts = f64(0, 0, 0), f64(0.5, 0, -0.5), f64(2, -1, 4)
    found = mixture(*parts, temperature, hard=False)
    assert found[0] == pytest.approx(shares, abs=1e-9)
    assert found[1] == pytest.approx(soft, abs=1e-9)
    assert found[2] == pytest.approx(gradient, abs=1e-9)
    _, value, straight = mixture(*parts, temperature, hard=True)
    assert value == pytest.approx(2)
    assert straight == pytest.approx(gradient, abs=1e-9)


def test_with_the_drawn_operation_alone_the_others_count_as_nothing() -> None:
    alpha = f64(0, 0, 0).requires_grad_()
    z = straight_through(relaxed(alpha, f64(0.5, 0, -0.5), 1.0))
    value = z[0] * 2.0
    (gradient,) = torch.autograd.grad(value, alpha)
    assert float(value.detach()) == pytest.approx(2)
    assert gradient.tolist() == pytest.approx([0.4999160091, -0.3111773847, -0.1887386244], abs=1e-9)


def test_a_mixture_of_four() -> None:
    alpha, outputs = f64(0.2, -0.1, 0.4, 0), f64(1, 2, 3, 4)
    noise = -(-f64(0.3, 0.9, 0.6, 0.05).log()).log()
    assert noise.tolist() == pytest.approx(
        [-0.1856267589, 2.2503673273, 0.6717269921, -1.0971887004], abs=1e-9
    )
    shares, value, gradient = mixture(alpha, noise, outputs, 1.0, hard=False)
    assert shares == pytest.approx([0.0789063868, 0.6679786810, 0.2271512109, 0.0259637213], abs=1e-9)
    assert value == pytest.approx(2.2001722668, abs=1e-9)
    assert gradient == pytest.approx([-0.0947012571, -0.1337108068, 0.1816818381, 0.0467302257], abs=1e-9)
    assert mixture(alpha, noise, outputs, 0.8, hard=False)[1] == pytest.approx(2.1670977037, abs=1e-9)
    assert mixture(alpha, noise, outputs, 0.8, hard=True)[1] == pytest.approx(2.0)
    assert mixture(alpha, noise, outputs, 0.4096, hard=False)[1] == pytest.approx(2.0622840051, abs=1e-9)


def test_choices_follow_their_shares() -> None:
    alpha = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    noise = gumbel((20_000, 3), torch.Generator().manual_seed(0))
    drawn = straight_through(relaxed(alpha.expand(20_000, 3), noise, 0.5))
    assert drawn.sum(dim=1).unique().tolist() == pytest.approx([1])
    assert drawn.mean(dim=0).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.015)
    assert bool(torch.isfinite(noise).all())


def test_evaluation_takes_the_largest() -> None:
    assert chosen(f64(0.1, 0.3, 0.2)[None]).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 1), (4, 1), (5, 0.8), (9, 0.8), (10, 0.64), (25, 0.32768), (50, 0.1073741824)],
)
def test_temperature(epoch: int, expected: float) -> None:
    assert annealed(epoch, floor=0.0) == pytest.approx(expected)
    assert annealed(epoch) == pytest.approx(max(expected, 0.1))


def test_the_temperature_has_a_floor() -> None:
    assert annealed(199) == 0.1
    assert math.isclose(annealed(199, floor=0), 0.8**39)
