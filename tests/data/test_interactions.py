"""Interactions: order, pairs, membership, rows, union."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.interactions import Interactions
from recdistill.errors import DataError

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=25)


def of(pairs: list[tuple[int, int]], **columns: Any) -> Interactions:
    return Interactions.from_events([p[0] for p in pairs], [p[1] for p in pairs], 5, 7, **columns)


def events_of(interactions: Interactions) -> list[tuple[int, int]]:
    return list(zip(interactions.event_users.tolist(), interactions.event_items.tolist(), strict=True))


def pairs_of(interactions: Interactions) -> list[tuple[int, int]]:
    return list(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_pairs_are_distinct_and_sorted_and_events_keep_repeats(pairs: list[tuple[int, int]]) -> None:
    interactions = of(pairs)
    assert pairs_of(interactions) == sorted(set(pairs))
    assert events_of(interactions) == sorted(pairs)
    assert interactions.num_pairs == len(set(pairs))
    assert interactions.has_repeats == (len(pairs) > len(set(pairs)))
    assert interactions.user_counts.tolist() == [len({i for u, i in pairs if u == user}) for user in range(5)]
    assert interactions.item_counts.tolist() == [len({u for u, i in pairs if i == item}) for item in range(7)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(-3, 3)), max_size=25))
def test_events_follow_time_and_position_wins(rows: list[tuple[int, int, int]]) -> None:
    pairs = [(user, item) for user, item, _ in rows]
    keys = [key for _, _, key in rows]
    expected = [(user, item) for user, item, _ in sorted(rows, key=lambda row: (row[0], row[2]))]
    assert events_of(of(pairs, times=[float(key) for key in keys])) == expected
    backwards = [float(-key) for key in keys]
    by_position = of(pairs, times=backwards, positions=keys)
    assert events_of(by_position) == expected
    assert by_position.event_times is not None
    assert by_position.event_times.tolist() == [
        float(-key) for _, _, key in sorted(rows, key=lambda row: (row[0], row[2]))
    ]


def test_storage_is_shared_without_order_and_repeats() -> None:
    plain = of([(1, 2), (0, 3)])
    assert plain.event_items is plain.items
    assert plain.event_indptr is plain.indptr
    assert not plain.has_order
    assert of([(1, 2), (1, 2)]).num_events == 2
    assert of([(1, 2)], positions=[0]).has_order


def test_types() -> None:
    interactions = of([(1, 2), (0, 3)], times=[1, 2])
    assert (
        interactions.items.dtype == interactions.event_items.dtype == interactions.users.dtype == torch.int32
    )
    assert interactions.indptr.dtype == interactions.event_indptr.dtype == torch.int64
    assert interactions.user_counts.dtype == interactions.item_counts.dtype == torch.int64
    assert interactions.event_times is not None
    assert interactions.event_times.dtype == torch.float64


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_contains(pairs: list[tuple[int, int]]) -> None:
    interactions = of(pairs)
    users = torch.arange(5)
    items = torch.arange(-1, 7).expand(5, 8)
    expected = [[(user, item) in pairs for item in range(-1, 7)] for user in range(5)]
    assert interactions.contains(users, items).tolist() == expected
    assert interactions.contains(users, items[:, 3]).tolist() == [row[3] for row in expected]


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.lists(st.integers(0, 4), max_size=6))
def test_rows(pairs: list[tuple[int, int]], users: list[int]) -> None:
    rows = of(pairs).rows(torch.tensor(users, dtype=torch.int64))
    found = [rows.items[rows.indptr[at] : rows.indptr[at + 1]].tolist() for at in range(len(users))]
    assert found == [sorted({i for u, i in pairs if u == user}) for user in users]
    events = of(pairs).event_rows(torch.tensor(users, dtype=torch.int64))
    found = [events.items[events.indptr[at] : events.indptr[at + 1]].tolist() for at in range(len(users))]
    assert found == [sorted(i for u, i in pairs if u == user) for user in users]


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_transpose(pairs: list[tuple[int, int]]) -> None:
    turned = of(pairs).transpose()
    assert (turned.num_users, turned.num_items) == (7, 5)
    assert pairs_of(turned) == sorted({(item, user) for user, item in pairs})
    assert pairs_of(turned.transpose()) == sorted(set(pairs))


@settings(max_examples=60, deadline=None)
@given(PAIRS, PAIRS, PAIRS)
def test_union_has_all_pairs_and_events(
    first: list[tuple[int, int]], second: list[tuple[int, int]], third: list[tuple[int, int]]
) -> None:
    joined = of(first).union(of(second), of(third))
    assert pairs_of(joined) == sorted({*first, *second, *third})
    assert events_of(joined) == sorted([*first, *second, *third])


def test_union_orders_by_time_where_all_have_times() -> None:
    first = of([(0, 1), (0, 2)], times=[1, 4])
    second = of([(0, 3)], times=[2])
    nothing = of([])
    assert first.union(second, nothing).event_items.tolist() == [1, 3, 2]
    assert not first.union(of([(0, 3)])).has_order
    placed = of([(0, 1), (0, 2)], positions=[1, 4]).union(of([(0, 3)], positions=[2]))
    assert placed.event_items.tolist() == [1, 3, 2]


def test_union_needs_one_vocabulary() -> None:
    with pytest.raises(DataError, match="5 users x 7 items with 5 x 8"):
        of([]).union(Interactions.from_events([], [], 5, 8))


def test_sample_unobserved_leaves_out_what_users_have() -> None:
    interactions = of([(0, item) for item in range(6)] + [(1, 3)] + [(2, item) for item in range(7)])
    generator = torch.Generator().manual_seed(0)
    drawn = interactions.sample_unobserved(torch.tensor([0, 1, 2]), 50, generator)
    assert (drawn[0] == 6).all()
    assert set(drawn[1].tolist()) == {0, 1, 2, 4, 5, 6}
    assert (drawn[2] == -1).all()
    once = interactions.sample_unobserved(torch.tensor([1, 0]), 7, generator, replace=False)
    assert sorted(once[0].tolist()) == [-1, 0, 1, 2, 4, 5, 6]
    assert once[1].tolist() == [6, -1, -1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"users": [0, 5], "items": [0, 0]}, r"user indices must lie in \[0, 5\), found 0 to 5"),
        ({"users": [0, 1], "items": [0, -1]}, r"item indices must lie in \[0, 7\), found -1 to 0"),
        ({"users": [0, 1], "items": [0]}, "expected 2 items"),
        ({"users": [0, 1], "items": [0, 1], "times": [1.0]}, "expected 2 times"),
        ({"users": [0, 1], "items": [0, 1], "positions": [1]}, "expected 2 positions"),
        ({"users": [0, 1], "items": [0, 1], "times": [1.0, float("nan")]}, "1 that are not"),
        ({"users": [0.5, 1.0], "items": [0, 1]}, "integers, found float64"),
    ],
)
def test_bad_events(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Interactions.from_events(num_users=5, num_items=7, **columns)


def test_given_arrays_are_not_kept() -> None:
    users, items, times = np.array([0, 1]), np.array([3, 4], dtype=np.int32), np.array([1.0, 2.0])
    interactions = Interactions.from_events(users, items, 5, 7, times=times)
    items[:] = 0
    times[:] = 9
    assert interactions.items.tolist() == [3, 4]
    assert interactions.event_items.tolist() == [3, 4]
    assert interactions.event_times is not None
    assert interactions.event_times.tolist() == [1.0, 2.0]


def test_empty() -> None:
    nothing = Interactions.from_events([], [], 0, 0)
    assert nothing.num_pairs == nothing.num_events == 0
    assert nothing.transpose().indptr.tolist() == [0]
    assert of([]).rows(torch.tensor([3, 3])).indptr.tolist() == [0, 0, 0]


def test_rankings_leave_out_what_is_not_taken_again() -> None:
    once, again = of([(0, 1), (0, 2), (3, 1)]), of([(0, 1), (0, 1), (3, 1)])
    assert once.unlisted is once
    assert again.unlisted.num_pairs == 0
    assert (again.unlisted.num_users, again.unlisted.num_items) == (5, 7)
    assert not again.unlisted.contains(torch.tensor([0, 3]), torch.tensor([1, 1])).any()
    assert again.unlisted.rows(torch.arange(5)).indptr.tolist() == [0] * 6
