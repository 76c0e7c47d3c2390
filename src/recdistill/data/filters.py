"""Which rows stay: repeats merged, and users and items with too few rows dropped until none is left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recdistill.data.sorting import stable_order


def occurrences(users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many earlier rows hold the same pair.

    Args:
        users, items: ``(n,)`` indices.

    Returns:
        ``(n,)`` int64, from 0.
    """
    if not len(users):
        return np.zeros(0, dtype=np.int64)
    order = stable_order(users, items)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0)
    at = np.arange(len(order))
    earlier = np.empty(len(order), dtype=np.int64)
    earlier[order] = at - np.maximum.accumulate(np.where(new, at, 0))
    return earlier


def core(
    users: NDArray[np.int32], items: NDArray[np.int32], min_user_rows: int, min_item_rows: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Drop users and items with too few rows, again and again until all that are left have enough.

    Args:
        users, items: ``(n,)`` indices.
        min_user_rows, min_item_rows: rows that a user and an item need; 1 keeps all.

    Returns:
        ``(n,)`` bool each: the rows that stay, and the rows that went because of their user (the others that
        went did so because of their item).
    """
    kept = np.arange(len(users))
    by_user = np.zeros(len(users), dtype=bool)
    while len(kept):
        before = len(kept)
        enough = np.bincount(users[kept])[users[kept]] >= min_user_rows
        by_user[kept[~enough]] = True
        kept = kept[enough]
        if len(kept):
            kept = kept[np.bincount(items[kept])[items[kept]] >= min_item_rows]
        if len(kept) == before:
            break
    stay = np.zeros(len(users), dtype=bool)
    stay[kept] = True
    return stay, by_user
