"""The splits: counts by hand, and what a split must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data import splits
from recdistill.data.splits import TEST, TRAIN, VALID
from recdistill.errors import DataError

RATIOS = (0.8, 0.1, 0.1)


def users_with(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_shares_of_each_user(counts: list[int]) -> None:
    users = users_with(counts)
    labels = splits.by_ratio(users, RATIOS, np.arange(len(users)))
    for user, n in enumerate(counts):
        mine = labels[users == user]
        assert mine.tolist() == sorted(mine.tolist())
        train = max(8 * n // 10, 1) if n else 0
        assert [(mine == label).sum() for label in (TRAIN, VALID, TEST)] == [
            train,
            max(9 * n // 10, train) - train,
            n - max(9 * n // 10, train),
        ]


def test_ratios_that_fall_short_in_binary_are_met() -> None:
    assert math.floor(0.29 * 100) == 28  # what binary fractions make of it
    labels = splits.by_ratio(users_with([100]), (0.29, 0.01, 0.7), np.arange(100))
    assert np.bincount(labels).tolist() == [29, 1, 70]


def test_order_says_which_rows() -> None:
    users = users_with([5, 2])
    labels = splits.by_ratio(users, RATIOS, np.array([4, 3, 2, 1, 0, 6, 5]))
    assert labels.tolist() == [TEST, 0, 0, 0, 0, TEST, 0]


def test_leave_one_out_keeps_a_row_for_training() -> None:
    users = users_with([4, 3, 2, 1])
    labels = splits.leave_one_out(users, np.arange(len(users)))
    assert labels.tolist() == [0, 0, VALID, TEST, 0, VALID, TEST, 0, TEST, 0]


def test_temporal_keeps_equal_times_together() -> None:
    times = np.array([5, 1, 2, 3, 4, 6, 7, 8, 9, 10], dtype=np.float64)
    assert splits.temporal(times, RATIOS).tolist() == [0, 0, 0, 0, 0, 0, 0, 0, VALID, TEST]
    tied = np.array([1, 1, 1, 2, 2, 2, 2, 2, 2, 2], dtype=np.float64)
    assert splits.temporal(tied, RATIOS).tolist() == [0, 0, 0] + [TEST] * 7
    assert splits.temporal(times, (0.5, 0.0, 0.5)).tolist().count(VALID) == 0
    with pytest.raises(DataError, match="100% of the rows"):
        splits.temporal(np.ones(10), RATIOS)


def test_temporal_trains_on_nothing_later_than_any_test_row() -> None:
    times = np.random.default_rng(0).integers(0, 50, 1000).astype(np.float64)
    labels = splits.temporal(times, RATIOS)
    assert times[labels == TRAIN].max() < times[labels == VALID].min()
    assert times[labels == VALID].max() < times[labels == TEST].min()


def test_random_keys_depend_on_seed_user_item_and_repeat() -> None:
    ids = np.array([1, 2], dtype=np.uint64)
    key = splits.random_keys(0, ids, ids[::-1].copy())
    assert key[0] != key[1]
    assert (splits.random_keys(1, ids, ids) != splits.random_keys(0, ids, ids)).all()
    repeated = splits.random_keys(0, ids[[0, 0]], ids[[1, 1]], np.array([0, 1]))
    assert repeated[0] != repeated[1]
    assert [f"{value:016x}" for value in key] == ["5def8c1f8a9e3322", "51bf25161a05fb1b"]


def test_random_order_is_uniform() -> None:
    users = np.repeat(np.arange(4000, dtype=np.int32), 5)
    items = np.tile(np.arange(5, dtype=np.uint64), 4000)
    keys = splits.random_keys(0, users.astype(np.uint64), items)
    labels = splits.by_ratio(users, RATIOS, splits.random_order(users, keys))
    tested = np.bincount(items[labels == TEST].astype(np.int64), minlength=5)
    assert tested.sum() == 4000
    assert (np.abs(tested - 800) < 4 * np.sqrt(4000 * 0.2 * 0.8)).all()


def test_carve_valid_takes_last_rows_of_a_share_of_users() -> None:
    users = users_with([3] * 100 + [1] * 10)
    labels = np.zeros(len(users), dtype=np.uint8)
    labels[users >= 90] = TEST
    keys = splits.mix(np.arange(110, dtype=np.uint64))
    carved = splits.carve_valid(users, labels, 0.1, keys, np.arange(len(users)))
    moved = np.flatnonzero(carved == VALID)
    assert len(moved) == 9
    assert (moved % 3 == 2).all()
    assert (carved[users >= 90] == TEST).all()
    assert (labels == VALID).sum() == 0
    chosen = np.sort(keys[:90])[:9]
    assert set(users[moved]) == set(np.flatnonzero(np.isin(keys, chosen)))
