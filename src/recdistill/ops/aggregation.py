"""Ranked lists from several lists of a row: equal ids summed, best sums first."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_lists(
    ids: Tensor,
    values: Tensor,
    num_ids: int,
    depth: int,
    *,
    scale: Tensor | None = None,
    exponents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum the values of equal ids in each row, and list the ids by their sums; equal sums by the smaller id.

    With ``exponents``, the sum S of id i is multiplied by ``min(S / P, 1) ** exponents[i]``, where P is the
    largest of ``value * scale`` among its entries.

    Args:
        ids: (n, m) int32 in [-1, num_ids), -1 for padding.
        values: (n, m) or (1, m) float32, at least 0.
        num_ids: how many ids there are.
        depth: columns of the result.
        scale: (m,) float32, by default 1.
        exponents: (num_ids,) float32, at least 0; default: none.

    Returns:
        ids (n, depth) int32, padded with -1, and their sums (n, depth) float32, padded with -inf.

    Raises:
        IndexError: an id out of range.
    """
    if not ids.is_cpu:
        return sum_lists_reference(ids, values, num_ids, depth, scale=scale, exponents=exponents)
    from recdistill.ops.kernels import aggregation as kernels
    from recdistill.ops.kernels import use_torch_threads

    if ids.numel() and (int(ids.min()) < -1 or int(ids.max()) >= num_ids):
        raise IndexError(f"expected ids in -1..{num_ids - 1}, found {int(ids.min())}..{int(ids.max())}")
    best = torch.full((len(ids), depth), -1, dtype=torch.int32)
    scores = torch.full((len(ids), depth), -torch.inf)
    if len(ids):
        kernels.aggregate(
            ids.int().contiguous().numpy(),
            values.float().contiguous().numpy(),
            (torch.ones(ids.shape[1]) if scale is None else scale.float()).contiguous().numpy(),
            (torch.empty(0) if exponents is None else exponents.float()).contiguous().numpy(),
            num_ids,
            use_torch_threads(ids.numel()),
            best.numpy(),
            scores.numpy(),
        )
    return best, scores


def sum_lists_reference(
    ids: Tensor,
    values: Tensor,
    num_ids: int,
    depth: int,
    *,
    scale: Tensor | None = None,
    exponents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Plain-torch twin of :func:`sum_lists`: ids sorted within the row, sums over runs of equal ids."""
    n, m = ids.shape
    if m == 0:
        return ids.new_full((n, depth), -1, dtype=torch.int32), values.new_full((n, depth), -torch.inf)
    last = torch.where(ids < 0, num_ids, ids.long())
    ordered, place = last.sort(dim=1, stable=True)
    value = values.expand(n, m).gather(1, place).double()
    new = torch.ones_like(ordered)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = new.cumsum(1) - 1  # (n, m), which run an entry belongs to
    sums = torch.zeros(n, m, dtype=torch.float64, device=ids.device).scatter_add_(1, run, value)
    item = torch.full_like(ordered, num_ids).scatter_(1, run, ordered)
    if exponents is not None:
        scaled = value if scale is None else value * scale.expand(n, m).gather(1, place)
        peaks = torch.zeros_like(sums).scatter_reduce_(1, run, scaled, "amax")
        share = torch.where(peaks > 0, sums / peaks, 1).clamp(max=1)
        sums = sums * share ** exponents.double()[item.clamp(max=num_ids - 1)]
    total = torch.where(item == num_ids, -torch.inf, sums).float()
    order = total.sort(dim=1, descending=True, stable=True).indices[:, :depth]  # runs ascend by id
    scores = total.gather(1, order)
    best = torch.where(scores == -torch.inf, -1, item.gather(1, order)).int()
    pad = (0, depth - order.shape[1])
    return (
        torch.nn.functional.pad(best, pad, value=-1),
        torch.nn.functional.pad(scores, pad, value=-torch.inf),
    )
