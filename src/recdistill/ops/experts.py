"""A mixture of small networks as one scalar loss, value and gradient in blocks of rows.

The block form computes all experts' hidden units as one matrix and their mixture as one product; the grouped form
runs each expert on the rows that still select it. Neither stores rows × experts × dim.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 22
"""Hidden units of one block: 16 MiB in float32."""

NEGLIGIBLE = 1e-8
"""Selection weights below this are skipped: less than a float32 product can resolve beside the largest."""


class Experts(NamedTuple):
    """Weights of M two-layer networks ``x → W2ᵀ relu(W1ᵀ x + b1) + b2``.

    Attributes:
        first: W1, shape ``(M, d_in, h)``.
        first_bias: b1, shape ``(M, h)``.
        second: W2, shape ``(M, h, d_out)``.
        second_bias: b2, shape ``(M, d_out)``.
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor


def mixture_reference(inputs: Tensor, selection: Tensor, experts: Experts) -> Tensor:
    """Σ_m z_m E_m(x), shape ``(n, d_out)``, in plain autograd: the twin of the fused loss."""
    hidden = torch.relu(torch.einsum("ni,mih->nmh", inputs, experts.first) + experts.first_bias)
    mixed = torch.einsum("nmh,mho->nmo", hidden, experts.second) + experts.second_bias
    return (selection[:, :, None] * mixed).sum(dim=1)


def mixture_error_reference(
    inputs: Tensor,
    selection: Tensor,
    experts: Experts,
    targets: Tensor,
    row_weight: Tensor,
    squared: bool = True,
) -> Tensor:
    """Twin of :func:`mixture_error` in plain autograd."""
    error = mixture_reference(inputs, selection, experts) - targets
    return (row_weight * (error.square().sum(dim=1) if squared else error.norm(dim=1))).sum()


def mixture_error(
    inputs: Tensor,
    selection: Tensor,
    experts: Experts,
    targets: Tensor,
    row_weight: Tensor,
    squared: bool = True,
) -> Tensor:
    """Σ_x w_x ‖t_x − Σ_m z_xm E_m(x)‖², scalar; first derivatives for everything but targets and weights.

    Value and gradient are computed together, one block of rows at a time. Under bfloat16 autocast the large
    products run in bfloat16 and are accumulated in float32, where the device is faster at that.

    Args:
        inputs: x, shape ``(n, d_in)``.
        selection: z, shape ``(n, M)``; entries below 1e-8 count as 0.
        experts: the networks.
        targets: t, shape ``(n, d_out)``.
        row_weight: w, shape ``(n,)``.
        squared: square the norm; without it a row without an error has no gradient.
    """
    device = inputs.device.type
    low = torch.bfloat16 if torch.is_autocast_enabled(device) and bfloat16_is_fast(device) else None
    with torch.autocast(device, enabled=False):
        return _MixtureError.apply(
            inputs, selection, *experts, targets.to(inputs.dtype), row_weight.to(inputs.dtype), squared, low
        )


@cache
def bfloat16_is_fast(device: str) -> bool:
    """Whether bfloat16 products are faster than float32: on GPUs, and on CPUs with AMX; others emulate them."""
    if device != "cpu":
        return True
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)  # older versions of torch cannot tell
    return bool(capabilities().get("amx_bf16", False))


class _MixtureError(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        selection: Tensor,
        first: Tensor,
        first_bias: Tensor,
        second: Tensor,
        second_bias: Tensor,
        targets: Tensor,
        row_weight: Tensor,
        squared: bool,
        low: torch.dtype | None,
    ) -> Tensor:
        arguments = (inputs, selection, first, first_bias, second, second_bias, targets, row_weight)
        ctx.save_for_backward(*arguments)
        ctx.form = squared, low
        loss, ctx.gradients = _value_and_gradients(*ctx.form, *arguments)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradients = ctx.gradients
        ctx.gradients = None  # given away and scaled in place: a second backward pass computes them again
        if gradients is None:
            saved: tuple[Tensor, ...] = ctx.saved_tensors
            _, gradients = _value_and_gradients(*ctx.form, *saved)
        return (*gradients(scale), None, None, None, None)


