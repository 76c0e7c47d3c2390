"""Draws: every exclusion set by brute force, the laws by exact formulas, the same draws for the same seed."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recdistill.ops import (
    draw_unobserved,
    draw_unobserved_reference,
    sample_positions,
    sample_positions_reference,
    sample_weighted,
    sample_weighted_reference,
)

DRAW = pytest.mark.parametrize("function", [draw_unobserved, draw_unobserved_reference])
POSITIONS = pytest.mark.parametrize("function", [sample_positions, sample_positions_reference])
WEIGHTED = pytest.mark.parametrize("function", [sample_weighted, sample_weighted_reference])

# Users with some, none, all and all but one of five items.
INDPTR = torch.tensor([0, 2, 2, 7, 11])
ITEMS = torch.tensor([1, 3, 0, 1, 2, 3, 4, 0, 1, 3, 4], dtype=torch.int32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@DRAW
@pytest.mark.parametrize("replace", [True, False])
def test_every_exclusion_set_of_seven_items(function: Callable[..., Tensor], replace: bool) -> None:
    """All 128 users that can be: the draws are exactly the items left, each of them equally often."""
    sets = [set(chosen) for size in range(8) for chosen in itertools.combinations(range(7), size)]
    indptr = torch.tensor([0] + [len(s) for s in sets]).cumsum(0)
    items = torch.tensor([item for s in sets for item in sorted(s)], dtype=torch.int32)
    users = torch.arange(len(sets)).repeat(150)
    drawn = function(indptr, items, 7, users, 7, seeded(), replace)
    for user, excluded in enumerate(sets):
        left = set(range(7)) - excluded
        mine = drawn[user :: len(sets)]
        if not replace:
            assert all(sorted(row[: len(left)]) == sorted(left) for row in mine.tolist())
            assert (mine[:, len(left) :] == -1).all()
            mine = mine[:, :1]  # the first of the draws, which has to be uniform by itself
        counts = Counter(mine.flatten().tolist())
        assert set(counts) == (left or {-1})
        expected = mine.numel() / max(len(left), 1)
        assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_kernel_draws_what_the_twin_draws(replace: bool, n: int) -> None:
    users = torch.tensor([0, 1, 2, 3, 1, 0])
    found = draw_unobserved(INDPTR, ITEMS, 5, users, n, seeded(), replace)
    expected = draw_unobserved_reference(INDPTR, ITEMS, 5, users, n, seeded(), replace)
    assert found.shape == (6, n)
    assert torch.equal(found, expected)


def test_a_large_catalogue_without_replacement() -> None:
    generator = seeded(1)
    lengths = torch.randint(0, 40, (50,), generator=generator)
    rows = [torch.randperm(5000, generator=generator)[:length].sort().values for length in lengths.tolist()]
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    items = torch.cat(rows).int()
    users = torch.arange(50)
    drawn = draw_unobserved(indptr, items, 5000, users, 300, seeded(2), replace=False)
    assert torch.equal(drawn, draw_unobserved_reference(indptr, items, 5000, users, 300, seeded(2), False))
    assert (drawn.sort(dim=1).values.diff(dim=1) > 0).all()
    assert not any(set(row.tolist()) & set(mine.tolist()) for row, mine in zip(rows, drawn, strict=True))
    assert abs(drawn.double().mean().item() - 2500) < 5 * 1443 / math.sqrt(drawn.numel())


@DRAW
def test_ordered_pairs_without_replacement_are_uniform(function: Callable[..., Tensor]) -> None:
    drawn = function(INDPTR, ITEMS, 5, torch.full((6000,), 0), 2, seeded(3), False)
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == set(itertools.permutations([0, 2, 4], 2))
    assert all(abs(count - 1000) < 5 * math.sqrt(1000) for count in counts.values())


@DRAW
def test_users_with_nothing_left_get_pads(function: Callable[..., Tensor]) -> None:
    users = torch.tensor([2, 3])
    assert function(INDPTR, ITEMS, 5, users, 3, seeded(), True).tolist() == [[-1] * 3, [2] * 3]
    assert function(INDPTR, ITEMS, 5, users, 3, seeded(), False).tolist() == [[-1] * 3, [2, -1, -1]]


@DRAW
def test_without_interactions_or_users(function: Callable[..., Tensor]) -> None:
    empty = torch.zeros(3, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    drawn = function(*empty, 4, torch.tensor([0, 1]), 4, seeded(), False)
    assert drawn.sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * 2
    assert function(*empty, 4, torch.zeros(0, dtype=torch.int64), 4, seeded()).shape == (0, 4)


def test_wrong_users_and_counts_are_named() -> None:
    for wrong in (-1, 4):
        with pytest.raises(IndexError, match=r"user indices in 0\.\.3"):
            draw_unobserved(INDPTR, ITEMS, 5, torch.tensor([wrong]), 1, seeded())
    with pytest.raises(ValueError, match="n must be 0 or more, got -1"):
        draw_unobserved(INDPTR, ITEMS, 5, torch.tensor([0]), -1, seeded())


def included(drawn: Tensor, length: int) -> Tensor:
    """Share of the rows that hold each position."""
    return torch.bincount(drawn.flatten(), minlength=length).double() / len(drawn)


@POSITIONS
@pytest.mark.parametrize(
    ("k", "expected"),
    [(40, {20: 0.984, 40: 0.449, 60: 0.076, 80: 0.0106}), (100, {80: 0.984, 100: 0.449, 150: 0.0039})],
)
def test_inclusion_probabilities(function: Callable[..., Tensor], k: int, expected: dict[int, float]) -> None:
    """Exact figures for 500 positions and temperature 10; positions count from 1."""
    rows = 20_000
    shares = included(function(torch.full((rows,), 500), k, 10.0, seeded(4)), 500)
    for position, chance in expected.items():
        error = math.sqrt(chance * (1 - chance) / rows)
        assert abs(shares[position - 1].item() - chance) < 4 * error + 5e-4


@POSITIONS
def test_one_draw_of_three_positions_follows_the_weights(function: Callable[..., Tensor]) -> None:
    shares = included(function(torch.full((30_000,), 3), 1, 2.0, seeded(5)), 3)
    expected = torch.tensor([0.50648039, 0.30719589, 0.18632372]).double()
    assert ((shares - expected).abs() < 4 * (expected * (1 - expected) / 30_000).sqrt()).all()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0, 1e6, math.inf])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("head", [1e-9, 6.0])
def test_every_set_has_its_chance(
    k: int, temperature: float, head: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the chance of each set of k out of 12 positions, summed over its orders.

    With a head of k + 1 positions, nearly every row has entries from beyond it.
    """
    monkeypatch.setattr("recdistill.ops.sampling._HEAD", head)
    rows, length = 40_000, 12
    weights = [math.exp(-p / temperature) for p in range(length)]
    chances: dict[tuple[int, ...], float] = defaultdict(float)
    for order in itertools.permutations(range(length), k):
        chance, left = 1.0, sum(weights)
        for position in order:
            chance *= weights[position] / left
            left -= weights[position]
        chances[tuple(sorted(order))] += chance
    drawn = Counter(
        map(tuple, sample_positions(torch.full((rows,), length), k, temperature, seeded(6)).tolist())
    )
    likely = {chosen: chance for chosen, chance in chances.items() if chance * rows >= 5}
    rare = rows * (1 - sum(likely.values()))
    statistic = sum((drawn[c] - rows * chance) ** 2 / (rows * chance) for c, chance in likely.items())
    assert statistic < len(likely) + 5 * math.sqrt(2 * len(likely)) + 5
    assert abs(sum(drawn.values()) - sum(drawn[c] for c in likely) - rare) < 5 * math.sqrt(rare) + 5


