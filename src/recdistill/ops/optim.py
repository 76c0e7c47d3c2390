"""Optimiser steps in one pass over the rows, for dense and for row-sparse gradients.

A dense gradient is never built from a row-sparse one. Repeated rows are added up in the order in which they
come, so a step gives the same result on any number of threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.ops.gradients import Gradient, as_dense, as_row_sparse, grouped, row_sparse, summed_rows


class AdamSettings(NamedTuple):
    """Numbers of one step: it moves by ``-size * m / (sqrt(v) * root + epsilon)``.

    Attributes:
        keep1: share of ``m`` that is kept.
        keep2: share of ``v`` that is kept.
        size: learning rate with its bias correction.
        root: bias correction of the root of ``v``.
        epsilon: see :func:`adam_all`.
        decay: coupled weight decay.
    """

    keep1: float
    keep2: float
    size: float
    root: float
    epsilon: float
    decay: float


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
        epsilon: added to the root of ``v``, after its bias correction.
        weight_decay: ``weight_decay * param`` is added to the gradient of every row, touched or not.

    Raises:
        ValueError: a gradient that does not fit the parameter.
        IndexError: a row out of range.
    """
    adam = _dense_adam(step, learning_rate, betas, epsilon, weight_decay)
    pair = row_sparse(param, gradient)
    if not _kernels_fit(gradient if pair is None else pair[1], param, m, v):
        _adam_all_in_torch(param, m, v, gradient, adam)
        return
    from recdistill.ops.kernels import optim as kernels
    from recdistill.ops.kernels import use_torch_threads

    use_torch_threads(3 * param.numel())
    if pair is None:
        kernels.adam_dense(
            _flat(param), _flat(m), _flat(v), _flat(as_dense(param, gradient).contiguous()), adam
        )
    else:
        with grouped(pair[0], len(param)) as places:
            kernels.adam_all_rows(
                _flat(param), _flat(m), _flat(v), _matrix(pair[1].contiguous()), places, adam
            )
    torch.autograd.graph.increment_version(param)


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
    adam = _dense_adam(step, learning_rate, betas, epsilon, weight_decay)
    _adam_all_in_torch(param, m, v, gradient, adam)


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
) -> None:
    """One step of Adam on the rows with a gradient, in place, as ``torch.optim.SparseAdam``; the others stay.

    A row is touched where its summed gradient has a non-zero element, so that the result does not depend on
    the form in which the gradient comes.

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

    Raises:
        ValueError: a gradient that does not fit the parameter.
        IndexError: a row out of range.
    """
    adam = _sparse_adam(step, learning_rate, betas, epsilon, weight_decay)
    ids, values = as_row_sparse(param, gradient)
    if not _kernels_fit(values, param, m, v):
        _adam_touched_in_torch(param, m, v, gradient, adam)
        return
    from recdistill.ops.kernels import optim as kernels
    from recdistill.ops.kernels import use_torch_threads

    threads = use_torch_threads(3 * values.numel())
    with grouped(ids, len(param)) as places:
        kernels.adam_touched_rows(
            _matrix(param), _matrix(m), _matrix(v), _matrix(values.contiguous()), places, threads, adam
        )
    torch.autograd.graph.increment_version(param)


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
    adam = _sparse_adam(step, learning_rate, betas, epsilon, weight_decay)
    _adam_touched_in_torch(param, m, v, gradient, adam)


def rowwise_adagrad(
    param: Tensor,
    squares: Tensor,
    gradient: Gradient,
    *,
    learning_rate: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """One step of Adagrad with one number a row, in place, on the rows with a gradient.

    ``squares[r] += mean(g²)``, then ``param[r] -= learning_rate * g / (sqrt(squares[r]) + epsilon)``. A row
    is touched where its summed gradient has a non-zero element.

    Args:
        param: (R, ...) parameter.
        squares: (R,) running sum of the rows' mean squared gradients.
        gradient: see :data:`Gradient`.
        learning_rate: step size.
        epsilon: added to the root.
        weight_decay: ``weight_decay * param`` is added to the gradient of touched rows.

    Raises:
        ValueError: a gradient that does not fit the parameter.
        IndexError: a row out of range.
    """
    ids, values = as_row_sparse(param, gradient)
    if not _kernels_fit(values, param, squares):
        rowwise_adagrad_reference(
            param,
            squares,
            gradient,
            learning_rate=learning_rate,
            epsilon=epsilon,
            weight_decay=weight_decay,
        )
        return
    from recdistill.ops.kernels import optim as kernels
    from recdistill.ops.kernels import use_torch_threads

    threads = use_torch_threads(3 * values.numel())
    with grouped(ids, len(param)) as places:
        kernels.adagrad_rows(
            _matrix(param),
            squares.numpy(),
            _matrix(values.contiguous()),
            places,
            threads,
            learning_rate,
            epsilon,
            weight_decay,
        )
    torch.autograd.graph.increment_version(param)


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
        rows, values = summed_rows(param, gradient)
        values = values.add(param[rows], alpha=weight_decay)
        summed = squares[rows] + values.reshape(len(rows), math.prod(param.shape[1:])).square().mean(dim=1)
        squares[rows] = summed
        size = learning_rate / (summed.sqrt() + epsilon)
        param[rows] -= values * size.view(-1, *[1] * (param.dim() - 1))


def _dense_adam(
    step: int, learning_rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float
) -> AdamSettings:
    root = 1 / math.sqrt(1 - betas[1] ** step)
    return AdamSettings(*betas, learning_rate / (1 - betas[0] ** step), root, epsilon, weight_decay)


def _sparse_adam(
    step: int, learning_rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float
) -> AdamSettings:
    size = learning_rate * math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
    return AdamSettings(*betas, size, 1.0, epsilon, weight_decay)


@torch.no_grad()
def _adam_all_in_torch(param: Tensor, m: Tensor, v: Tensor, gradient: Gradient, adam: AdamSettings) -> None:
    slope = as_dense(param, gradient).add(param, alpha=adam.decay)
    m.lerp_(slope, 1 - adam.keep1)
    v.mul_(adam.keep2).addcmul_(slope, slope, value=1 - adam.keep2)
    param.addcdiv_(m, v.sqrt().mul_(adam.root).add_(adam.epsilon), value=-adam.size)


@torch.no_grad()
def _adam_touched_in_torch(
    param: Tensor, m: Tensor, v: Tensor, gradient: Gradient, adam: AdamSettings
) -> None:
    rows, values = summed_rows(param, gradient)
    slope = values.add(param[rows], alpha=adam.decay)
    mean = m[rows].lerp(slope, 1 - adam.keep1)
    square = (v[rows] * adam.keep2).addcmul(slope, slope, value=1 - adam.keep2)
    m[rows] = mean
    v[rows] = square
    root = square.sqrt().mul_(adam.root).add_(adam.epsilon)
    param[rows] = param[rows].addcdiv(mean, root, value=-adam.size)


def _kernels_fit(gradient: Gradient, *state: Tensor) -> bool:
    """Whether the kernels can take these: float32 on the CPU, contiguous state, not empty."""
    tensors = [gradient, *state]
    if not all(
        isinstance(t, Tensor) and t.is_cpu and t.dtype == torch.float32 and t.numel() for t in tensors
    ):
        return False
    return all(tensor.is_contiguous() for tensor in state)


def _flat(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().view(-1).numpy()


def _matrix(tensor: Tensor) -> NDArray[np.float32]:
    """A view (R, elements of a row)."""
    return tensor.detach().view(len(tensor), -1).numpy()