def _value_and_gradients(
    squared: bool,
    low: torch.dtype | None,
    inputs: Tensor,
    selection: Tensor,
    first: Tensor,
    first_bias: Tensor,
    second: Tensor,
    second_bias: Tensor,
    targets: Tensor,
    row_weight: Tensor,
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """The loss, and what gives the gradients times a scale; to be called once."""
    experts = Experts(first, first_bias, second, second_bias)
    work = _Work(inputs, selection, experts, targets, row_weight, squared, low)
    active = selection > NEGLIGIBLE
    share = float(active.float().mean()) if active.numel() else 0.0
    return work.grouped(active) if share < 0.25 else work.blocks()


class _Work:
    """One evaluation: the gradients of every argument, filled block by block.

    The first layer's bias is the weight of one more input that is always 1.
    """

    def __init__(
        self,
        inputs: Tensor,
        selection: Tensor,
        experts: Experts,
        targets: Tensor,
        row_weight: Tensor,
        squared: bool,
        low: torch.dtype | None,
    ) -> None:
        self.inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)  # (n, d_in + 1)
        self.first = torch.cat([experts.first, experts.first_bias[:, None]], dim=1)  # (M, d_in + 1, h)
        self.selection, self.experts = selection.contiguous(), experts
        self.targets, self.row_weight = targets, row_weight.contiguous()
        self.squared, self.low = squared, low
        self.grad_inputs = torch.zeros_like(self.inputs)
        self.grad_selection = torch.empty_like(self.selection)
        self.grad_first = torch.empty_like(self.first)
        self.grad_second = torch.empty_like(experts.second, memory_format=torch.contiguous_format)
        self.grad_second_bias = torch.empty_like(experts.second_bias)

    def gradients(self) -> tuple[Tensor, ...]:
        grad_first, grad_first_bias = self.grad_first[:, :-1], self.grad_first[:, -1]
        return (
            self.grad_inputs[:, :-1].contiguous(),
            self.grad_selection,
            grad_first.contiguous(),
            grad_first_bias.contiguous(),
            self.grad_second,
            self.grad_second_bias,
        )

    def _product_into(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        if self.low is None:
            torch.mm(left, right, out=out)
        else:
            out.copy_(left.to(self.low) @ right.to(self.low))

    def blocks(self) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        """All experts on every row, value and gradients at once: five large products a block."""
        experts = self.experts
        num_experts, dim_in, width = self.first.shape
        first = self.first.permute(1, 0, 2).reshape(dim_in, -1)  # (d_in + 1, M·h)
        second = experts.second.reshape(num_experts * width, -1)  # (M·h, d_out)
        if self.low is not None:
            second = second.to(self.low)
        grad_first = torch.zeros_like(first)
        grad_second = self.grad_second.zero_().view(num_experts * width, -1)
        self.grad_second_bias.zero_()
        loss = self.inputs.new_zeros(())
        rows = min(len(self.inputs), max(64, _BLOCK_ELEMENTS // (num_experts * width)))
        buffers = [self.inputs.new_empty(rows, num_experts * width) for _ in range(2)]
        for start in range(0, len(self.inputs), rows or 1):
            part = slice(start, start + rows)
            x, z = self.inputs[part], self.selection[part]
            hidden, mixed = (buffer[: len(x)] for buffer in buffers)
            torch.mm(x, first, out=hidden)
            _gate(hidden, z, mixed)
            error = (z @ experts.second_bias).sub_(self.targets[part])
            self._add_product(error, mixed, second)
            loss = loss + _error_rows(error, self.row_weight[part], self.squared)
            self._add_product(grad_second, mixed.T, error)
            self.grad_second_bias.addmm_(z.T, error)
            torch.mm(error, experts.second_bias.T, out=self.grad_selection[part])
            self._product_into(error, second.T, mixed)  # mixed is not needed any more
            _gate_back(hidden, z, mixed, self.grad_selection[part])
            grad_first.addmm_(x.T, mixed)
            torch.mm(mixed, first.T, out=self.grad_inputs[part])
        self.grad_first.copy_(grad_first.view(dim_in, num_experts, width).permute(1, 0, 2))
        return loss, lambda scale: tuple(gradient.mul_(scale) for gradient in self.gradients())

    def _add_product(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        if self.low is None:
            total.addmm_(left, right)
        else:
            total += (left.to(self.low) @ right.to(self.low)).to(total.dtype)

    def grouped(self, active: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        """Each expert on the rows that select it: pairs sorted by expert, so that an expert's are one slice.

        The gradients wait for the scale: it is one pass over the errors here, and one over all weights later.
        """
        experts, selection = self.experts, self.selection
        owners, rows = torch.nonzero(active.T, as_tuple=True)
        counts = torch.bincount(owners, minlength=len(self.first)).tolist()
        parts = [slice(stop - n, stop) for n, stop in zip(counts, accumulate(counts), strict=True)]
        x, z = self.inputs[rows], selection[rows, owners][:, None]  # (p, d_in + 1), (p, 1)
        hidden = x.new_empty(len(rows), self.first.shape[2])
        for one, weight in zip(_slices(hidden, x, parts=parts), self.first, strict=True):
            torch.mm(one[1], weight, out=one[0])
        mixed = torch.empty_like(hidden)
        _gate(hidden, z, mixed)
        output = x.new_empty(len(rows), experts.second.shape[2])
        for one, weight in zip(_slices(output, mixed, parts=parts), experts.second, strict=True):
            self._product_into(one[1], weight, one[0])
        error = (selection @ experts.second_bias).sub_(self.targets).index_add_(0, rows, output)
        loss = _error_rows(error, self.row_weight, self.squared)

        def gradients(scale: Tensor) -> tuple[Tensor, ...]:
            error.mul_(scale)
            torch.mm(error, experts.second_bias.T, out=self.grad_selection)
            torch.mm(selection.T, error, out=self.grad_second_bias)
            torch.index_select(error, 0, rows, out=output)  # (p, d_out): each pair's own error
            for one, weight, grad in zip(
                _slices(output, mixed, parts=parts), experts.second, self.grad_second, strict=True
            ):
                self._product_into(one[1].T, one[0], grad)
                self._product_into(one[0], weight.T, one[1])  # mixed is not needed any more
            by_pair = z.new_zeros(len(rows), 1)
            _gate_back(hidden, z, mixed, by_pair)
            self.grad_selection[rows, owners] += by_pair[:, 0]
            grad_x = torch.empty_like(x)
            for one, weight, grad in zip(
                _slices(x, mixed, grad_x, parts=parts), self.first, self.grad_first, strict=True
            ):
                torch.mm(one[0].T, one[1], out=grad)
                torch.mm(one[1], weight.T, out=one[2])
            self.grad_inputs.index_add_(0, rows, grad_x)
            return self.gradients()

        return loss, gradients


def _slices(*tensors: Tensor, parts: list[slice]) -> list[list[Tensor]]:
    """The same slices of several tensors."""
    return [[tensor[part] for tensor in tensors] for part in parts]


def _on_kernels(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.dtype == torch.float32


def _gate(hidden: Tensor, selection: Tensor, mixed: Tensor) -> None:
    """hidden (n, M·h) becomes relu(hidden), mixed that times the selection (n, M)."""
    if _on_kernels(hidden):
        from recdistill.ops.kernels import experts as kernels
        from recdistill.ops.kernels import use_torch_threads

        use_torch_threads(hidden.numel())
        kernels.gate(hidden.numpy(), selection.numpy(), mixed.numpy())
        return
    shape = (*selection.shape, -1) if hidden.numel() else (*selection.shape, 0)
    torch.mul(hidden.relu_().view(shape), selection[:, :, None], out=mixed.view(shape))


def _gate_back(hidden: Tensor, selection: Tensor, back: Tensor, grad_selection: Tensor) -> None:
    """back (n, M·h), the gradient of mixed, becomes that before the relu; grad_selection is added to."""
    if _on_kernels(hidden):
        from recdistill.ops.kernels import experts as kernels
        from recdistill.ops.kernels import use_torch_threads

        use_torch_threads(hidden.numel())
        kernels.gate_back(hidden.numpy(), selection.numpy(), back.numpy(), grad_selection.numpy())
        return
    shape = (*selection.shape, -1) if hidden.numel() else (*selection.shape, 0)
    grad_selection += (back * hidden).view(shape).sum(dim=2)
    back.view(shape).mul_(selection[:, :, None])
    back *= hidden > 0


def _error_rows(error: Tensor, row_weight: Tensor, squared: bool) -> Tensor:
    """Σ w ‖error‖² or Σ w ‖error‖; error becomes its gradient, 2 w error or w error / ‖error‖."""
    if not squared:
        norms = error.norm(dim=1)
        error *= torch.where(norms > 0, row_weight / norms, 0)[:, None]
        return (row_weight * norms).sum()
    if _on_kernels(error):
        from recdistill.ops.kernels import experts as kernels
        from recdistill.ops.kernels import use_torch_threads

        losses = torch.empty_like(row_weight)
        use_torch_threads(error.numel())
        kernels.error_rows(error.numpy(), row_weight.numpy(), losses.numpy())
        return losses.sum()
    loss = (row_weight * error.square().sum(dim=1)).sum()
    error *= 2 * row_weight[:, None]
    return loss
