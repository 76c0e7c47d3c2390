"""Rank aggregation by hand: importances, ties, consistency, debiasing, the order of observed items."""

from __future__ import annotations

import math
import time

import pytest
import torch

from recdistill.knowledge.base import Lists
from recdistill.knowledge.ensemble import (
    aggregate,
    by_item,
    listed_scores,
    observed_importance,
    popularity_shares,
    rank_spread,
    users_of_items,
)


def ids(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def e(rank: float) -> float:
    return math.exp(-rank / 10)


def test_two_teachers() -> None:
    found = aggregate([ids([1, 2, 3]), ids([3, 1, 2])], 5, 4)
    assert found.ids.tolist() == [[1, 3, 2, -1]]
    expected = torch.tensor([1.90483742, 1.81873075, 1.72356817])
    torch.testing.assert_close(found.scores[0, :3], expected)
    assert found.scores[0, 3] == -torch.inf


def test_ranks_at_the_depth_and_beyond_add_nothing() -> None:
    found = aggregate([ids([1, 2, 3]), ids([4, 3, 2])], 5, 2)
    assert found.ids.tolist() == [[1, 4]]  # 2 and 3 are second once, and 1 before 4 as the smaller
    torch.testing.assert_close(found.scores, torch.ones(1, 2))


def test_lists_of_different_lengths_and_a_user_without_one() -> None:
    found = aggregate([ids([-1, -1], [2, 0]), ids([3, 1, 0], [2, 1, -1])], 4, 3)
    assert found.ids.tolist() == [[3, 1, 0], [2, 0, 1]]
    torch.testing.assert_close(found.scores[1], torch.tensor([2.0, e(1), e(1)]))


def test_one_teacher_keeps_its_order_whatever_the_options() -> None:
    mine = ids([4, 0, 2], [1, 3, -1])
    shares = torch.rand(5)
    found = aggregate([mine], 5, 3, weights=[3.0], popularity=shares, debias=2.0)
    assert torch.equal(found.ids, mine)
    torch.testing.assert_close(found.scores[0], 3 * torch.tensor([1.0, e(1), e(2)]))


def test_weights_and_temperature() -> None:
    lists = [ids([0, 1]), ids([1, 0])]
    assert aggregate(lists, 2, 2, weights=[1.0, 1.5]).ids.tolist() == [[1, 0]]
    assert aggregate(lists, 2, 2, weights=[1.5, 1.0]).ids.tolist() == [[0, 1]]
    found = aggregate(lists, 2, 2, temperature=2.0)
    torch.testing.assert_close(found.scores, torch.full((1, 2), 1 + math.exp(-0.5)))


def test_many_rows_are_aggregated_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    lists = [torch.rand(7, 9, generator=generator).argsort(dim=1).int() for _ in range(3)]
    spreads = [rank_spread([one, other]) for one, other in zip(lists, lists[1:] + lists[:1], strict=True)]
    whole = aggregate(lists, 9, 5, spreads=spreads, consistency=1.0)
    monkeypatch.setattr("recdistill.knowledge.ensemble._BLOCK", 3)
    parts = aggregate(lists, 9, 5, spreads=spreads, consistency=1.0)
    assert torch.equal(whole.ids, parts.ids)
    assert torch.equal(whole.scores, parts.scores)
    assert aggregate([lists[0][:0]], 9, 5).ids.shape == (0, 5)


def test_the_spread_of_ranks() -> None:
    states = [ids([1, 2, 3]), ids([2, 1, 5]), ids([2, 3, -1])]
    # item 2 stands at 1, 0, 0; item 3 at 2, beyond (3), 1
    found = rank_spread(states)
    torch.testing.assert_close(found, torch.tensor([[math.sqrt(2) / 3, math.sqrt(2 / 3), 0.0]]))
    assert rank_spread([states[0]]).tolist() == [[0.0, 0.0, 0.0]]
    early = rank_spread(states, states[0])  # item 1 stands at 0, 1, beyond (3)
    torch.testing.assert_close(early, torch.tensor([[math.sqrt(14) / 3, math.sqrt(2) / 3, math.sqrt(2 / 3)]]))


def test_consistency_adds_to_what_a_teacher_always_ranked_alike() -> None:
    lists, spreads = [ids([0, 1]), ids([1, 0])], [torch.tensor([[40.0, 0.0]]), torch.tensor([[0.0, 40.0]])]
    assert aggregate(lists, 2, 2, spreads=spreads, consistency=0.0).ids.tolist() == [[0, 1]]
    found = aggregate(lists, 2, 2, spreads=spreads, consistency=0.5)
    assert found.ids.tolist() == [[1, 0]]
    expected = [1 + e(1) + 0.5 * 2, 1 + e(1) + 0.5 * 2 * math.exp(-0.4)]
    torch.testing.assert_close(found.scores, torch.tensor([expected]))


def test_debiasing_takes_from_popular_items_on_which_teachers_disagree() -> None:
    # 0: popular, first of one teacher alone; 1: popular, agreed on; 2: not popular, one teacher's alone
    lists = [ids([0, 1, 3]), ids([2, 1, 4])]
    shares = torch.tensor([1.0, 1.0, 0.0, 0.5, 0.5])
    plain = aggregate(lists, 5, 3, popularity=shares)
    assert plain.ids.tolist() == [[1, 0, 2]]
    found = aggregate(lists, 5, 4, popularity=shares, debias=1.0)
    assert found.ids.tolist() == [[1, 2, 3, 4]]
    expected = [2 * e(1), 1.0, e(2) * 0.5**0.5, e(2) * 0.5**0.5]
    torch.testing.assert_close(found.scores, torch.tensor([expected]))
    assert aggregate(lists, 5, 5, popularity=shares, debias=1.0).scores[0, -1] == 0.5


def test_debiasing_counts_agreement_by_weight() -> None:
    lists, shares = [ids([0]), ids([1])], torch.ones(2)
    found = aggregate(lists, 2, 1, weights=[3.0, 1.0], popularity=shares, debias=1.0)
    torch.testing.assert_close(found.scores, torch.tensor([[3.0 * 0.75]]))


def test_popularity_shares() -> None:
    found = popularity_shares(torch.tensor([0, 1, 7]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1 / 3, 1.0]))
    assert popularity_shares(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_order_of_observed_items() -> None:
    indptr = torch.tensor([0, 3, 3, 5])
    one, other = torch.tensor([0.1, 0.9, 0.5, 2.0, 2.0]), torch.tensor([3.0, 1.0, 2.0, -1.0, 1.0])
    found = observed_importance([one, other], indptr)
    expected = [e(2) + e(0), e(0) + e(2), e(1) + e(1), e(0) + e(1), e(1) + e(0)]
    torch.testing.assert_close(found, torch.tensor(expected))
    weighted = observed_importance([one, other], indptr, weights=[1.0, 2.0], temperature=5.0)
    torch.testing.assert_close(weighted[0], torch.tensor(math.exp(-2 / 5) + 2))


def test_users_of_items() -> None:
    lists = Lists(ids([2, 0], [0, -1], [0, 2]), torch.tensor([[1.0, 0.5], [0.7, -torch.inf], [0.5, 0.4]]))
    found = users_of_items(lists, 3, 2)
    assert found.ids.tolist() == [[1, 0], [-1, -1], [0, 2]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.7, 0.5], [-torch.inf, -torch.inf], [1.0, 0.4]]))


def test_an_item_on_no_list_scores_0() -> None:
    lists = by_item(
        Lists(ids([4, 0, -1], [1, 3, 2]), torch.tensor([[2.0, 1.5, -torch.inf], [3.0, 2.0, 1.0]]))
    )
    users = torch.tensor([1, 0])
    found = listed_scores(lists, users, torch.tensor([[3, 0, -1], [0, 1, -1]]), 5)
    assert found.tolist() == [[2.0, 0.0, 0.0], [1.5, 0.0, 0.0]]
    assert listed_scores(lists, users, None, 5).tolist() == [[0, 3, 1, 2, 0], [1.5, 0, 0, 0, 2]]


def test_six_teachers_of_five_thousand_users_take_less_than_a_second() -> None:
    generator = torch.Generator().manual_seed(0)
    lists = [torch.randint(0, 2000, (5_219, 100), generator=generator, dtype=torch.int32) for _ in range(6)]
    aggregate([each[:2] for each in lists], 25_181)
    start = time.perf_counter()
    aggregate(lists, 25_181)
    assert time.perf_counter() - start < 2  # 0.25 s; a busy machine is allowed for
