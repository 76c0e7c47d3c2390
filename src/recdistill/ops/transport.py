"""Earth mover's distance between two small weighted sets, such as the layers of a student and of a teacher.

    EMD(w, u, D) = min_F Σ_ij F_ij D_ij    subject to  Σ_j F_ij = w_i,  Σ_i F_ij = u_j,  F ≥ 0

The plan F is a constant of the gradient: ∂EMD/∂D = F wherever the optimum is unique (and one of the sub-gradients
elsewhere), so ``(plan * cost).sum()`` has the exact gradient. The value is always unique, the plan is not.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import OptionError

Solver = Literal["auto", "pot", "linprog"]
_SMALLEST = 1e-30
_LOOK, _TOLERANCE = 20, 3e-6


@torch.no_grad()
def transport_plan(cost: Tensor, rows: Tensor, columns: Tensor, solver: Solver = "auto") -> Tensor:
    """The cheapest plan, solved exactly in float64 on the CPU.

    Args:
        cost: D, shape ``(N, M)``; negative entries (rounding) count as 0; of entries that are not finite there is no
            cheapest plan, and w uᵀ is returned.
        rows: w, shape ``(N,)``, at least 0, of sum above 0; scaled to sum 1.
        columns: u, shape ``(M,)``, likewise.
        solver: ``pot`` (network simplex), ``linprog`` (scipy), or POT where it is installed.

    Returns:
        F, shape ``(N, M)``, of the dtype and device of ``cost``, without gradient.

    Raises:
        OptionError: POT was asked for and is not installed.
    """
    if solver == "pot" and not _has_pot():
        raise OptionError(
            "the package POT is not installed",
            'pip install "recdistill[ot]", or use the solver linprog, which needs nothing more',
        )
    exact = np.maximum(cost.detach().double().cpu().numpy(), 0.0)
    w, u = (_shares(side) for side in (rows, columns))
    if not np.isfinite(exact).all():  # of models that diverged: any plan will do, the loss says so
        return torch.from_numpy(np.outer(w, u)).to(cost)
    plan = (
        _by_pot(exact, w, u)
        if solver == "pot" or (solver == "auto" and _has_pot())
        else _by_linprog(exact, w, u)
    )
    return torch.from_numpy(plan).to(cost)


def _shares(weights: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = weights.detach().double().cpu().numpy()
    return values / values.sum()


@cache
def _has_pot() -> bool:
    return importlib.util.find_spec("ot") is not None


def _by_pot(cost: Any, rows: Any, columns: Any) -> Any:
    return importlib.import_module("ot.lp").emd(rows, columns, cost, check_marginals=False)


def _by_linprog(cost: Any, rows: Any, columns: Any) -> Any:
    from scipy.optimize import linprog

    n, m = cost.shape
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    totals = np.concatenate([rows, columns])
    found = linprog(
        cost.reshape(-1), A_eq=sums[:-1], b_eq=totals[:-1], method="highs"
    )  # one row is redundant
    return np.maximum(found.x, 0.0).reshape(n, m)


def sinkhorn_plan(
    cost: Tensor, rows: Tensor, columns: Tensor, epsilon: float | None = None, iterations: int = 1000
) -> Tensor:
    """The plan of entropic transport in the log domain: batched, on any device, differentiable in everything.

    With all scalings done its cost ⟨P, D⟩ is at least that of the exact plan and falls to it with ε; scalings end
    where the rows sum to w within 3e-6, or after ``iterations`` of them.

    Args:
        cost: D, shape ``(..., N, M)``.
        rows: w, shape ``(..., N)``, at least 0, sums to 1.
        columns: u, shape ``(..., M)``, likewise.
        epsilon: ε, above 0; without it 0.05 · mean(D), each matrix its own, held constant.
        iterations: of row and column scalings at most, at least 1.

    Returns:
        P, shape ``(..., N, M)``; its columns sum to u exactly, its rows to w in the limit.
    """
    if epsilon is None:
        scale = 0.05 * cost.detach().mean(dim=(-2, -1), keepdim=True)
        scale = scale.clamp(min=torch.finfo(cost.dtype).tiny)
    else:
        scale = torch.full_like(cost[..., :1, :1], epsilon)
    log_rows, log_columns = (side.clamp(min=_SMALLEST).log() for side in (rows, columns))
    kernel = -cost / scale
    f, g = torch.zeros_like(log_rows), torch.zeros_like(log_columns)
    for turn in range(1, iterations + 1):
        sums = torch.logsumexp(kernel + g[..., None, :], dim=-1)
        if turn % _LOOK == 0 and bool(((f + sums).exp() - rows).detach().abs().max() < _TOLERANCE):
            break
        f = log_rows - sums
        g = log_columns - torch.logsumexp(kernel + f[..., :, None], dim=-2)
    return (kernel + f[..., :, None] + g[..., None, :]).exp()


@torch.no_grad()
def cooperative_weights(
    plan: Tensor,
    cost: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    temperature: float = 10.0,
    smoothing: float = 0.1,
    floor: float = 1e-4,
    column_cost: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """New weights of both sides: what is cheap to move gets more.

        c_i = Σ_j F_ij D_ij / w_i,   v_i = Σ_k c_k / (c_i + δ · mean(c)),   w' = softmax(v / T), floored, sum 1

    and the same for u over columns. Published code has δ = 0, which lets a layer of cost 0 take all the weight; here
    v is at most N / δ. Where every cost is 0 the weights stay.

    Args:
        plan: F, shape ``(N, M)``.
        cost: D, shape ``(N, M)``; negative entries (rounding) count as 0.
        rows: w, shape ``(N,)``; a side of weight 0 keeps 0.
        columns: u, shape ``(M,)``.
        temperature: T, above 0.
        smoothing: δ, at least 0.
        floor: least weight before the last scaling, at least 0: a weight of 0 would never recover.
        column_cost: D of the columns' side where it is another (a divergence with its arguments exchanged).

    Returns:
        w' and u'.
    """
    moved = plan * cost.clamp(min=0)
    other = moved if column_cost is None else plan * column_cost.clamp(min=0)
    options = temperature, smoothing, floor
    return _reweighted(moved.sum(dim=1), rows, *options), _reweighted(other.sum(dim=0), columns, *options)


def _reweighted(moved: Tensor, weights: Tensor, temperature: float, smoothing: float, floor: float) -> Tensor:
    present = weights > 0
    unit = (moved / weights.clamp(min=1e-12))[present]
    total = unit.sum()
    value = total / (unit + smoothing * unit.mean()).clamp(min=total * _SMALLEST)
    share = torch.softmax(value / temperature, dim=0).clamp(min=floor)
    found = torch.zeros_like(weights)
    found[present] = share / share.sum()
    return torch.where(total > 0, found, weights)