def test_the_tail_beyond_the_head_of_the_list_has_its_chance() -> None:
    """With temperature 4 and k = 2 the head ends at position 26 of 200; far positions come, as often as due."""
    rows, temperature = 400_000, 4.0
    shares = included(sample_positions(torch.full((rows,), 200), 2, temperature, seeded(7)), 200)
    exact = exact_inclusion(200, 2, temperature)
    for chunk in (slice(26, 29), slice(29, 34), slice(34, 200)):
        chance = exact[chunk].sum().item()
        assert abs(shares[chunk].sum().item() - chance) < 5 * math.sqrt(chance / rows)
        assert shares[chunk].sum() > 0


def exact_inclusion(length: int, k: int, temperature: float) -> Tensor:
    """Chance of each position for k = 2: being first, or second after any other."""
    assert k == 2
    weights = torch.exp(-torch.arange(length).double() / temperature)
    first = weights / weights.sum()
    second = first[:, None] * weights[None, :] / (weights.sum() - weights)[:, None]
    return first + second.fill_diagonal_(0).sum(dim=0)


@POSITIONS
@pytest.mark.parametrize("temperature", [1e-9, 0.01, 10.0, 1e9, math.inf])
def test_short_lists_and_pads(function: Callable[..., Tensor], temperature: float) -> None:
    lengths = torch.tensor([0, 1, 3, 4, 300])
    drawn = function(lengths, 4, temperature, seeded(8))
    assert drawn[:4].tolist() == [[-1] * 4, [0, -1, -1, -1], [0, 1, 2, -1], [0, 1, 2, 3]]
    assert (drawn[4].diff() > 0).all()
    assert drawn[4].min() >= 0
    assert drawn[4].max() < 300
    if temperature < 0.1:
        assert drawn[4].tolist() == [0, 1, 2, 3]
    assert function(lengths, 0, temperature, seeded(8)).shape == (5, 0)
    assert function(lengths[:0], 4, temperature, seeded(8)).shape == (0, 4)


