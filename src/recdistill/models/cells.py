"""Cells of convolutions for sequences, as one architecture has them.

A cell has one input f_0 and N nodes; each node sums an operation of every node before it:

    h_j = relu(f_j)
    f_i = Σ_{j<i} o_ij(h_j)              i = 1…N
    u   = Σ_{i≥1} softmax(a)_i f_i
    out = f_0 + relu(LayerNorm(u))

After the student space of AdaRec (Chen et al., Scene-adaptive Knowledge Distillation for Sequential Recommendation via
Differentiable Architecture Search, 2021). That space's plain and dilated convolutions and its pools look one step ahead
or more, so a model trained to predict the next item reads it off; here every operation of the space ``causal`` looks
back only, and the published list is the space ``released``. The windows' items lie end to end without padding; what is
read beyond either end of a window counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.models.architecture import OPERATIONS, Architecture, Operation
from recdistill.models.sequence_batches import Places


class Neighbours:
    """Which of the N items have others so far before or after them in their windows.

    Args:
        places: where the items lie.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._inside: dict[int, Tensor] = {}

    @property
    def single(self) -> bool:
        """There is one window: beyond its ends there is nothing."""
        return self._places.windows == 1

    def inside(self, back: int) -> Tensor | None:
        """1 where an item has one ``back`` places before it (after it, if below 0), ``(N, 1)``; None for no mask."""
        if back == 0 or self.single:
            return None
        if back not in self._inside:
            enough = self._places.slots >= back if back > 0 else self._places.from_end >= -back
            self._inside[back] = enough[:, None].float()
        return self._inside[back]


class Reads:
    """What operations read of the items' vectors; shared by all operations of a node.

    Args:
        x: shape ``(N, dim)``.
        neighbours: of the items.
    """

    def __init__(self, x: Tensor, neighbours: Neighbours) -> None:
        self.x = x
        self._neighbours = neighbours
        self._taps: dict[int, Tensor] = {0: x}
        self._windows: dict[tuple[int, int, bool], Tensor] = {}

    def tap(self, back: int) -> Tensor:
        """The vectors ``back`` places before each item, 0 beyond the ends, shape ``(N, dim)``."""
        if back not in self._taps:
            count = len(self.x)
            near = min(abs(back), count)
            pad, part = ((near, 0), self.x[: count - near]) if back > 0 else ((0, near), self.x[near:])
            shifted, inside = F.pad(part, (0, 0, *pad)), self._neighbours.inside(back)
            self._taps[back] = shifted if inside is None else shifted * inside.to(shifted.dtype)
        return self._taps[back]

    def taps(self, operation: Operation) -> list[Tensor]:
        """What ``operation`` reads, oldest first, ``(N, dim)`` each."""
        ahead = 0 if operation.causal else operation.reach // 2
        return [self.tap(back) for back in range(operation.reach - ahead, -ahead - 1, -operation.dilation)]

    def window(self, operation: Operation) -> Tensor:
        """The same side by side, shape ``(N, kernel · dim)``."""
        key = operation.kernel, operation.dilation, operation.causal
        if key not in self._windows:
            if operation.causal and self._neighbours.single and not torch.is_grad_enabled():
                self._windows[key] = self._strided(operation)
            else:
                self._windows[key] = torch.cat(self.taps(operation), dim=1)
        return self._windows[key]

    def _strided(self, operation: Operation) -> Tensor:
        """The same of the only window, by one copy."""
        count, dim = self.x.shape
        padded = F.pad(self.x, (0, 0, operation.reach, 0))
        shape, strides = (count, operation.kernel, dim), (dim, operation.dilation * dim, 1)
        return padded.as_strided(shape, strides).reshape(count, -1)


class BatchNorm(nn.Module):
    """Batch normalisation of rows; a single row, and eval mode, take running statistics.

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

    def forward(self, x: Tensor) -> Tensor:
        own = self.training and len(x) > 1
        return F.batch_norm(
            x, self.mean, self.variance, self.scale, self.shift, own, self.momentum, self.epsilon
        )

    def folded(self, matrix: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix (n, dim) and bias of a linear map followed by this normalisation in eval mode."""
        scale = self.scale * (self.variance + self.epsilon).rsqrt()
        return matrix * scale, torch.addcmul(self.shift, bias - self.mean, scale)


class Convolution(nn.Module):
    """A convolution over positions, dim to dim, with bias and :class:`BatchNorm`.

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
        self.norm = BatchNorm(dim)
        self._folded: tuple[Tensor, Tensor] | None = None
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, reads: Reads) -> Tensor:
        window = reads.window(self.operation)
        if self.training:
            return self.norm(torch.addmm(self.bias, window, self.matrix))
        if torch.is_grad_enabled():
            matrix, bias = self.norm.folded(self.matrix, self.bias)
        else:
            matrix, bias = self._folded = self._folded or self.norm.folded(self.matrix, self.bias)
        return torch.addmm(bias, window, matrix)

    def train(self, mode: bool = True) -> Self:
        self._folded = None  # parameters change in training mode alone
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._folded = None
        return super()._apply(fn, recurse)


def _forget(module: nn.Module, keys: Any) -> None:
    """Loaded weights make what was folded from others void."""
    del keys
    assert isinstance(module, Convolution)
    module.train(module.training)


class Pool(nn.Module):
    """The largest or the mean of the positions read; 0 beyond the ends counts in the mean.

    Args:
        operation: its kernel, dilation and direction.
    """

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, reads: Reads) -> Tensor:
        first, *others = reads.taps(self.operation)
        for tap in others:
            first = torch.maximum(first, tap) if self.operation.kind == "max" else first + tap
        return first if self.operation.kind == "max" else first / self.operation.kernel


class Skip(nn.Module):
    """What comes in."""

    def forward(self, reads: Reads) -> Tensor:
        return reads.x


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

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        """The items' vectors (N, dim) to their next, (N, dim)."""
        nodes: list[Tensor] = []
        ready = [Reads(torch.relu(x), neighbours)]
        last = len(self.architecture.nodes)
        for number in range(1, last + 1):
            parts = [
                self.edges[f"{number}_{source}"](ready[source])
                for source in range(number)
                if f"{number}_{source}" in self.edges
            ]
            node = torch.zeros_like(x) if not parts else parts[0]
            for part in parts[1:]:
                node = node + part
            nodes.append(node)
            if number < last:
                ready.append(Reads(torch.relu(node), neighbours))
        return self.mix(x, nodes)
