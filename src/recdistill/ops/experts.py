"""A mixture of small networks as one scalar loss, value and gradient in blocks of rows.

The block form computes all experts' hidden units as one matrix and their mixture as one product; the grouped form
runs each expert on the rows that still select it. Neither stores rows × experts × dim.
"""

from __future__ import annotations

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
    inputs: Tensor, selection: Tensor, experts: Experts, targets: Tensor, row_weight: Tensor
) -> Tensor:
    """Twin of :func:`mixture_error` in plain autograd."""
    error = mixture_reference(inputs, selection, experts) - targets
    return (row_weight * error.square().sum(dim=1)).sum()


def mixture_error(
    inputs: Tensor, selection: Tensor, experts: Experts, targets: Tensor, row_weight: Tensor
) -> Tensor:
    """Σ_x w_x ‖t_x − Σ_m z_xm E_m(x)‖², scalar; first derivatives for everything but targets and weights.

    Value and gradient are computed together, one block of rows at a time. Under bfloat16 autocast the large
    products run in bfloat16 and are accumulated in float32.

    Args:
        inputs: x, shape ``(n, d_in)``.
        selection: z, shape ``(n, M)``; entries below 1e-8 count as 0.
        experts: the networks.
        targets: t, shape ``(n, d_out)``.
        row_weight: w, shape ``(n,)``.
    """
    device = inputs.device.type
    low = torch.bfloat16 if torch.is_autocast_enabled(device) else None
    with torch.autocast(device, enabled=False):
        return _MixtureError.apply(
            inputs, selection, *experts, targets.to(inputs.dtype), row_weight.to(inputs.dtype), low
        )


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
        low: torch.dtype | None,
    ) -> Tensor:
        work = _Work(
            inputs, selection, Experts(first, first_bias, second, second_bias), targets, row_weight, low
        )
        active = selection > NEGLIGIBLE
        share = float(active.float().mean()) if active.numel() else 0.0
        loss = work.grouped(active) if share < 0.25 else work.blocks()
        ctx.save_for_backward(*work.gradients())
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        return (*(gradient * scale for gradient in ctx.saved_tensors), None, None, None)


class _Work:
    """Buffers of one evaluation: the gradients of every argument, added to block by block."""

    def __init__(
        self,
        inputs: Tensor,
        selection: Tensor,
        experts: Experts,
        targets: Tensor,
        row_weight: Tensor,
        low: torch.dtype | None,
    ) -> None:
        self.inputs, self.selection, self.experts = inputs, selection, experts
        self.targets, self.row_weight, self.low = targets, row_weight, low
        self.grad_inputs = torch.zeros_like(inputs)
        self.grad_selection = torch.zeros_like(selection)
        self.grads = Experts(*(torch.zeros_like(weight) for weight in experts))

    def gradients(self) -> tuple[Tensor, ...]:
        return (self.grad_inputs, self.grad_selection, *self.grads)

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        if self.low is None:
            return left @ right
        return (left.to(self.low) @ right.to(self.low)).to(left.dtype)

    def _product_into(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        if self.low is None:
            torch.mm(left, right, out=out)
        else:
            out.copy_(left.to(self.low) @ right.to(self.low))

    def blocks(self) -> Tensor:
        """All experts on every row: three large products a block."""
        experts = self.experts
        num_experts, dim_in, width = experts.first.shape
        first = experts.first.permute(1, 0, 2).reshape(dim_in, -1)  # (d_in, M·h)
        second = experts.second.reshape(num_experts * width, -1)  # (M·h, d_out)
        low_second = second if self.low is None else second.to(self.low)
        grad_first = torch.zeros_like(first)
        grad_second = self.grads.second.view_as(second)
        loss = self.inputs.new_zeros(())
        rows = max(64, _BLOCK_ELEMENTS // (num_experts * width))
        for start in range(0, len(self.inputs), rows):
            part = slice(start, start + rows)
            x, z, weight = self.inputs[part], self.selection[part], self.row_weight[part]
            hidden = (
                torch.addmm(experts.first_bias.reshape(-1), x, first).relu_().view(len(x), num_experts, width)
            )
            mixed = (hidden * z[:, :, None]).view(len(x), -1)  # (n, M·h)
            error = self._product(mixed, low_second) + z @ experts.second_bias - self.targets[part]
            loss = loss + (weight * error.square().sum(dim=1)).sum()
            error *= 2 * weight[:, None]
            grad_second += self._product(mixed.T, error)
            del mixed
            back = self._product(error, low_second.T).view(len(x), num_experts, width)
            self.grad_selection[part] = (back * hidden).sum(dim=2) + error @ experts.second_bias.T
            self.grads.second_bias.addmm_(z.T, error)
            back *= z[:, :, None]
            back *= hidden > 0
            flat = back.view(len(x), -1)
            grad_first.addmm_(x.T, flat)
            self.grads.first_bias.view(-1).add_(flat.sum(dim=0))
            torch.mm(flat, first.T, out=self.grad_inputs[part])
        self.grads.first.copy_(grad_first.view(dim_in, num_experts, width).permute(1, 0, 2))
        return loss

    def grouped(self, active: Tensor) -> Tensor:
        """Each expert on the rows that select it: pairs sorted by expert, so that an expert's are one slice."""
        experts, selection = self.experts, self.selection
        owners, rows = torch.nonzero(active.T, as_tuple=True)
        counts = torch.bincount(owners, minlength=len(experts.first)).tolist()
        slices = [
            (m, slice(stop - n, stop))
            for m, (n, stop) in enumerate(zip(counts, accumulate(counts), strict=True))
            if n
        ]
        x, z = self.inputs[rows], selection[rows, owners][:, None]  # (p, d_in), (p, 1)
        hidden = x.new_empty(len(rows), experts.first.shape[2])
        for m, part in slices:
            torch.addmm(experts.first_bias[m], x[part], experts.first[m], out=hidden[part])
        hidden.relu_()
        scaled = hidden * z
        output = x.new_empty(len(rows), experts.second.shape[2])
        for m, part in slices:
            self._product_into(scaled[part], experts.second[m], output[part])
        error = (selection @ experts.second_bias).sub_(self.targets).index_add_(0, rows, output)
        loss = (self.row_weight * error.square().sum(dim=1)).sum()
        error *= 2 * self.row_weight[:, None]
        torch.mm(error, experts.second_bias.T, out=self.grad_selection)
        torch.mm(selection.T, error, out=self.grads.second_bias)
        torch.index_select(error, 0, rows, out=output)  # (p, d_out): each pair's own error
        back = torch.empty_like(hidden)
        for m, part in slices:
            self._product_into(scaled[part].T, output[part], self.grads.second[m])
            self._product_into(output[part], experts.second[m].T, back[part])
        self.grad_selection[rows, owners] += (back * hidden).sum(dim=1)
        back *= z
        back *= hidden > 0
        self.grads.first_bias.index_add_(0, owners, back)
        grad_x = torch.empty_like(x)
        for m, part in slices:
            torch.mm(x[part].T, back[part], out=self.grads.first[m])
            torch.mm(back[part], experts.first[m].T, out=grad_x[part])
        self.grad_inputs.index_add_(0, rows, grad_x)
        return loss