def test_the_generator_decides_and_threads_do_not() -> None:
    lengths = torch.full((2000,), 60)  # enough that more than one thread is worth it
    one = sample_positions(lengths, 9, 3.0, seeded(9))
    torch.set_num_threads(2)
    assert torch.equal(sample_positions(lengths, 9, 3.0, seeded(9)), one)
    generator = seeded(9)
    assert torch.equal(sample_positions(lengths, 9, 3.0, generator), one)
    assert not torch.equal(sample_positions(lengths, 9, 3.0, generator), one)


@POSITIONS
def test_wrong_options_are_named(function: Callable[..., Tensor]) -> None:
    lengths = torch.tensor([3])
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            function(lengths, 1, temperature, seeded())
    with pytest.raises(ValueError, match="k must be 0 or more"):
        function(lengths, -1, 1.0, seeded())


@WEIGHTED
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_weighted_set_has_its_chance(function: Callable[..., Tensor], k: int) -> None:
    """Against the chance of each set of k entries, summed over its orders; entries 1 and 4 have no weight."""
    rows, weights = 40_000, [0.1, 0.0, 1.0, 0.5, -2.0, 0.9, 0.01]
    chances: dict[tuple[int, ...], float] = defaultdict(float)
    present = [place for place, weight in enumerate(weights) if weight > 0]
    for order in itertools.permutations(present, k):
        chance, left = 1.0, sum(weights[place] for place in present)
        for place in order:
            chance *= weights[place] / left
            left -= weights[place]
        chances[tuple(sorted(order))] += chance
    drawn = function(torch.tensor(weights).expand(rows, -1), k, seeded(11))
    found = Counter(map(tuple, drawn.tolist()))
    assert set(found) <= set(chances)
    for chosen, chance in chances.items():
        assert abs(found[chosen] / rows - chance) < 5 * math.sqrt(chance * (1 - chance) / rows) + 1e-9


@WEIGHTED
def test_rows_with_few_weights_give_them_all(function: Callable[..., Tensor]) -> None:
    weights = torch.tensor([[0.0, 1e-30, 0.0, 3.0], [-1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    drawn = function(weights, 4, seeded())
    assert drawn.tolist() == [[1, 3, -1, -1], [-1] * 4, [0, 1, 2, 3]]
    assert function(weights, 6, seeded())[0].tolist() == [1, 3, -1, -1, -1, -1]
    assert function(weights, 0, seeded()).shape == (3, 0)
    assert function(weights[:0], 2, seeded()).shape == (0, 2)
    with pytest.raises(ValueError, match="k must be 0 or more"):
        function(weights, -1, seeded())


@WEIGHTED
def test_chosen_rows_and_negative_weights(function: Callable[..., Tensor]) -> None:
    weights = torch.tensor([[1.0, -1.0, 0.0, 2.0], [-3.0, 0.5, -1.0, 0.0]])
    rows = torch.tensor([1, 0, 1])
    assert function(weights, 3, seeded(), rows).tolist() == [[1, -1, -1], [0, 3, -1], [1, -1, -1]]
    assert function(weights, 3, seeded(), rows, sign=-1).tolist() == [[0, 2, -1], [1, -1, -1], [0, 2, -1]]
    single = function(-weights[1:].expand(20_000, -1), 1, seeded(1), sign=-1)
    assert set(single[:, 0].tolist()) == {1}
    heavy = function(weights[1:].expand(20_000, -1), 1, seeded(1), sign=-1)
    assert abs((heavy == 0).double().mean().item() - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 20_000)


def test_rows_out_of_range_are_named() -> None:
    with pytest.raises(IndexError, match=r"row indices in 0\.\.1"):
        sample_weighted(torch.ones(2, 3), 1, seeded(), torch.tensor([2]))


def test_weighted_draws_repeat_with_the_seed() -> None:
    weights = torch.rand(50, 40, generator=seeded(1))
    first, again, other = (sample_weighted(weights, 5, seeded(seed)) for seed in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_rest_of_a_draw_by_negatives_is_of_negative_weight() -> None:
    weights = torch.full((200, 12), -1e-9)
    weights[:, 0] = -1.0  # all but one are hardly ever kept: the rest comes by clocks
    weights[:, 6:] = 1.0
    drawn = sample_weighted(weights, 4, seeded(), sign=-1)
    assert bool((drawn >= 0).all())
    assert int(drawn.max()) < 6
