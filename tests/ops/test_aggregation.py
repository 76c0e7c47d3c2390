"""Sums over lists, against Python's dictionaries and the twin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.ops.aggregation import sum_lists, sum_lists_reference

BOTH = pytest.mark.parametrize("function", [sum_lists, sum_lists_reference])
Sum = Callable[..., tuple[Tensor, Tensor]]


@BOTH
def test_by_hand(function: Sum) -> None:
    ids = torch.tensor([[1, 2, 3, 3, 1, -1], [0, -1, -1, 4, 5, 6]], dtype=torch.int32)
    values = torch.tensor([[3.0, 2.0, 1.0, 3.0, 2.0, 9.0]])
    best, scores = function(ids, values, 7, 4)
    assert best.tolist() == [[1, 3, 2, -1], [6, 0, 4, 5]]
    assert scores.tolist() == [[5.0, 4.0, 2.0, -torch.inf], [9.0, 3.0, 3.0, 2.0]]
    assert best.dtype == torch.int32
    assert function(ids, values, 7, 2)[0].tolist() == [[1, 3], [6, 0]]


@BOTH
def test_a_row_of_values_each(function: Sum) -> None:
    ids = torch.tensor([[0, 1], [0, 1]], dtype=torch.int32)
    assert function(ids, torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 2, 1)[0].tolist() == [[1], [0]]


@BOTH
def test_sums_are_discounted_by_their_share_of_the_largest(function: Sum) -> None:
    ids = torch.tensor([[0, 1, 0, 2]], dtype=torch.int32)
    values, scale = torch.tensor([[0.5, 1.0, 0.5, 1.0]]), torch.full((4,), 2.0)
    # id 0: sum 1, largest .5 * 2 = 1, share 1; ids 1 and 2: sum 1, largest 2, share .5
    best, scores = function(ids, values, 3, 3, scale=scale, exponents=torch.tensor([2.0, 2.0, 0.0]))
    assert best.tolist() == [[0, 2, 1]]
    assert scores.tolist() == [[1.0, 1.0, 0.25]]


@BOTH
@settings(max_examples=40, deadline=None)
@given(
    lists=st.lists(
        st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 3)), min_size=5, max_size=5), max_size=5
    ),
    threads=st.sampled_from([1, 2]),
)
def test_agrees_with_dictionaries(function: Sum, lists: list[list[tuple[int, int]]], threads: int) -> None:
    ids = torch.tensor([[i for i, _ in row] for row in lists], dtype=torch.int32).view(len(lists), 5)
    values = torch.tensor([[float(v) for _, v in row] for row in lists]).view(len(lists), 5)
    torch.set_num_threads(threads)
    best, scores = function(ids, values, 7, 4)
    for row, entries in enumerate(lists):
        sums: dict[int, float] = {}
        for item, value in entries:
            if item >= 0:
                sums[item] = sums.get(item, 0.0) + value
        expected = sorted(sums, key=lambda item: (-sums[item], item))[:4]
        assert best[row].tolist() == expected + [-1] * (4 - len(expected))
        assert scores[row].tolist() == [sums[i] for i in expected] + [-torch.inf] * (4 - len(expected))


@BOTH
def test_nothing(function: Sum) -> None:
    for rows, width in ((0, 3), (2, 0)):
        ids = torch.empty(rows, width, dtype=torch.int32)
        best, scores = function(ids, torch.ones(1, width), 4, 2)
        assert best.tolist() == [[-1, -1]] * rows
        assert scores.shape == (rows, 2)


def test_the_kernel_agrees_with_its_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(-1, 50, (40, 90), generator=generator, dtype=torch.int32)
    values, scale = torch.rand(40, 90, generator=generator), torch.rand(90, generator=generator) + 1
    exponents = torch.rand(50, generator=generator) * 3
    one = sum_lists(ids, values, 50, 60, scale=scale, exponents=exponents)
    other = sum_lists_reference(ids, values, 50, 60, scale=scale, exponents=exponents)
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])


def test_ids_out_of_range() -> None:
    with pytest.raises(IndexError, match=r"ids in -1\.\.2, found 0\.\.3"):
        sum_lists(torch.tensor([[0, 3]]), torch.ones(1, 2), 3, 1)
