"""Membership in rows and unique ids, against brute force and the twins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.ops import (
    Rows,
    contains,
    contains_reference,
    positions_among,
    unique_inverse,
    unique_inverse_reference,
)

INDPTR = torch.tensor([0, 2, 2, 5])
ITEMS = torch.tensor([1, 3, 0, 1, 2], dtype=torch.int32)


def rows_of(sets: list[set[int]]) -> Rows:
    lengths = torch.tensor([0] + [len(s) for s in sets])
    items = torch.tensor([item for s in sets for item in sorted(s)], dtype=torch.int32)
    return Rows(lengths.cumsum(0), items)


def test_contains_by_hand() -> None:
    users = torch.tensor([0, 1, 2])
    ids = torch.tensor([[1, 2, 3], [1, 2, 3], [-1, 2, 9]])
    expected = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    assert torch.equal(contains(INDPTR, ITEMS, users, ids), expected)
    assert torch.equal(contains(INDPTR, ITEMS, users, ids[:, 1]), expected[:, 1])


@settings(max_examples=50, deadline=None)
@given(
    sets=st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=5),
    queries=st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 11)), max_size=30),
)
def test_contains_agrees_with_python_sets(sets: list[set[int]], queries: list[tuple[int, int]]) -> None:
    indptr, items = rows_of(sets)
    users = torch.tensor([user % len(sets) for user, _ in queries], dtype=torch.int64)
    ids = torch.tensor([item for _, item in queries], dtype=torch.int64)
    expected = [item in sets[user] for user, item in zip(users.tolist(), ids.tolist(), strict=True)]
    assert contains(indptr, items, users, ids).tolist() == expected
    assert contains_reference(indptr, items, users, ids).tolist() == expected


def test_contains_without_queries_or_items() -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    assert contains(INDPTR, ITEMS, nobody, torch.zeros((0, 4), dtype=torch.int64)).shape == (0, 4)
    assert contains(INDPTR, ITEMS, torch.tensor([0]), torch.zeros((1, 0), dtype=torch.int64)).shape == (1, 0)
    empty = torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    for function in (contains, contains_reference):
        assert not function(*empty, torch.tensor([0, 2]), torch.tensor([[0], [1]])).any()


@pytest.mark.parametrize("user", [-1, 3])
def test_contains_names_a_user_out_of_range(user: int) -> None:
    with pytest.raises(IndexError, match=r"user indices in 0\.\.2"):
        contains(INDPTR, ITEMS, torch.tensor([user]), torch.tensor([0]))


@pytest.mark.parametrize("spread", [1, 1000])  # a table of places, and places that are searched
@pytest.mark.parametrize("chosen", [[0, 2, 4, 7], [5], [9], list(range(10)), []])
def test_positions_among(chosen: list[int], spread: int) -> None:
    sets = [{0, 2, 3}, set[int](), {7, 9}, {1}]
    rows = rows_of([{spread * item for item in row} for row in sets])
    found = positions_among(rows, torch.tensor(chosen, dtype=torch.int64) * spread)
    expected = rows_of([{chosen.index(item) for item in row if item in chosen} for row in sets])
    assert torch.equal(found.indptr, expected.indptr)
    assert torch.equal(found.items, expected.items)
    assert found.items.dtype == torch.int32


@pytest.mark.parametrize("bound", [1, 40, 3000, 10**7])  # from all ids given to far more ids than given
@pytest.mark.parametrize("shape", [(0,), (1,), (40,), (6, 7)])
def test_unique_inverse(bound: int, shape: tuple[int, ...]) -> None:
    ids = torch.randint(bound, shape, generator=torch.Generator().manual_seed(0))
    unique, inverse = unique_inverse(ids, bound)
    expected, expected_inverse = unique_inverse_reference(ids)
    assert torch.equal(unique, expected)
    assert torch.equal(inverse, expected_inverse)
    assert torch.equal(unique[inverse], ids)


def test_unique_inverse_of_all_different_ids() -> None:
    ids = torch.randperm(500)
    unique, inverse = unique_inverse(ids, 1000)
    assert torch.equal(unique, torch.arange(500))
    assert torch.equal(inverse, ids)


@pytest.mark.parametrize("bound", [5, 10**6])
def test_unique_inverse_names_an_id_out_of_range(bound: int) -> None:
    for wrong in (-1, bound):
        with pytest.raises(IndexError, match="id indices"):
            unique_inverse(torch.tensor([0, wrong, 3]), bound)
