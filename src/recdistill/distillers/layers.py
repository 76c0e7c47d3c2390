"""Layers of a sequence teacher and of a sequence student side by side: maps between them and distances.

Hidden states are compared at the P positions that hold an item, ``(layers, P, dim)``; all distances are means over
them:

    kl:      KL(softmax(t) ‖ softmax(s)) over channels, summed over channels; arguments exchanged with ``reverse``
    mse:     (t − s)², mean over channels
    cosine:  1 − cos(s, t)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Metric = Literal["kl", "mse", "cosine"]
Scheme = Literal["left", "right", "left-jump", "right-jump", "random"]


def layer_distances(student: Tensor, teacher: Tensor, metric: Metric = "kl", reverse: bool = False) -> Tensor:
    """Distance of every student layer to every teacher layer, D of shape ``(N, M)``, by one matrix product.

    Rounding may leave an entry just below 0 where two layers agree.

    Args:
        student: shape ``(N, P, dim)``, P positions.
        teacher: shape ``(M, P, dim)``.
        metric: see above.
        reverse: exchange the arguments of ``kl``.
    """
    positions, dim = student.shape[1], student.shape[2]
    if metric == "kl":
        own, other = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
        if reverse:
            weight = own.exp()
            return (
                (weight * own).sum(dim=(1, 2))[:, None] - weight.flatten(1) @ other.flatten(1).T
            ) / positions
        weight = other.exp()
        return ((weight * other).sum(dim=(1, 2)) - own.flatten(1) @ weight.flatten(1).T) / positions
    if metric == "mse":
        squares = student.square().sum(dim=(1, 2))[:, None] + teacher.square().sum(dim=(1, 2))
        return (squares - 2 * student.flatten(1) @ teacher.flatten(1).T) / (positions * dim)
    own, other = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return 1 - own.flatten(1) @ other.flatten(1).T / positions


def pair_distances(student: Tensor, teacher: Tensor, metric: Metric = "kl") -> Tensor:
    """Distance of each student layer to the teacher layer beside it, shape ``(N,)``; both ``(N, P, dim)``."""
    if metric == "kl":
        own, other = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
        return (other.exp() * (other - own)).sum(dim=-1).mean(dim=1)
    if metric == "mse":
        return (student - teacher).square().mean(dim=(1, 2))
    return 1 - F.cosine_similarity(student, teacher, dim=-1).mean(dim=1)


def layer_map(
    scheme: Scheme, student_layers: int, teacher_layers: int, generator: torch.Generator
) -> list[int]:
    """The teacher layer (from 0) of each student layer.

    With more teacher layers T than student layers S, ``left`` takes the first S, ``right`` the last, the jumps
    every ⌊(T−1)/(S−1)⌋-th from the first or up to the last. With fewer, layers repeat: the first (``left``), the last
    (``right``), or each ⌊S/T⌋ times with the remainder at the end (``left-jump``) or the front (``right-jump``). With
    as many, each has its own. ``random`` draws them, in order.
    """
    count, of = student_layers, teacher_layers
    if scheme == "random":
        if of >= count:
            return torch.randperm(of, generator=generator)[:count].sort().values.tolist()
        return torch.randint(of, (count,), generator=generator).sort().values.tolist()
    if of < count:
        repeat = {"left": 1, "right": 1}.get(scheme, count // of)
        spare = count - repeat * of
        front, back = ([0] * spare, []) if scheme in ("left", "right-jump") else ([], [of - 1] * spare)
        return [*front, *(layer for layer in range(of) for _ in range(repeat)), *back]
    if scheme == "left":
        return list(range(count))
    if scheme == "right":
        return list(range(of - count, of))
    if count == 1:
        return [0 if scheme == "left-jump" else of - 1]
    step = (of - 1) // (count - 1)
    first = 0 if scheme == "left-jump" else (of - 1) % (count - 1)
    return [first + layer * step for layer in range(count)]
