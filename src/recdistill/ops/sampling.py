"""Draws of unobserved items, of ranking positions and of weighted entries."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from recdistill.ops.rows import check_range, lower_bound, owners_of

_HEAD = 6.0
"""The kernel draws the clocks of k + 6 * temperature positions at once; a later one enters in 1 row of 70."""


def draw_unobserved(
    indptr: Tensor,
    items: Tensor,
    num_items: int,
    users: Tensor,
    n: int,
    generator: torch.Generator,
    replace: bool = True,
) -> Tensor:
    """Draw items uniformly from those that are not in each user's row.

    Args:
        indptr: (U + 1,) int64.
        items: (nnz,) int32, ascending and unique inside each row.
        num_items: size of the catalogue.
        users: (b,) int64 in [0, U), repeats allowed.
        n: draws a user, >= 0.
        generator: where the random numbers come from; on the device of ``indptr``.
        replace: whether an item may be drawn twice for the same entry of ``users``.

    Returns:
        (b, n) int64; -1 where a user has no unobserved item (``replace``), or fewer than n of them (the
        entries after the last one). In any order; the first of a row's draws are as good as the last.

    Raises:
        ValueError: a negative n.
        IndexError: a user out of range.
    """
    if n < 0:
        raise ValueError(f"n must be 0 or more, got {n}")
    check_range("user", users, len(indptr) - 1)
    if not indptr.is_cpu:
        return draw_unobserved_reference(indptr, items, num_items, users, n, generator, replace)
    from recdistill.ops.kernels import sampling as kernels
    from recdistill.ops.kernels import use_torch_threads

    numbers = _raw_numbers(len(users), n, generator, indptr.device)
    rows = indptr.long().contiguous().numpy(), items.int().contiguous().numpy(), num_items
    owners = users.long().contiguous().numpy()
    use_torch_threads(8 * numbers.numel())  # steps of a binary search
    if replace:
        kernels.draw_with_replacement(*rows, owners, numbers.numpy())
    else:
        capacity = 1 << (2 * max(1, min(n, num_items)) - 1).bit_length()
        kernels.draw_without_replacement(*rows, owners, numbers.numpy(), capacity)
    return numbers


def draw_unobserved_reference(
    indptr: Tensor,
    items: Tensor,
    num_items: int,
    users: Tensor,
    n: int,
    generator: torch.Generator,
    replace: bool = True,
) -> Tensor:
    """Plain-torch twin of :func:`draw_unobserved`; the same generator state gives the same draws."""
    raw = _raw_numbers(len(users), n, generator, indptr.device)
    count = num_items - (indptr[users + 1] - indptr[users]).unsqueeze(1)  # (b, 1) unobserved items
    ranks = raw % count.clamp(min=1) if replace else _shuffled_ranks(raw, count)
    missing = count <= (0 if replace else torch.arange(n, device=raw.device))
    return _rank_to_item(indptr, items, users, ranks).masked_fill(missing, -1)


def _raw_numbers(rows: int, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(rows, n) int64 uniform in [0, 2^63): the remainder by a count is uniform but for 1e-12."""
    raw = torch.empty((rows, n), dtype=torch.int64, device=device)
    return raw.random_(generator=generator)


