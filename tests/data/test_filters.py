"""Repeats and cores, against loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.filters import core, occurrences

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p[0] for p in pairs], dtype=np.int32), np.array([p[1] for p in pairs], dtype=np.int32)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_occurrences(pairs: list[tuple[int, int]]) -> None:
    seen: Counter[tuple[int, int]] = Counter()
    expected: list[int] = []
    for pair in pairs:
        expected.append(seen[pair])
        seen[pair] += 1
    assert occurrences(*arrays(pairs)).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
def test_core_is_the_largest_with_enough_rows(
    pairs: list[tuple[int, int]], least_user: int, least_item: int
) -> None:
    left = list(range(len(pairs)))
    while True:
        users = Counter(pairs[row][0] for row in left)
        items = Counter(pairs[row][1] for row in left)
        kept = [
            row for row in left if users[pairs[row][0]] >= least_user and items[pairs[row][1]] >= least_item
        ]
        if kept == left:
            break
        left = kept
    stay, by_user = core(*arrays(pairs), least_user, least_item)
    assert np.flatnonzero(stay).tolist() == left
    assert not (stay & by_user).any()


def test_core_says_what_dropped_each_row() -> None:
    # User 1 has one row; without it item 1 has one; without that user 2 has one.
    users, items = arrays([(0, 0), (0, 2), (2, 0), (2, 1), (1, 1), (3, 0), (3, 2)])
    stay, by_user = core(users, items, 2, 2)
    assert stay.tolist() == [True, True, False, False, False, True, True]
    assert by_user.tolist() == [False, False, True, False, True, False, False]
