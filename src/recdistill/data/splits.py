"""Which rows are for training, validation and test. Each function labels rows 0, 1 and 2 for these.

Random orders are hashes of (seed, user, item), not draws: they depend neither on the order of the source nor
on the other users, so a user's split stays the same when users join or leave.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recdistill.data.hashing import mix
from recdistill.data.sorting import stable_order
from recdistill.errors import DataError

SplitName = Literal["random", "leave-one-out", "temporal", "given", "file-order"]
# Those that cut each user's rows.
BY_USER: tuple[SplitName, ...] = ("random", "leave-one-out", "file-order")
TRAIN, VALID, TEST = 0, 1, 2
LABELS = {"train": TRAIN, "valid": VALID, "test": TEST}
Labels = NDArray[np.uint8]

# Ratios such as .8 + .1 fall just short of or beyond the fraction they stand for.
_ROUNDING = 1e-9


def random_keys(
    seed: int,
    user_hashes: NDArray[np.uint64],
    item_hashes: NDArray[np.uint64],
    occurrence: NDArray[np.int64] | None = None,
) -> NDArray[np.uint64]:
    """A random number for each row, fixed by the seed and what the row says.

    Args:
        seed: any integer.
        user_hashes, item_hashes: ``(n,)`` uint64 hashes of the row's ids.
        occurrence: ``(n,)`` which repeat of its pair a row is, where there are repeats.
    """
    keys = mix(user_hashes ^ mix(np.array([seed & (2**64 - 1)], dtype=np.uint64)))
    keys = mix(keys ^ item_hashes)
    return keys if occurrence is None else mix(keys ^ occurrence.astype(np.uint64))


def by_ratio(
    users: NDArray[np.int32], ratios: tuple[float, float, float], order: NDArray[np.int64]
) -> Labels:
    """Cut each user's rows by shares: of n rows the first floor(train n), at least 1, and up to
    floor((train + valid) n), the rest being test.

    Args:
        users: ``(n,)`` user of each row.
        ratios: shares of train, valid and test.
        order: ``(n,)`` rows sorted by user; within a user in the order in which they are cut.
    """
    place, count = _places(users, order)
    train_end = np.maximum(np.floor(ratios[0] * count + _ROUNDING), 1)
    valid_end = np.maximum(np.floor((ratios[0] + ratios[1]) * count + _ROUNDING), train_end)
    return _scatter((place >= train_end).astype(np.uint8) + (place >= valid_end), order)


def leave_one_out(users: NDArray[np.int32], order: NDArray[np.int64]) -> Labels:
    """The last row of each user is for test, the one before it for validation.

    A user's first row is always for training: with one row there is no test row, with two no valid row.

    Args:
        users: ``(n,)`` user of each row.
        order: ``(n,)`` rows sorted by user; within a user the held-out ones last.
    """
    place, count = _places(users, order)
    labels = np.zeros(len(users), dtype=np.uint8)
    labels[(place == count - 2) & (count >= 3)] = VALID
    labels[(place == count - 1) & (count >= 2)] = TEST
    return _scatter(labels, order)


def temporal(times: NDArray[np.float64], ratios: tuple[float, float, float]) -> Labels:
    """Cut all rows at two points in time, the same for all users; rows of one time stay together.

    Args:
        times: ``(n,)`` seconds.
        ratios: shares of train, valid and test, met as nearly as equal times allow.

    Raises:
        DataError: if so many rows share the first time that nothing is left to train on.
    """
    ends = [int(np.floor(share * len(times) + _ROUNDING)) for share in (ratios[0], ratios[0] + ratios[1])]
    ends = [min(end, len(times) - 1) for end in ends]
    valid_from, test_from = np.partition(times, ends)[ends]
    labels = (times >= valid_from).astype(np.uint8) + (times >= test_from)
    if labels.min() > TRAIN:
        share = float((times == valid_from).mean())
        raise DataError(
            f"temporal split: no row is earlier than {valid_from:g}, the time of {share:.0%} of the rows",
            "check the time column, or use --split random",
        )
    return labels


def carve_valid(
    users: NDArray[np.int32],
    labels: Labels,
    share: float,
    user_keys: NDArray[np.uint64],
    order: NDArray[np.int64],
) -> Labels:
    """Move the last train row of some users to validation.

    Args:
        users: ``(n,)`` user of each row.
        labels: ``(n,)`` labels without valid rows.
        share: the share of the users with at least two train rows.
        user_keys: ``(U,)`` random number of each user: the smallest are taken.
        order: ``(n,)`` rows sorted by user; within a user the ones to move last.
    """
    train = order[labels[order] == TRAIN]
    place, count = _places(users, train)
    last = train[(place == count - 1) & (count >= 2)]
    taken = last[np.argsort(user_keys[users[last]], kind="stable")[: round(share * len(last))]]
    carved = labels.copy()
    carved[taken] = VALID
    return carved


def random_order(users: NDArray[np.int32], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rows by user, within a user by a random number."""
    # 32 bits halve the work of the sort; the rare equal numbers of one user fall in the order of the rows.
    return stable_order(users, (keys >> np.uint64(32)).astype(np.int64))


def _places(
    users: NDArray[np.int32], order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The place of each ordered row among its user's (from 0), and how many rows its user has."""
    sorted_users = users[order]
    counts = np.bincount(sorted_users) if len(order) else np.zeros(0, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    return np.arange(len(order)) - starts[sorted_users], counts[sorted_users]


def _scatter(labels: Labels, order: NDArray[np.int64]) -> Labels:
    scattered = np.empty_like(labels)
    scattered[order] = labels
    return scattered
