"""The fused mixture loss against its plain twin, in both forms."""

from __future__ import annotations

import pytest
import torch

from recdistill.ops import experts as experts_module
from recdistill.ops.experts import Experts, mixture_error, mixture_error_reference, mixture_reference


def arguments(rows: int, num_experts: int, dtype: torch.dtype = torch.float64, sharp: float = 1.0):
    generator = torch.Generator().manual_seed(rows * 100 + num_experts)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    experts = Experts(
        normal(num_experts, 3, 4), normal(num_experts, 4), normal(num_experts, 4, 5), normal(num_experts, 5)
    )
    selection = torch.softmax(normal(rows, num_experts).detach() * sharp, dim=1).requires_grad_()
    weight = torch.rand(rows, generator=generator, dtype=torch.float64).to(dtype)
    return normal(rows, 3), selection, experts, normal(rows, 5).detach(), weight


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("sharp", [1.0, 60.0, 1e4])  # block form, few experts a row, one-hot
@pytest.mark.parametrize(("rows", "num_experts"), [(7, 3), (1, 1), (200, 6), (0, 2)])
def test_value_and_gradients_equal_the_twin(rows: int, num_experts: int, sharp: float, squared: bool) -> None:
    inputs, selection, experts, targets, weight = arguments(rows, num_experts, sharp=sharp)
    leaves = [inputs, selection, *experts]
    fused = mixture_error(inputs, selection, experts, targets, weight, squared)
    plain = mixture_error_reference(inputs, selection, experts, targets, weight, squared)
    torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-9)
    got = torch.autograd.grad(3.0 * fused, leaves)
    want = torch.autograd.grad(3.0 * plain, leaves)
    active = selection > 1e-8  # skipped weights get the gradient of their bias alone
    for number, (one, other) in enumerate(zip(got, want, strict=True)):
        if number == 1:
            one, other = one[active], other[active]
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("squared", [True, False])
def test_gradcheck_in_double(squared: bool) -> None:
    inputs, selection, experts, targets, weight = arguments(4, 3)

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        return mixture_error(leaves[0], leaves[1], Experts(*leaves[2:]), targets, weight, squared)

    assert torch.autograd.gradcheck(loss, (inputs, selection, *experts))


def test_one_expert_is_a_plain_network() -> None:
    inputs, _, experts, _, _ = arguments(5, 1)
    hidden = torch.relu(inputs @ experts.first[0] + experts.first_bias[0])
    expected = hidden @ experts.second[0] + experts.second_bias[0]
    torch.testing.assert_close(mixture_reference(inputs, torch.ones(5, 1).double(), experts), expected)


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_products_stay_close_and_run_only_where_they_are_fast(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts_module, "bfloat16_is_fast", lambda device: fast)
    inputs, selection, experts, targets, weight = arguments(300, 4, torch.float32)
    exact = mixture_error(inputs, selection, experts, targets, weight)
    with torch.autocast("cpu", torch.bfloat16):
        low = mixture_error(inputs, selection, experts, targets, weight)
    assert low.dtype == torch.float32
    assert torch.equal(low, exact) is not fast
    torch.testing.assert_close(low, exact, rtol=2e-2, atol=0.0)


@pytest.mark.parametrize("sharp", [1.0, 1e4])
def test_kernels_equal_the_twin_in_float32(sharp: float) -> None:
    inputs, selection, experts, targets, weight = arguments(300, 6, torch.float32, sharp=sharp)
    leaves = [inputs, selection, *experts]
    got = torch.autograd.grad(mixture_error(inputs, selection, experts, targets, weight), leaves)
    plain = mixture_error_reference(inputs, selection, experts, targets, weight)
    want = torch.autograd.grad(plain, leaves)
    active = selection > 1e-8
    for number, (one, other) in enumerate(zip(got, want, strict=True)):
        if number == 1:
            one, other = one[active], other[active]
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-3)


def test_a_second_backward_pass_gives_the_same_gradient() -> None:
    inputs, selection, experts, targets, weight = arguments(40, 3, torch.float32)
    loss = 3.0 * mixture_error(inputs, selection, experts, targets, weight)
    first = torch.autograd.grad(loss, inputs, retain_graph=True)[0]
    second = torch.autograd.grad(loss, inputs)[0]
    assert torch.equal(first, second)


def test_a_norm_of_nothing_has_no_gradient() -> None:
    inputs, selection, experts, _, weight = arguments(3, 2)
    exact = mixture_reference(inputs, selection, experts).detach()
    loss = mixture_error(inputs, selection, experts, exact, weight, squared=False)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)
    assert bool(torch.isfinite(torch.autograd.grad(loss, inputs)[0]).all())