def _shuffled_ranks(raw: Tensor, count: Tensor) -> Tensor:
    """The first n entries of a random permutation of 0..count-1 in each row, by Fisher-Yates swaps."""
    n = raw.shape[1]
    targets = torch.full_like(raw, -1)
    values = torch.zeros_like(raw)
    ranks = torch.zeros_like(raw)

    def current(position: Tensor, step: int) -> Tensor:
        """What lies at ``position`` (b,) after the swaps so far: what was last written there, else itself."""
        order = torch.arange(1, step + 1, device=raw.device)
        last = ((targets[:, :step] == position.unsqueeze(1)) * order).amax(dim=1)
        written = values.gather(1, (last - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        return torch.where(last > 0, written, position)

    for step in range(n):
        own = torch.full_like(raw[:, 0], step)
        chosen = step + raw[:, step] % (count[:, 0] - step).clamp(min=1)
        ranks[:, step] = current(chosen, step) if step else chosen
        values[:, step] = current(own, step) if step else own
        targets[:, step] = chosen
    return ranks


def _rank_to_item(indptr: Tensor, items: Tensor, users: Tensor, ranks: Tensor) -> Tensor:
    """The ``rank``-th item (from 0) that is not in the user's row.

    It is rank + #{x in row: x - (its 0-based position in the row) <= rank}, and x - position never falls
    along a row, so the count is a binary search.
    """
    if items.numel() == 0:
        return ranks
    owner = owners_of(indptr.diff())
    shifted = items - (torch.arange(items.numel(), device=items.device) - indptr[owner])
    rows = users.unsqueeze(1).expand_as(ranks)
    return ranks + lower_bound(indptr, shifted, rows, ranks + 1)


def sample_positions(lengths: Tensor, k: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw k positions of each list without replacement, position p (from 0) with weight e^(-p/temperature).

    Exact for any list: each position has a clock of mean e^(p/temperature), and the k that strike first are
    taken (the same law as the k largest Gumbel keys). Only the clocks at the head of the list are drawn; of
    the others together, the first strike has a law of its own, and where it comes too late for the k, which
    is nearly always, no more is needed. Else its position is drawn, and the others start at that time, since
    clocks have no memory.

    Args:
        lengths: (b,) int64, length of each list.
        k: positions a list, >= 0.
        temperature: in positions, > 0; the paper of RRD has 10.
        generator: where the random numbers come from; on the device of ``lengths``.

    Returns:
        (b, k) int64, ascending; lists of at most k entries give all their positions, then pads -1.

    Raises:
        ValueError: a temperature that is not above 0, or a negative k.
    """
    _check_positions(k, temperature)
    if not lengths.is_cpu:
        return sample_positions_reference(lengths, k, temperature, generator)
    from recdistill.ops.kernels import sampling as kernels
    from recdistill.ops.kernels import use_torch_threads

    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    longest = int(lengths.max()) if lengths.numel() else 0
    head = int(min(longest, k + math.ceil(min(_HEAD * temperature, longest))))
    with np.errstate(over="ignore"):  # inf is a clock that never strikes
        slowness = np.exp((np.arange(longest + 1) - k) / temperature)
    chosen = torch.empty((len(lengths), k), dtype=torch.int64)
    if k == 0:
        return chosen
    use_torch_threads(8 * len(lengths) * head)  # a logarithm and the steps of the selection
    kernels.positions(
        lengths.long().contiguous().numpy(), temperature, slowness, head, np.uint64(seed), chosen.numpy()
    )
    return chosen


def sample_positions_reference(
    lengths: Tensor, k: int, temperature: float, generator: torch.Generator
) -> Tensor:
    """Plain-torch twin of :func:`sample_positions`: Gumbel keys for every position, the k largest kept."""
    _check_positions(k, temperature)
    longest = int(lengths.max()) if lengths.numel() else 0
    width = max(longest, k)
    positions = torch.arange(width, device=lengths.device)
    uniform = torch.rand(
        (len(lengths), width), dtype=torch.float64, generator=generator, device=lengths.device
    )
    keys = -positions / temperature - torch.log(-torch.log1p(-uniform))
    keys = keys.masked_fill(positions >= lengths.unsqueeze(1), -torch.inf)
    best = keys.topk(k, dim=1)
    chosen = best.indices.masked_fill(best.values == -torch.inf, width)
    chosen = chosen.sort(dim=1).values
    return chosen.masked_fill(chosen == width, -1)


def _check_positions(k: int, temperature: float) -> None:
    _check_count(k)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")


def _check_count(k: int) -> None:
    if k < 0:
        raise ValueError(f"k must be 0 or more, got {k}")


def sample_weighted(
    weights: Tensor, k: int, generator: torch.Generator, rows: Tensor | None = None, sign: int = 1
) -> Tensor:
    """Draw k entries of each row without replacement, with chances proportional to their weights.

    One after the other: an entry is picked uniformly among those with a weight above 0, and kept with the chance
    weight / largest weight unless it was kept before. Where that takes long (few heavy entries, or nearly all
    are wanted) the rest are those whose exponential clocks, of rates equal to the weights, strike first, which is
    the same law. An entry whose weight is not above 0 is never drawn.

    Args:
        weights: (n, m) float, finite; computed with in float32.
        k: entries a row, >= 0.
        generator: where the random numbers come from; on the CPU.
        rows: (b,) int64 in [0, n), the rows to draw from, repeats allowed; all by default.
        sign: 1, or -1 to draw by the negatives of the weights.

    Returns:
        (b, k) int64 columns, ascending; rows with at most k weights above 0 give all of them, then pads -1.

    Raises:
        ValueError: a negative k.
        IndexError: a row out of range.
    """
    _check_count(k)
    if not weights.is_cpu:
        return sample_weighted_reference(weights, k, generator, rows, sign)
    if rows is None:
        rows = torch.arange(len(weights))
    check_range("row", rows, len(weights))
    from recdistill.ops.kernels import sampling as kernels
    from recdistill.ops.kernels import use_torch_threads

    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    chosen = torch.empty((len(rows), k), dtype=torch.int64)
    if k == 0:
        return chosen
    use_torch_threads(4 * len(rows) * weights.shape[1])  # the scans, and a few steps for each draw
    kernels.weighted(
        weights.detach().float().contiguous().numpy(),
        rows.long().contiguous().numpy(),
        np.float32(sign),
        np.uint64(seed),
        chosen.numpy(),
    )
    return chosen


def sample_weighted_reference(
    weights: Tensor, k: int, generator: torch.Generator, rows: Tensor | None = None, sign: int = 1
) -> Tensor:
    """Plain-torch twin of :func:`sample_weighted`: the same law, other draws."""
    _check_count(k)
    chosen = sign * (weights if rows is None else weights[rows]).detach().double()
    count, width = chosen.shape
    uniform = torch.rand((count, max(width, k)), dtype=torch.float64, generator=generator).to(weights.device)
    rates = torch.nn.functional.pad(chosen, (0, max(k - width, 0)))
    keys = torch.where(rates > 0, rates.log() - torch.log(-torch.log1p(-uniform)), -torch.inf)
    best = keys.topk(k, dim=1)
    columns = best.indices.masked_fill(best.values == -torch.inf, keys.shape[1]).sort(dim=1).values
    return columns.masked_fill(columns == keys.shape[1], -1)
