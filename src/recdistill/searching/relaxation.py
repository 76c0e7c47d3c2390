"""Choices made by gradient: Gumbel-softmax with straight-through gradients, and its temperature.

    y = softmax((log softmax(α) + g) / τ),    z = onehot(argmax y) as a value, y as a gradient

Jang et al., Categorical Reparameterization with Gumbel-Softmax, ICLR 2017; Maddison et al., ICLR 2017. The published
schedule of τ has no floor and leaves no gradient after some 75 epochs; here it stops at a floor.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise from a CPU generator."""
    uniform = torch.rand(shape, generator=generator)
    return -(-uniform.clamp(torch.finfo(torch.float32).tiny, 1 - 2**-24).log()).log()


def relaxed(alpha: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """y, rows of shares above 0; ``alpha`` and ``noise`` are ``(rows, choices)``."""
    return torch.softmax((torch.log_softmax(alpha, dim=-1) + noise) / temperature, dim=-1)


def straight_through(soft: Tensor) -> Tensor:
    """z: one-hot rows whose gradient is that of ``soft``."""
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return hard - soft.detach() + soft


def chosen(alpha: Tensor) -> Tensor:
    """One-hot rows of the largest ``alpha``, without noise or gradient: what evaluation uses."""
    return torch.zeros_like(alpha).scatter_(-1, alpha.argmax(dim=-1, keepdim=True), 1.0)


def annealed(epoch: int, start: float = 1.0, decay: float = 0.8, every: int = 5, floor: float = 0.1) -> float:
    """τ in ``epoch`` (from 0): start · decay^⌊epoch / every⌋, at least ``floor``."""
    return max(floor, start * decay ** (epoch // every))
