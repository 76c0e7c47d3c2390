"""UnKD: golden values, groups, the law of the pairs, the conformance kit, and each option."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from method_cases import loss_of, set_up
from recdistill.distillers.base import Objective
from recdistill.distillers.unkd import UnKD, distinct_pairs, equal_groups, pair_loss, pairs_per_group
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import Lists
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.bpr import BPR
from recdistill.models.ranking import top_items
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions

SCORES = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)


def loss_of_pairs(better: list[list[int]], worse: list[list[int]]) -> float:
    first, second = torch.tensor(better), torch.tensor(worse)
    differences = SCORES.gather(1, first.clamp(min=0)) - SCORES.gather(1, second.clamp(min=0))
    return float(pair_loss(differences, first >= 0))


def test_golden_value() -> None:
    assert loss_of_pairs([[1], [2]], [[2], [1]]) == pytest.approx((0.31326169 + 0.15297761) / 2, abs=1e-7)


def test_golden_value_of_users_with_different_numbers_of_pairs() -> None:
    assert loss_of_pairs([[1, 1], [2, -1]], [[2, 3], [1, -1]]) * 2 == pytest.approx(0.54664695, abs=1e-7)


def test_users_without_pairs_have_no_loss() -> None:
    assert loss_of_pairs([[-1], [-1]], [[-1], [-1]]) == 0.0


@pytest.mark.parametrize(
    ("counts", "num_groups", "expected"),
    [
        ([5, 3, 1, 1], 2, [[0], [1, 2, 3]]),
        ([1, 3, 5, 1], 2, [[2], [1, 0, 3]]),
        ([4, 4, 4], 2, [[0], [1], [2]]),  # more groups than asked for
        ([4, 4, 1], 2, [[0], [1, 2]]),  # the last is less than half a group
        ([4, 4, 3], 2, [[0], [1], [2]]),
        ([90, 5, 5, 0], 4, [[0, 1, 2, 3]]),  # ten left of a share of 25
        ([90, 8, 8, 0], 4, [[0], [1, 2, 3]]),
        ([0, 0], 3, [[0, 1]]),
        ([2, 2, 2], 1, [[0, 1, 2]]),
    ],
)
def test_groups_of_equal_share(counts: list[int], num_groups: int, expected: list[list[int]]) -> None:
    assert [group.tolist() for group in equal_groups(torch.tensor(counts), num_groups)] == expected


def test_pairs_of_each_group() -> None:
    counts, groups = torch.tensor([5, 5, 3, 1, 1]), [torch.tensor([0, 1]), torch.tensor([2, 3, 4])]
    assert pairs_per_group(counts, groups, 30, exponent=0.0) == [15, 15]
    assert pairs_per_group(counts, groups, 20, exponent=1.0) == [5, 15]  # bases .25 and .75
    assert pairs_per_group(counts, groups, 20, exponent=2.0) == [2, 18]
    assert pairs_per_group(counts, groups, 1, exponent=0.0) == [1, 0]


def test_pairs_that_do_not_divide_go_to_the_first_groups() -> None:
    counts = torch.ones(8, dtype=torch.int64)
    groups = [torch.tensor([item, item + 1]) for item in range(0, 8, 2)]
    assert pairs_per_group(counts, groups, 30, exponent=0.0) == [8, 8, 7, 7]


def test_a_group_much_more_popular_keeps_a_tenth() -> None:
    counts, groups = torch.tensor([1000, 1000, 1, 1]), [torch.tensor([0, 1]), torch.tensor([2, 3])]
    assert pairs_per_group(counts, groups, 110, exponent=1.0) == [10, 100]  # bases .1 and 1.


def test_a_group_of_one_item_gets_no_pair() -> None:
    counts, groups = torch.tensor([5, 2, 2, 1]), [torch.tensor([0]), torch.tensor([1, 2]), torch.tensor([3])]
    assert pairs_per_group(counts, groups, 7, exponent=0.0) == [0, 7, 0]


def test_a_large_exponent_gives_all_pairs_to_the_least_popular() -> None:
    counts, groups = torch.tensor([5, 5, 1, 1]), [torch.tensor([0, 1]), torch.tensor([2, 3])]
    assert pairs_per_group(counts, groups, 20, exponent=1000.0) == [0, 20]


@pytest.mark.parametrize(("length", "temperature"), [(2, 20.0), (6, 2.0), (6, 1e9), (30, 3.0)])
def test_pairs_have_the_law_of_two_draws_that_differ(length: int, temperature: float) -> None:
    count = 60_000
    better, worse = distinct_pairs(
        torch.full((count,), length), 1, temperature, torch.Generator().manual_seed(0)
    )
    assert bool((better < worse).all())
    weights = torch.exp(-torch.arange(length, dtype=torch.float64) / temperature)
    law = (weights[:, None] * weights[None, :]).triu(1)
    shares = torch.bincount((better * length + worse)[:, 0], minlength=length**2).view(length, length) / count
    torch.testing.assert_close(shares.double(), law / law.sum(), atol=0.012, rtol=0)


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e12])
def test_pairs_at_the_ends(temperature: float) -> None:
    better, worse = distinct_pairs(
        torch.tensor([0, 1, 2, 9]), 5, temperature, torch.Generator().manual_seed(0)
    )
    assert better[:3].tolist() == [[-1] * 5, [-1] * 5, [0] * 5]
    assert worse[:3].tolist() == [[-1] * 5, [-1] * 5, [1] * 5]
    assert int(worse[3].max()) < 9
    if temperature < 0.1:
        assert worse[3].tolist() == [1] * 5


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_conforms(exponent: float) -> None:
    check_distiller(lambda: UnKD(num_groups=2, num_pairs=5, depth=6, temperature=3.0, exponent=exponent))


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 2.0},
        {"num_groups": 2},
        {"num_pairs": 4},
        {"exponent": 3.0},
        {"temperature": 1.0},
        {"depth": 4},
    ],
)
def test_every_option_changes_the_loss(change: dict[str, Any]) -> None:
    assert loss_of(set_up(UnKD())) != loss_of(set_up(UnKD(**change)))


def test_resample_every() -> None:
    first, second, third = (
        set_up(UnKD(resample_every=2), epochs=epochs).methods()[0][1].get_buffer("drawn")
        for epochs in (1, 2, 3)
    )
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


def test_pairs_are_unobserved_items_of_one_group_in_the_teachers_order() -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    method = UnKD(num_groups=3, num_pairs=9, depth=10)
    set_up(method)
    better, worse = method.get_buffer("drawn").long().chunk(2, dim=1)
    present = better >= 0
    assert torch.equal(present, worse >= 0)
    assert float(present.float().mean()) > 0.8
    group = torch.empty(60, dtype=torch.int64)
    for number, items in enumerate(equal_groups(interactions.item_counts, 3)):
        group[items] = number
    assert torch.equal(group[better[present]], group[worse[present]])
    users = torch.arange(40)
    teacher = built(BPR(dim=5), interactions, seed=9).frozen()
    assert bool((teacher.scores(users, better) >= teacher.scores(users, worse))[present].all())
    owners = users[:, None].expand_as(better)[present]
    for side in (better, worse):
        assert not bool(interactions.contains(owners, side[present]).any())


def test_a_teacher_of_lists_alone_is_refused() -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    teacher = built(BPR(dim=5), interactions, seed=9)
    lists = Lists(*top_items(teacher.frozen(), torch.arange(40), 20, [interactions]))
    with pytest.raises(MissingKnowledgeError, match="scores"):
        set_up(UnKD(), TeacherKnowledge(interactions, None, {"top_items": lists}))


def test_half_a_group_stands_alone() -> None:
    found = equal_groups(torch.tensor([3, 3, 2]), 2)  # shares of 4
    assert [group.tolist() for group in found] == [[0], [1], [2]]


def test_bases_have_two_decimals() -> None:
    # means 5, 3, 1 mirrored: 1, 3, 5 of 9: .11, .33, .56; of 1000 pairs 110, 330, 560
    counts = torch.tensor([5, 5, 3, 3, 1, 1])
    groups = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])]
    assert pairs_per_group(counts, groups, 1000, exponent=1.0) == [110, 330, 560]


def test_what_is_left_goes_to_the_largest_remainders() -> None:
    counts, groups = torch.tensor([5, 5, 3, 1, 1]), [torch.tensor([0, 1]), torch.tensor([2, 3, 4])]
    assert pairs_per_group(counts, groups, 3, exponent=1.0) == [1, 2]  # .75 and 2.25


def test_absent_pairs_do_not_count() -> None:
    pairs = tiny_interactions()  # user 1 has three items left, so that some of its groups give no pair
    method: Any = UnKD(weight=1.0, num_groups=3, num_pairs=9)
    student: Any = built(BPR(dim=3), pairs)
    objective = Objective([method], live(built(BPR(dim=5), pairs, seed=9), pairs), 0.0)
    objective.setup(student, pairs, 10, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    batch = batch_of(pairs)
    better, worse = method.get_buffer("drawn")[batch.users].long().chunk(2, dim=1)
    assert bool((better < 0).any())
    each: list[Tensor] = []
    for user, i, j in zip(batch.users, better, worse, strict=True):
        scores = student.state().scores(user[None])[0]
        each.append(
            F.softplus(scores[j[j >= 0]] - scores[i[i >= 0]]).mean()
            if bool((i >= 0).any())
            else torch.zeros(())
        )
    (found,) = objective.terms(student, student.state(batch), batch).values()
    torch.testing.assert_close(found, torch.stack(each).mean())
