"""Top-k against an oracle that sorts the full matrix, on random, tied and degenerate input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.errors import DataError, OptionError
from recdistill.ops import topk_blocks
from recdistill.ops.rows import Rows
from recdistill.ops.topk import (
    ranked_at,
    ranked_at_reference,
    top_k,
    top_k_dense,
    top_k_dense_reference,
    top_k_reference,
)

TOP_K = pytest.mark.parametrize("function", [top_k, top_k_reference])
DENSE = pytest.mark.parametrize("function", [top_k_dense, top_k_dense_reference])
RANKED_AT = pytest.mark.parametrize("function", [ranked_at, ranked_at_reference])


def oracle(
    scores: Tensor, k: int, exclude: Rows | None = None, candidates: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sort every row by (-score, id) after taking out what is unavailable."""
    left = np.zeros(scores.shape, bool)
    left[:, slice(None) if candidates is None else candidates.numpy()] = True
    if exclude is not None:
        left[np.repeat(np.arange(len(scores)), exclude.indptr.diff().numpy()), exclude.items.numpy()] = False
    masked = np.where(left, scores.float().numpy(), np.float32(-np.inf))
    ids = np.full((len(scores), k), -1)
    values = np.full((len(scores), k), -np.inf, np.float32)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(masked, order, axis=1)
    values[:, : order.shape[1]] = best
    ids[:, : order.shape[1]] = np.where(best == -np.inf, -1, order)
    return torch.from_numpy(values), torch.from_numpy(ids)


def same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert found[0].dtype == torch.float32
    assert found[1].dtype == torch.int64
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


def random_rows(num_rows: int, num_items: int, share: float, generator: torch.Generator) -> Rows:
    mask = torch.rand(num_rows, num_items, generator=generator) < share
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    return Rows(indptr, mask.nonzero()[:, 1].int())


def whole_numbers(*shape: int, bound: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-bound, bound + 1, shape, generator=generator).float()


