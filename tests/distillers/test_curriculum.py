"""How far a student is from a list, when it moves on, and what it is shown then."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.distillers.curriculum import (
    Curriculum,
    Gate,
    discrepancy,
    first_observed,
    rows_at,
    shuffled_states,
)
from recdistill.knowledge.base import Aggregation, Member
from recdistill.testing import tiny_interactions


def y(rank: int) -> float:
    """Gain of a rank from 0."""
    return float(2 ** math.exp(-rank / 10) - 1)


def test_golden_discrepancy() -> None:
    # the student's 2, 1, 5 against the teacher's 1, 2, 3
    assert [y(0), y(1), y(2)] == pytest.approx([1, 0.87233348, 0.76385352], abs=1e-8)
    ideal = y(0) + y(1) / math.log2(3) + y(2) / 2
    student, teacher = torch.tensor([[2, 1, 5]]), torch.tensor([[1, 2, 3]])
    with_rank = (y(1) + y(0) / math.log2(3)) / ideal
    by_place = (y(0) + y(1) / math.log2(3)) / ideal
    assert float(discrepancy(student, teacher)) == pytest.approx(1 - with_rank)
    assert float(discrepancy(student, teacher)) == pytest.approx(0.22203742, abs=1e-8)
    assert float(discrepancy(student, teacher, "student")) == pytest.approx(1 - by_place)
    assert float(discrepancy(student, teacher, "student")) == pytest.approx(0.19765316, abs=1e-8)


def test_only_the_teachers_gain_sees_its_order() -> None:
    student, one, other = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 2]]), torch.tensor([[2, 1, 0]])
    assert float(discrepancy(student, one)) == 0
    assert float(discrepancy(student, other)) > 0.01
    assert float(discrepancy(student, one, "student")) == float(discrepancy(student, other, "student")) == 0


def test_short_and_empty_lists() -> None:
    student = torch.tensor([[4, 7, -1], [4, 7, 9], [4, 7, 9], [-1, -1, -1]])
    teacher = torch.tensor([[4, 7, -1], [4, -1, -1], [-1, -1, -1], [4, 7, 9]])
    assert discrepancy(student, teacher).tolist() == [0, 0, 0, 1]
    wider = torch.nn.functional.pad(teacher, (0, 5), value=3)  # beyond K, not read
    assert discrepancy(student, wider).tolist() == [0, 0, 0, 1]
    assert discrepancy(student, teacher[:, :0]).tolist() == [0, 0, 0, 0]


def gate(**options: Any) -> Gate:
    return Gate(**{**RELEASED, "worse_passes": False, **options})


RELEASED = {
    "refresh": 10,
    "threshold": 1.05,
    "decay": 0.995,
    "floor": 0.0,
    "patience": 0,
    "worse_passes": True,
    "gain": "student",
}


def test_thresholds() -> None:
    released = [gate().limit(epoch) for epoch in (20, 90, 100)]
    assert released == pytest.approx([1.03952625, 1.00368406, 0.99866564], abs=1e-8)
    assert [gate(floor=1.0).limit(epoch) for epoch in (20, 100, 900)] == [released[0], 1.0, 1.0]
    assert gate(decay=1.0).limit(500) == 1.05


def test_what_passes() -> None:
    last = torch.tensor([0.6, 0.6, 0.6, 0.5, 0.0, 0.0, torch.nan, torch.nan], dtype=torch.float64)
    now = torch.tensor([0.5, 0.58, 0.6, 0.6, 0.0, 0.1, 0.5, 0.0], dtype=torch.float64)
    waited = torch.tensor([0, 0, 2, 1, 0, 2, 9, 9])

    def opens(epoch: int = 0, **options: Any) -> list[int]:
        return gate(**options).opens(last, now, waited, epoch).int().tolist()

    assert opens() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert opens(worse_passes=True) == [1, 0, 0, 1, 1, 1, 0, 0]
    assert opens(patience=3) == [1, 0, 1, 0, 1, 1, 0, 0]
    assert opens(90) == [1, 1, 0, 0, 1, 0, 0, 0]
    # from epoch 100 on the released gate is open to all; with a floor it asks for some progress
    assert opens(100, worse_passes=True) == [1, 1, 1, 1, 1, 1, 0, 0]
    assert opens(100, floor=1.0) == [1, 1, 0, 0, 1, 0, 0, 0]


def test_it_is_over_when_all_are_final_within_the_rounding() -> None:
    pairs = Interactions.from_events(torch.arange(1000), torch.zeros(1000, dtype=torch.int64), 1000, 4)
    states = tuple(torch.full((1000, 2), place) for place in range(4))
    members = [Member(name, states, (1, 2, 3, 4), None) for name in "ab"]
    found = Curriculum(members, pairs, gate(), "dynamic", torch.Generator())
    assert not found.is_over()
    pointers = found.get_buffer("pointers").fill_(3)
    assert found.is_over()
    pointers[:4, 0] = 2  # mean 2.996
    assert found.is_over()
    pointers[:6, 0] = 2  # mean 2.994
    assert not found.is_over()
    assert Curriculum(members, pairs, gate(), "final", torch.Generator()).is_over()
    one = [Member("a", states[:1], (1,), None)]
    assert Curriculum(one, pairs, gate(), "dynamic", torch.Generator()).is_over()


def test_each_user_reads_the_state_it_points_at() -> None:
    states = [torch.full((3, 2), fill) for fill in (10, 20, 30)]
    everyone = torch.arange(3)
    assert rows_at(states, torch.tensor([2, 0, 1]), everyone).tolist() == [[30, 30], [10, 10], [20, 20]]
    assert rows_at([s * everyone[:, None] for s in states], torch.tensor([1]), everyone[2:]).tolist() == [
        [40, 40]
    ]


def test_shuffled_states_end_with_the_last() -> None:
    order = shuffled_states(500, 4, torch.Generator().manual_seed(0))
    assert torch.equal(order.sort(dim=1).values, torch.arange(4).expand(500, 4).to(torch.int8))
    assert order[:, 3].unique().tolist() == [3]
    assert len(order.unique(dim=0)) == 6
    assert shuffled_states(3, 1, torch.Generator()).tolist() == [[0]] * 3


def test_first_observed_items() -> None:
    pairs = tiny_interactions()
    importances = torch.rand(pairs.num_pairs, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    found = first_observed(importances, pairs, 3)
    for user in range(pairs.num_users):
        part = slice(int(pairs.indptr[user]), int(pairs.indptr[user + 1]))
        ranked = sorted(zip((-importances[part]).tolist(), pairs.items[part].tolist(), strict=True))[:3]
        assert found[user].tolist() == [item for _, item in ranked] + [-1] * (3 - len(ranked))


def test_spreads_are_those_of_the_lists_pointed_at() -> None:
    pairs = Interactions.from_events([0], [6], 1, 7)
    states = tuple(torch.tensor([row], dtype=torch.int32) for row in ([0, 1, 2], [2, 3, 0], [2, 3, 4]))
    members = [Member("a", states, (1, 2, 3), None)]
    gate = Gate(10, 1.05, 1.0, 1.0, 0, False, "teacher")
    found = Curriculum(members, pairs, gate, "dynamic", torch.Generator(), Aggregation(consistency=200.0))
    # ranks over the states (3 is beyond): of 0: 0, 2, 3; of 1: 1, 3, 3; of 2: 2, 0, 0
    assert found.targets(3).tolist() == [[1, 2, 0]]


def test_shuffled_states_follow_the_generator() -> None:
    one, same, other = (shuffled_states(50, 5, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
