"""Optimiser steps in one pass over the rows, for dense and for row-sparse gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Gradient = Tensor | tuple[Tensor, Tensor]
"""A dense gradient of the parameter's shape, a sparse COO tensor over rows (coalesced or not), or the pair
(ids (n,) int64, values (n, ...)); repeated ids add up, and ids of -1 are left out."""


def row_slots(num_rows: int) -> Tensor:
    """Scratch with which the steps add up repeated ids: (num_rows,) int32, all -1 between calls."""
    return torch.full((num_rows,), -1, dtype=torch.int32)


def adam_all(
    param: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Gradient,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    slots: Tensor | None = None,
) -> None:
    """One step of Adam on every row, in place, as ``torch.optim.Adam`` with its coupled weight decay.

    Args:
        param: parameter of any shape; its first dimension are the rows.
        m: running mean of gradients, of the parameter's shape.
        v: running mean of squared gradients, of the parameter's shape.
        gradient: see :data:`Gradient`.
        step: number of this step, from 1.
        learning_rate: step size.
        betas: decay of ``m`` and of ``v``, each in [0, 1).
        epsilon: added to the root of ``v``.
        weight_decay: ``weight_decay * param`` is added to the gradient of every row, touched or not.
        slots: :func:`row_slots` of the parameter, to be reused over steps; None: made for this call.
    """
    del slots
    adam_all_reference(
        param,
        m,
        v,
        gradient,
        step=step,
        learning_rate=learning_rate,
        betas=betas,
        epsilon=epsilon,
        weight_decay=weight_decay,
    )


def adam_all_reference(
    param: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Gradient,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
) -> None:
    """Plain-torch twin of :func:`adam_all`."""
    with torch.no_grad():
        dense = _dense(param, gradient)
        dense = dense.add(param, alpha=weight_decay)
        m.lerp_(dense, 1 - betas[0])
        v.mul_(betas[1]).addcmul_(dense, dense, value=1 - betas[1])
        root = (v.sqrt() / math.sqrt(1 - betas[1] ** step)).add_(epsilon)
        param.addcdiv_(m, root, value=-learning_rate / (1 - betas[0] ** step))


def adam_touched(
    param: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Gradient,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    slots: Tensor | None = None,
) -> None:
    """One step of Adam on the rows with a gradient, in place, as ``torch.optim.SparseAdam``; the others stay.

    A row is touched where its summed gradient has a non-zero element, whichever form the gradient comes in.

    Args:
        param: (R, ...) parameter.
        m: running mean of gradients, of the parameter's shape.
        v: running mean of squared gradients, of the parameter's shape.
        gradient: see :data:`Gradient`.
        step: number of this step, from 1, counted for the table and not for each row.
        learning_rate: step size.
        betas: decay of ``m`` and of ``v``, each in [0, 1).
        epsilon: added to the root of ``v`` before its bias correction, as SparseAdam does.
        weight_decay: ``weight_decay * param`` is added to the gradient of touched rows.
        slots: :func:`row_slots` of the parameter, to be reused over steps; None: made for this call.
    """
    del slots
    adam_touched_reference(
        param,
        m,
        v,
        gradient,
        step=step,
        learning_rate=learning_rate,
        betas=betas,
        epsilon=epsilon,
        weight_decay=weight_decay,
    )


def adam_touched_reference(
    param: Tensor,
    m: Tensor,
    v: Tensor,
    gradient: Gradient,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
) -> None:
    """Plain-torch twin of :func:`adam_touched`."""
    with torch.no_grad():
        rows, values = _touched(param, gradient)
        values = values.add(param[rows], alpha=weight_decay)
        mean = m[rows].lerp(values, 1 - betas[0])
        square = (v[rows] * betas[1]).addcmul(values, values, value=1 - betas[1])
        m[rows] = mean
        v[rows] = square
        size = learning_rate * math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
        param[rows] = param[rows].addcdiv(mean, square.sqrt().add_(epsilon), value=-size)


def rowwise_adagrad(
    param: Tensor,
    squares: Tensor,
    gradient: Gradient,
    *,
    learning_rate: float,
    epsilon: float,
    weight_decay: float,
    slots: Tensor | None = None,
) -> None:
    """One step of Adagrad with one number a row, in place, on the rows with a gradient.

    ``squares[r] += mean(g²)``, then ``param[r] -= learning_rate * g / (sqrt(squares[r]) + epsilon)``. A row is touched where
    its summed gradient has a non-zero element.

    Args:
        param: (R, ...) parameter.
        squares: (R,) running sum of the rows' mean squared gradients.
        gradient: see :data:`Gradient`.
        learning_rate: step size.
        epsilon: added to the root.
        weight_decay: ``weight_decay * param`` is added to the gradient of touched rows.
        slots: :func:`row_slots` of the parameter, to be reused over steps; None: made for this call.
    """
    del slots
    rowwise_adagrad_reference(
        param,
        squares,
        gradient,
        learning_rate=learning_rate,
        epsilon=epsilon,
        weight_decay=weight_decay,
    )


def rowwise_adagrad_reference(
    param: Tensor,
    squares: Tensor,
    gradient: Gradient,
    *,
    learning_rate: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """Plain-torch twin of :func:`rowwise_adagrad`."""
    with torch.no_grad():
        rows, values = _touched(param, gradient)
        values = values.add(param[rows], alpha=weight_decay).reshape(len(rows), -1)
        summed = squares[rows] + values.square().mean(dim=1)
        squares[rows] = summed
        move = values / (summed.sqrt() + epsilon).unsqueeze(1)
        param[rows] = param[rows].sub(move.reshape(param[rows].shape), alpha=learning_rate)


def _pair(gradient: Gradient) -> tuple[Tensor, Tensor] | None:
    """The row-sparse form (ids, values) of a gradient, or None for a dense one."""
    if isinstance(gradient, tuple):
        return gradient
    if gradient.layout == torch.sparse_coo:
        # The public accessors refuse uncoalesced tensors, and coalescing is what the kernels do themselves.
        return gradient._indices()[0], gradient._values()  # pyright: ignore[reportPrivateUsage]
    return None


def _dense(param: Tensor, gradient: Gradient) -> Tensor:
    pair = _pair(gradient)
    if pair is None:
        assert isinstance(gradient, Tensor)
        return gradient
    ids, values = pair
    kept = ids >= 0
    return torch.zeros_like(param).index_add_(0, ids[kept], values[kept])


def _touched(param: Tensor, gradient: Gradient) -> tuple[Tensor, Tensor]:
    """Rows with a non-zero gradient, ascending and unique, and their summed gradients."""
    pair = _pair(gradient)
    if pair is None:
        assert isinstance(gradient, Tensor)
        rows, values = torch.arange(len(param), device=param.device), gradient
    else:
        kept = pair[0] >= 0
        rows, inverse = torch.unique(pair[0][kept], return_inverse=True)
        values = param.new_zeros((len(rows), *param.shape[1:])).index_add_(0, inverse, pair[1][kept])
    touched = (values.reshape(len(rows), -1) != 0).any(dim=1) if len(rows) else rows.bool()
    return rows[touched], values[touched]