@TOP_K
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_rows=st.integers(0, 9),
    num_items=st.integers(0, 300),
    dim=st.integers(0, 4),
    bound=st.integers(0, 3),
    k=st.integers(1, 320),
    share=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    restrict=st.booleans(),
)
def test_equals_the_sorted_matrix_on_whole_numbers(
    function: Callable[..., tuple[Tensor, Tensor]],
    seed: int,
    num_rows: int,
    num_items: int,
    dim: int,
    bound: int,
    k: int,
    share: float,
    restrict: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = whole_numbers(num_rows, dim, bound=bound, generator=generator)
    items = whole_numbers(num_items, dim, bound=bound, generator=generator)
    bias = whole_numbers(num_items, bound=bound, generator=generator)
    exclude = random_rows(num_rows, num_items, share, generator)
    candidates = (torch.rand(num_items, generator=generator) < 0.5).nonzero()[:, 0] if restrict else None
    found = function(rows, items, k, bias=bias, exclude=exclude, candidates=candidates)
    same(found, oracle(rows @ items.T + bias, k, exclude, candidates))


@RANKED_AT
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_rows=st.integers(0, 9),
    num_items=st.integers(1, 3000),
    bound=st.integers(0, 3),
    depth=st.integers(1, 3200),
    asked=st.integers(0, 4),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_positions_of_the_sorted_matrix(
    function: Callable[..., Tensor],
    seed: int,
    num_rows: int,
    num_items: int,
    bound: int,
    depth: int,
    asked: int,
    share: float,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = whole_numbers(num_rows, 3, bound=bound, generator=generator)
    items = whole_numbers(num_items, 3, bound=bound, generator=generator)
    bias = whole_numbers(num_items, bound=bound, generator=generator)
    exclude = random_rows(num_rows, num_items, share, generator)
    # rows that ask for a few near the top beside rows that ask far down, past the end, or for padding alone
    reach = (torch.rand(num_rows, 1, generator=generator) * depth).long() + 1
    positions = (torch.rand(num_rows, asked, generator=generator) * (reach + 1)).long() - 1
    found = function(rows, items, positions, bias=bias, exclude=exclude)
    ranking = oracle(rows @ items.T + bias, depth + 1, exclude)[1]
    expected = ranking.gather(1, positions.clamp(min=0)).masked_fill(positions < 0, -1)
    assert torch.equal(found, expected)


@RANKED_AT
def test_positions_of_scores_that_are_no_numbers(function: Callable[..., Tensor]) -> None:
    items = torch.tensor([[1.0], [torch.nan], [2.0]])
    with pytest.raises(DataError, match="NaN"):
        function(torch.ones(2, 1), items, torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(DataError, match="one dim"):
        function(torch.ones(2, 2), items, torch.zeros(2, 1, dtype=torch.int64))


@DENSE
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_rows=st.integers(0, 9),
    num_items=st.integers(0, 3000),
    bound=st.integers(0, 1000),
    k=st.integers(1, 320),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_dense_equals_the_sorted_matrix(
    function: Callable[..., tuple[Tensor, Tensor]],
    seed: int,
    num_rows: int,
    num_items: int,
    bound: int,
    k: int,
    share: float,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = whole_numbers(num_rows, num_items, bound=bound, generator=generator)
    before = scores.clone()
    exclude = random_rows(num_rows, num_items, share, generator)
    same(function(scores, k, exclude), oracle(scores, k, exclude))
    assert torch.equal(scores, before)


ORDERS = {
    "random": lambda line: line,
    "ascending": lambda line: line.sort().values,
    "descending": lambda line: line.sort(descending=True).values,
    "constant": lambda line: torch.full_like(line, 7.0),
    "two levels": lambda line: (line > line.median()).float(),
    # the best scores lie where the first limit is estimated from: it comes out too high for the rest
    "comb": lambda line: line + (torch.arange(len(line)) % (len(line) // 256) == 0),
}


@DENSE
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("k", [1, 10, 500, 4000])
def test_every_order_of_scores_over_several_tiles(
    function: Callable[..., tuple[Tensor, Tensor]], order: str, k: int
) -> None:
    line = torch.rand(20_000, generator=torch.Generator().manual_seed(1))
    scores = ORDERS[order](line)[None, :].repeat(2, 1)
    exclude = random_rows(2, 20_000, 0.2, torch.Generator().manual_seed(2))
    same(function(scores, k, exclude), oracle(scores, k, exclude))


@TOP_K
def test_real_valued_scores_differ_by_rounding_only(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(300, 33, generator=generator)
    items = torch.randn(20_011, 33, generator=generator)
    exclude = random_rows(300, 20_011, 0.01, generator)
    full = (rows.double() @ items.double().T).float()
    scores, ids = function(rows, items, 100, exclude=exclude)
    values, expected = oracle(full, 100, exclude)
    assert torch.allclose(scores, full.gather(1, ids), rtol=1e-5, atol=1e-5)
    assert torch.allclose(scores, values, rtol=1e-5, atol=1e-5)
    assert (ids == expected).double().mean() > 0.999


def test_result_does_not_depend_on_threads_or_company() -> None:
    generator = torch.Generator().manual_seed(4)
    rows = whole_numbers(301, 8, bound=3, generator=generator)
    items = whole_numbers(17_000, 8, bound=3, generator=generator)
    exclude = random_rows(301, 17_000, 0.02, generator)
    results: list[tuple[Tensor, Tensor]] = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(top_k(rows, items, 50, exclude=exclude))
    finally:
        torch.set_num_threads(before)
    scores: list[Tensor] = []
    ids: list[Tensor] = []
    for start, stop in itertools.pairwise([0, 1, 2, 7, 200, 301]):
        indptr = exclude.indptr[start : stop + 1]
        part = Rows(indptr - indptr[0], exclude.items[int(indptr[0]) : int(indptr[-1])])
        some_scores, some_ids = top_k(rows[start:stop], items, 50, exclude=part)
        scores.append(some_scores)
        ids.append(some_ids)
    results.append((torch.cat(scores), torch.cat(ids)))
    results.append(top_k_reference(rows, items, 50, exclude=exclude))
    for other in results[1:]:
        same(other, results[0])


@pytest.mark.parametrize("few", [True, False], ids=["copied at once", "copied by tile"])
@pytest.mark.parametrize(("width", "tile"), [(64, 64), (100, 900), (257, 5000)])
def test_result_does_not_depend_on_tiles(
    monkeypatch: pytest.MonkeyPatch, width: int, tile: int, few: bool
) -> None:
    generator = torch.Generator().manual_seed(8)
    rows = whole_numbers(90, 6, bound=3, generator=generator)
    items = whole_numbers(3000, 6, bound=3, generator=generator)
    bias = whole_numbers(3000, bound=9, generator=generator)
    exclude = random_rows(90, 3000, 0.05, generator)
    candidates = (torch.rand(3000, generator=generator) < 0.7).nonzero()[:, 0]
    for name, value in {"_WIDTH": width, "_TILE": tile, "_ALL_TILES": tile, "_INLINE_WORK": 0}.items():
        monkeypatch.setattr(topk_blocks, name, value)
    monkeypatch.setattr(topk_blocks, "_GATHER_BYTES", 1 << 30 if few else 0)
    for k in (3, 70, 1000):
        for chosen in (None, candidates):
            same(
                top_k(rows, items, k, bias=bias, exclude=exclude, candidates=chosen),
                oracle(rows @ items.T + bias, k, exclude, chosen),
            )


def test_threads_of_the_caller_are_left_as_they_were() -> None:
    rows, items = torch.ones(64, 8), torch.ones(20_000, 8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        top_k(rows, items, 5)
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
        items[7_000, 3] = torch.nan
        with pytest.raises(DataError, match="NaN"):
            top_k(rows, items, 5)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_several_threads_may_call_at_once() -> None:
    generator = torch.Generator().manual_seed(9)
    tables = [whole_numbers(n, 8, bound=3, generator=generator) for n in (40, 50, 60, 70)]
    items = whole_numbers(6_000, 8, bound=3, generator=generator)
    expected = [oracle(rows @ items.T, 12) for rows in tables]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(
            pool.map(lambda rows: top_k(rows, items, 12), tables), expected, strict=True
        ):
            same(found, wanted)


@pytest.mark.parametrize("num_rows", [3, 64], ids=["in the caller's thread", "on several"])
def test_contexts_of_the_caller_do_not_matter(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(10)
    rows = torch.randn(num_rows, 8, generator=generator)
    items = torch.randn(20_000, 8, generator=generator)
    expected = top_k(rows, items, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(top_k(rows, items, 20), expected)
    with torch.inference_mode():
        same(top_k(rows * 1, items * 1, 20), expected)


@TOP_K
def test_worked_by_hand(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    items = torch.tensor([[1.0, 5.0], [3.0, 5.0], [3.0, 0.0], [2.0, 6.0]])
    exclude = Rows(torch.tensor([0, 1, 4]), torch.tensor([2, 0, 1, 3], dtype=torch.int32))
    scores, ids = function(rows, items, 3, bias=torch.tensor([0.0, 0.0, 0.0, 1.0]), exclude=exclude)
    assert ids.tolist() == [[1, 3, 0], [2, -1, -1]]
    assert scores.tolist() == [[3.0, 3.0, 1.0], [0.0, -torch.inf, -torch.inf]]


@TOP_K
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes_layouts_and_gradients(
    function: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(5)
    rows = whole_numbers(6, 10, bound=3, generator=generator)
    items = whole_numbers(10, 700, bound=3, generator=generator)
    expected = oracle(rows[:, ::2] @ items[::2], 9)
    rows = rows.to(dtype).requires_grad_()
    found = function(rows[:, ::2], items.to(dtype)[::2].T, 9)
    same(found, expected)
    assert not found[0].requires_grad


@TOP_K
def test_memory_mapped_items(function: Callable[..., tuple[Tensor, Tensor]], tmp_path: Path) -> None:
    path = tmp_path / "items.bin"
    generator = torch.Generator().manual_seed(6)
    items = whole_numbers(900, 5, bound=4, generator=generator)
    items.numpy().tofile(path)
    mapped = torch.from_file(str(path), shared=False, size=4500).view(900, 5)
    same(function(items[:4], mapped, 20), oracle(items[:4] @ items.T, 20))


@DENSE
def test_infinite_scores(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    inf = torch.inf
    scores = torch.tensor(
        [[1.0, -inf, inf, -0.0, 0.0, inf], [-inf] * 6, [-1.0, -2.0, -inf, -3e38, -inf, -0.5]]
    )
    values, ids = function(scores, 5)
    assert ids.tolist() == [[2, 5, 0, 3, 4], [-1] * 5, [5, 0, 1, 3, -1]]
    assert values[0].tolist() == [inf, inf, 1.0, 0.0, 0.0]
    assert values[1].tolist() == [-inf] * 5


@DENSE
@pytest.mark.parametrize("column", [0, 1, 5000, 20_000])
def test_nan_is_refused_wherever_it_is(function: Callable[..., tuple[Tensor, Tensor]], column: int) -> None:
    scores = torch.rand(3, 20_001, generator=torch.Generator().manual_seed(7))
    scores[1, column] = torch.nan
    for exclude in (None, Rows(torch.tensor([0, 0, 1, 1]), torch.tensor([column], dtype=torch.int32))):
        with pytest.raises(DataError, match="scores contain NaN"):
            function(scores, 4, exclude)


@TOP_K
def test_what_does_not_fit_is_refused(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    rows, items = torch.zeros(2, 3), torch.zeros(5, 3)
    with pytest.raises(OptionError, match="at least 1, found 0"):
        function(rows, items, 0)
    with pytest.raises(DataError, match=r"\(2, 3\) and \(5, 4\)"):
        function(rows, torch.zeros(5, 4), 1)
    with pytest.raises(DataError, match="float64"):
        function(rows, items.double(), 1)
    with pytest.raises(DataError, match=r"shape \(5,\), found \(4,\)"):
        function(rows, items, 1, bias=torch.zeros(4))
    with pytest.raises(DataError, match="2 rows, found 1"):
        function(rows, items, 1, exclude=Rows(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int32)))
    for indptr in ([0, 2, 1], [-1, 0, 1], [0, 1, 3]):
        with pytest.raises(DataError, match="ascending row starts within the 2 excluded items"):
            function(rows, items, 1, exclude=Rows(torch.tensor(indptr), torch.zeros(2, dtype=torch.int32)))
    with pytest.raises(DataError, match=r"0\.\.4, found 1\.\.5"):
        function(rows, items, 1, candidates=torch.tensor([1, 5]))
    with pytest.raises(DataError, match="ascending and unique"):
        function(rows, items, 1, candidates=torch.tensor([1, 3, 3]))
    with pytest.raises(DataError, match="int64"):
        function(rows, items, 1, candidates=torch.tensor([1], dtype=torch.int32))


@DENSE
def test_dense_refuses_what_is_no_matrix(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    with pytest.raises(DataError, match=r"\(4,\)"):
        function(torch.zeros(4), 1)
    with pytest.raises(DataError, match="int64"):
        function(torch.zeros(4, 4, dtype=torch.int64), 1)
