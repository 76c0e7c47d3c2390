"""Items that two lists share, against Python's sets and the twin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.ops.lists import common_items, common_items_reference, listed, places, places_reference

BOTH = pytest.mark.parametrize("function", [common_items, common_items_reference])
Common = Callable[..., Tensor]


def padded(lists: list[list[int]], width: int) -> Tensor:
    rows = [row + [-1] * (width - len(row)) for row in lists]
    return torch.tensor(rows, dtype=torch.int64).view(len(lists), width)


@BOTH
def test_by_hand(function: Common) -> None:
    ids = torch.tensor([[2, 4, 1, 8], [3, 5, 7, -1], [1, 2, 3, 4]])
    reference = torch.tensor([[4, 2, 9, 1], [7, 3, -1, -1], [-1, -1, -1, -1]], dtype=torch.int32)
    assert function(ids, reference, (1, 2, 4), 10).tolist() == [[0, 2, 3], [0, 1, 2], [0, 0, 0]]


@BOTH
@settings(max_examples=60, deadline=None)
@given(
    lists=st.lists(
        st.tuples(st.lists(st.integers(0, 8), unique=True), st.lists(st.integers(0, 8), unique=True)),
        max_size=6,
    ),
    threads=st.sampled_from([1, 2]),
)
def test_agrees_with_sets(function: Common, lists: list[tuple[list[int], list[int]]], threads: int) -> None:
    ids, reference = padded([a for a, _ in lists], 9), padded([b for _, b in lists], 9)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = function(ids, reference, (1, 3, 20), 9)
    finally:
        torch.set_num_threads(before)
    assert found.tolist() == [[len(set(a[:k]) & set(b[:k])) for k in (1, 3, 20)] for a, b in lists]


@BOTH
def test_lists_of_different_depths_and_none(function: Common) -> None:
    assert function(torch.tensor([[0, 1, 2]]), torch.tensor([[2]]), (3,), 3).tolist() == [[1]]
    nobody = torch.empty(0, 3, dtype=torch.int64)
    assert function(nobody, nobody, (1, 2), 3).shape == (0, 2)
    assert function(torch.tensor([[0]]), torch.empty(1, 0, dtype=torch.int64), (1,), 3).tolist() == [[0]]


def test_ids_out_of_range() -> None:
    with pytest.raises(IndexError, match=r"ids in -1\.\.2, found 0\.\.3"):
        common_items(torch.tensor([[0, 3]]), torch.tensor([[0, 1]]), (1,), 3)
    with pytest.raises(IndexError, match=r"reference in -1\.\.2"):
        common_items(torch.tensor([[0, 1]]), torch.tensor([[-2, 1]]), (1,), 3)


def test_listed() -> None:
    ids = torch.tensor([[2, 4, -1], [3, 3, 0], [1, -1, 0]], dtype=torch.int32)
    lists = torch.tensor([[4, 9, -1, 0], [7, 3, 3, 1], [-1, -1, -1, -1]])
    assert listed(ids, lists).tolist() == [[False, True, False], [True, True, False], [False] * 3]
    assert not listed(ids, lists[:, :0]).any()


@pytest.mark.parametrize("function", [places, places_reference])
def test_places(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    lists = torch.tensor([[4, 0, 2, -1], [-1, -1, -1, -1], [1, 2, 3, 4]], dtype=torch.int32)
    ids = torch.tensor([[2, 3, -1], [0, 4, -1], [4, 9, 1]])
    assert function(ids, lists).tolist() == [[2, -1, -1], [-1, -1, -1], [3, -1, 0]]
    assert function(ids, lists[:, :0]).tolist() == [[-1] * 3] * 3
    assert function(ids[:, :0], lists).shape == (3, 0)
    assert function(ids[:0], lists[:0]).shape == (0, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_places_agree_with_the_twin(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lists = torch.rand(400, 300, generator=generator).argsort(dim=1)[:, :90].int()
    ids = torch.randint(-1, 300, (400, 300), generator=generator)
    torch.set_num_threads(threads)
    assert torch.equal(places(ids, lists), places_reference(ids, lists))
    with pytest.raises(IndexError, match="found -2"):
        places(ids - 1, lists)
