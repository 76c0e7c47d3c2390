"""What ranked lists have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def common_items(ids: Tensor, reference: Tensor, ks: Sequence[int], num_items: int) -> Tensor:
    """Count for each row the items that are in the first k of both lists.

    Args:
        ids: (n, k) int64 in [-1, num_items), best first, -1 for padding; no item twice in a row.
        reference: (n, depth) integers, the same.
        ks: cut-offs, each at least 1; a list that is shorter than one counts whole.
        num_items: size of the catalogue.

    Returns:
        (n, len(ks)) int64.

    Raises:
        IndexError: an id out of range.
    """
    if not ids.is_cpu:
        return common_items_reference(ids, reference, ks, num_items)
    from recdistill.ops.kernels import lists as kernels
    from recdistill.ops.kernels import use_torch_threads

    for name, lists in (("ids", ids), ("reference", reference)):
        if lists.numel() and (int(lists.min()) < -1 or int(lists.max()) >= num_items):
            found = f"{int(lists.min())}..{int(lists.max())}"
            raise IndexError(f"expected {name} in -1..{num_items - 1}, found {found}")
    counts = torch.zeros(len(ids), len(ks), dtype=torch.int64)
    if len(ids):
        kernels.common(
            ids.long().contiguous().numpy(),
            reference.int().contiguous().numpy(),
            torch.tensor(list(ks), dtype=torch.int64).numpy(),
            num_items,
            use_torch_threads(),
            counts.numpy(),
        )
    return counts


def common_items_reference(ids: Tensor, reference: Tensor, ks: Sequence[int], num_items: int) -> Tensor:
    """Plain-torch twin of :func:`common_items`."""
    del num_items
    depth = reference.shape[1]
    if depth == 0:
        return torch.zeros(len(ids), len(ks), dtype=torch.int64, device=ids.device)
    ordered, column = reference.long().sort(dim=1)  # column: where each item stands in the reference's list
    at = torch.searchsorted(ordered, ids.contiguous()).clamp_(max=depth - 1)
    same = (ordered.gather(1, at) == ids) & (ids >= 0)
    place = column.gather(1, at).masked_fill_(~same, torch.iinfo(torch.int64).max)
    later = torch.maximum(place, torch.arange(ids.shape[1], device=ids.device))
    return torch.stack([(later < k).sum(1) for k in ks], dim=1)


def listed(ids: Tensor, lists: Tensor) -> Tensor:
    """Say for each id whether it is in its row's list.

    Args:
        ids: (n, m) integers; -1 (padding) is in no list.
        lists: (n, depth) integers in any order, -1 for padding.

    Returns:
        (n, m) bool.
    """
    if lists.shape[1] == 0:
        return torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    ordered = lists.sort(dim=1).values
    at = torch.searchsorted(ordered, ids.to(ordered.dtype).contiguous()).clamp_(max=lists.shape[1] - 1)
    return (ordered.gather(1, at) == ids) & (ids >= 0)


def places(ids: Tensor, lists: Tensor) -> Tensor:
    """Say for each id where it stands in its row's list.

    Args:
        ids: (n, m) integers of at least -1; -1 (padding) is in no list.
        lists: (n, depth) integers of at least -1, -1 for padding; no id twice in a row.

    Returns:
        (n, m) int32: the column, or -1 for an id that is not in the list.
    """
    if not ids.is_cpu or ids.numel() == 0 or lists.numel() == 0:
        return places_reference(ids, lists)
    from recdistill.ops.kernels import lists as kernels
    from recdistill.ops.kernels import use_torch_threads

    if min(int(ids.min()), int(lists.min())) < -1:
        raise IndexError(f"expected ids of at least -1, found {min(int(ids.min()), int(lists.min()))}")
    found = torch.empty(ids.shape, dtype=torch.int32)
    kernels.places(
        ids.int().contiguous().numpy(),
        lists.int().contiguous().numpy(),
        1 + max(int(ids.max()), int(lists.max()), 0),
        use_torch_threads(ids.numel() + lists.numel()),
        found.numpy(),
    )
    return found


def places_reference(ids: Tensor, lists: Tensor) -> Tensor:
    """Plain-torch twin of :func:`places`."""
    if lists.shape[1] == 0:
        return torch.full(ids.shape, -1, dtype=torch.int32, device=ids.device)
    ordered, column = lists.sort(dim=1)
    own = ids.to(ordered.dtype).contiguous()
    at = torch.searchsorted(ordered, own).clamp_(max=lists.shape[1] - 1)
    missing = (ordered.gather(1, at) != own) | (own < 0)
    return column.gather(1, at).masked_fill_(missing, -1).int()
