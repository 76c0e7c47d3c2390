"""Cells of convolutions for sequences, as one architecture has them.

A cell has one input f_0 and N nodes; each node sums an operation of every node before it:

    h_j = relu(f_j) where there is an item, 0 at padding
    f_i = Σ_{j<i} o_ij(h_j)              i = 1…N
    u   = Σ_{i≥1} softmax(a)_i f_i
    out = f_0 + relu(LayerNorm(u))

After the student space of AdaRec (Chen et al., Scene-adaptive Knowledge Distillation for Sequential Recommendation via
Differentiable Architecture Search, 2021). That space's plain and dilated convolutions and its pools look one step ahead
or more, so a model trained to predict the next item reads it off; here every operation of the space ``causal`` looks
back only, and the published list is the space ``released``. Padding counts as 0 before every operation and is left out
of batch normalisation, so that left padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.models.architecture import OPERATIONS, Architecture, Operation


class MaskedBatchNorm(nn.Module):
    """Batch normalisation of each channel over the positions that hold an item; eval mode uses running statistics.

    Args:
        dim: channels.
    """

    momentum, epsilon = 0.1, 1e-5
    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        """``x`` (B, L, dim) normalised; ``present`` (B, L) bool, None where there is no padding."""
        rows = x.flatten(0, 1)
        weight = torch.ones_like(rows[:, 0]) if present is None else present.flatten().to(x.dtype)
        count = weight.sum()
        mean = weight @ rows / count
        centred = rows - mean
        variance = weight @ centred.square() / count
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(unbiased, self.momentum)
        return torch.addcmul(self.shift, centred, self.scale * (variance + self.epsilon).rsqrt()).view_as(x)

    def folded(self, matrix: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix (n, dim) and bias of a linear map followed by this normalisation in eval mode."""
        scale = self.scale * (self.variance + self.epsilon).rsqrt()
        return matrix * scale, (bias - self.mean) * scale + self.shift


def taps(x: Tensor, operation: Operation) -> list[Tensor]:
    """What ``operation`` reads, oldest first: as many views (B, L, dim) of ``x`` as its kernel, 0 beyond the ends."""
    length, reach = x.shape[1], operation.reach
    ahead = 0 if operation.causal else reach // 2
    padded = F.pad(x, (0, 0, reach - ahead, ahead))
    return [padded[:, start : start + length] for start in range(0, reach + 1, operation.dilation)]


class Convolution(nn.Module):
    """A convolution over positions, dim to dim, with bias and :class:`MaskedBatchNorm`.

    Args:
        operation: its kernel, dilation and direction.
        dim: channels.
        generator: of the initial weights, uniform within ±1/sqrt(kernel · dim).
    """

    def __init__(self, operation: Operation, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.operation = operation
        bound = (operation.kernel * dim) ** -0.5
        self.matrix = nn.Parameter(  # one row a tap and channel, oldest tap first
            torch.empty(operation.kernel * dim, dim).uniform_(-bound, bound, generator=generator)
        )
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound, generator=generator))
        self.norm = MaskedBatchNorm(dim)

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        read = torch.cat(taps(x, self.operation), dim=-1)
        if self.training:
            return self.norm(F.linear(read, self.matrix.T, self.bias), present)
        matrix, bias = self.norm.folded(self.matrix, self.bias)
        return F.linear(read, matrix.T, bias)


class Pool(nn.Module):
    """The largest or the mean of the positions read; 0 beyond the ends counts in the mean.

    Args:
        operation: its kernel, dilation and direction.
    """

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        del present
        first, *others = taps(x, self.operation)
        for tap in others:
            first = torch.maximum(first, tap) if self.operation.kind == "max" else first + tap
        return first if self.operation.kind == "max" else first / self.operation.kernel


class Skip(nn.Module):
    """What comes in."""

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        del present
        return x


def make_operation(name: str, dim: int, generator: torch.Generator) -> nn.Module | None:
    """The module of an operation; ``none`` has none."""
    operation = OPERATIONS[name]
    if operation.kind == "conv":
        return Convolution(operation, dim, generator)
    if operation.kind in ("max", "avg"):
        return Pool(operation)
    return Skip() if operation.kind == "skip" else None


class NodeMix(nn.Module):
    """The end of a cell: input + relu(LayerNorm(Σ softmax(a)_i f_i)).

    Args:
        num_nodes: N.
        dim: channels.
        generator: of a, N(0, 0.01²).
    """

    def __init__(self, num_nodes: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.attention = nn.Parameter(0.01 * torch.randn(num_nodes, generator=generator))
        self.norm = nn.LayerNorm(dim, eps=1e-8)

    def forward(self, x: Tensor, nodes: Sequence[Tensor]) -> Tensor:
        shares = torch.softmax(self.attention, dim=0).unbind()
        mixed = nodes[0] * shares[0]
        for node, share in zip(nodes[1:], shares[1:], strict=True):
            mixed = torch.addcmul(mixed, node, share)
        return x + torch.relu(self.norm(mixed))


def hidden(node: Tensor, present: Tensor | None) -> Tensor:
    """relu(f), 0 at padding: what leaves a node (B, L, dim)."""
    return torch.relu(node) if present is None else torch.relu(node) * present[..., None]


class Cell(nn.Module):
    """The cell of one architecture.

    Args:
        architecture: its operations.
        dim: channels.
        generator: of the initial weights.
    """

    def __init__(self, architecture: Architecture, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.architecture = architecture
        made = {
            f"{number}_{source}": make_operation(name, dim, generator)
            for number, node in enumerate(architecture.nodes, start=1)
            for source, name in enumerate(node)
        }
        self.edges = nn.ModuleDict({key: module for key, module in made.items() if module is not None})
        self.mix = NodeMix(len(architecture.nodes), dim, generator)

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        """(B, L, dim) → (B, L, dim); what it gives at padding means nothing."""
        nodes, ready = [x], [hidden(x, present)]
        last = len(self.architecture.nodes)
        for number in range(1, last + 1):
            parts = [
                self.edges[f"{number}_{source}"](ready[source], present)
                for source in range(number)
                if f"{number}_{source}" in self.edges
            ]
            node = torch.zeros_like(x) if not parts else parts[0]
            for part in parts[1:]:
                node = node + part
            nodes.append(node)
            if number < last:
                ready.append(hidden(node, present))
        return self.mix(x, nodes[1:])
