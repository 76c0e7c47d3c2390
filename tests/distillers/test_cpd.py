"""CPD: golden values, what the regularisers train, draws, each option, the conformance kit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.distillers.base import Objective
from recdistill.distillers.cpd import CPD, list_consistency, pair_consistency
from recdistill.distillers.projectors import ExpertMixture, select, squared_error
from recdistill.knowledge.teacher import live
from recdistill.models.bpr import BPR
from recdistill.ops.experts import Experts, mixture_reference
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions

USERS = torch.tensor([[1, 0], [0.5, 1]], dtype=torch.float64)
ITEMS = torch.tensor([[1, 1], [0.5, -1], [0, 2], [-1, 0.5]], dtype=torch.float64)
W = torch.tensor([[1, 0], [0, 1], [0.5, 0.5]], dtype=torch.float64)
B = torch.tensor([0, 0, 0.1], dtype=torch.float64)
BEFORE = USERS @ ITEMS.T
AFTER = (USERS @ W.T + B) @ (ITEMS @ W.T + B).T
TWO = torch.ones(2, 1, dtype=torch.bool)


def gaps(scores: torch.Tensor) -> torch.Tensor:
    """Of items 1 and 2 for user 0, of items 0 and 3 for user 1."""
    return torch.stack([scores[0, 1] - scores[0, 2], scores[1, 0] - scores[1, 3]])[:, None]


def test_golden_scores() -> None:
    expected = torch.tensor([[1.66, 0.41, 0.66, -1.09], [2.435, -0.8775, 2.935, -0.1275]])
    torch.testing.assert_close(AFTER, expected.double(), atol=1e-6, rtol=0)


def test_golden_values_of_pairs() -> None:
    logistic = pair_consistency(gaps(BEFORE), gaps(AFTER), TWO, "logistic")
    assert float(logistic) * 2 == pytest.approx(0.75759904 + 0.02118711, abs=1e-7)
    assert float(pair_consistency(gaps(BEFORE), gaps(AFTER), TWO, "hinge")) * 2 == pytest.approx(0.125)


def test_golden_value_of_lists() -> None:
    present = torch.ones(2, 3, dtype=torch.bool)
    loss = list_consistency(BEFORE[:, :3], AFTER[:, :3], present, 0.5)
    assert float(loss) * 2 == pytest.approx(0.98861642 + 0.60447188, abs=1e-7)


def test_golden_value_of_the_whole_sum() -> None:
    # neighbours + (features + hinge pairs + lists) + soft labels, all as sums of weight 1
    two = torch.ones(2, dtype=torch.float64)
    of_users = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    of_items = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    features = squared_error(USERS @ W.T + B, of_users, two) + squared_error(
        ITEMS[:2] @ W.T + B, of_items, two
    )
    pairs = 2 * pair_consistency(gaps(BEFORE), gaps(AFTER), TWO, "hinge")
    lists = 2 * list_consistency(
        BEFORE[:, :3], AFTER[:, :3], torch.ones(2, 3, dtype=torch.bool), temperature=0.5
    )
    total = 0.72578086 + float(features + pairs + lists) + 1.99074954
    assert total == pytest.approx(15.04961870, abs=1e-6)


def test_padding_changes_nothing() -> None:
    before = torch.cat([BEFORE[:, :3], torch.full((2, 2), 99.0)], dim=1)
    after = torch.cat([AFTER[:, :3], torch.full((2, 2), -99.0)], dim=1)
    present = torch.tensor([[True] * 3 + [False] * 2] * 2)
    short = list_consistency(BEFORE[:, :3], AFTER[:, :3], present[:, :3], 0.5)
    assert float(list_consistency(before, after, present, 0.5)) == pytest.approx(float(short))
    nobody = torch.zeros_like(present)
    assert float(list_consistency(before, after, nobody, 0.5)) == 0.0
    assert float(pair_consistency(before, after, nobody, "logistic")) == 0.0


def test_a_projector_that_keeps_all_scores_is_the_best() -> None:
    present = torch.ones(2, 4, dtype=torch.bool)
    best = list_consistency(BEFORE, BEFORE, present, 0.5)
    assert float(best) < float(list_consistency(BEFORE, AFTER, present, 0.5))
    assert float(pair_consistency(gaps(BEFORE), 3 * gaps(BEFORE), TWO, "hinge")) == 0.0


def test_experts_project_as_their_definition_says() -> None:
    generator = torch.Generator().manual_seed(0)
    mixture = ExpertMixture(2, 3, 4, generator).double()
    experts = Experts(mixture.first, mixture.first_bias, mixture.second, mixture.second_bias)
    soft = torch.softmax(torch.randn(4, 4, dtype=torch.float64, generator=generator), dim=1)
    hard = torch.nn.functional.one_hot(torch.tensor([3, 0, 0, 1]), 4).double()
    for selection in (soft, hard):
        expected = mixture_reference(ITEMS, selection, experts)
        found = mixture.project(ITEMS, selection)
        torch.testing.assert_close(found, expected)
        wanted = torch.autograd.grad(expected.square().sum(), [*experts])
        got = torch.autograd.grad(found.square().sum(), [*experts])
        torch.testing.assert_close(got, wanted)


class Setting:
    """One CPD on a small student and teacher."""

    def __init__(self, epochs: int = 1, **options: Any) -> None:
        self.interactions = tiny_interactions(30, 40, seed=5)
        self.student = built(BPR(dim=3), self.interactions)
        self.method = CPD(**{"weight": 1.0, "num_experts": 3, "anneal_epochs": 5, "depth": 10, **options})
        knowledge = live(built(BPR(dim=5), self.interactions, seed=7), self.interactions)
        self.objective = Objective([self.method], knowledge, 0.0)
        generator = torch.Generator().manual_seed(0)
        self.objective.setup(self.student, self.interactions, 10, generator, CPU)
        for epoch in range(epochs):
            self.objective.start_epoch(epoch)
        self.batch = batch_of(self.interactions)

    @property
    def drawn(self) -> torch.Tensor:
        return self.method.get_buffer("drawn")

    def loss(self) -> torch.Tensor:
        (term,) = self.objective.terms(self.student, self.student.state(self.batch), self.batch).values()
        return term


@pytest.mark.parametrize("feature", ["de", "fitnet", "cosine"])
def test_the_regularisers_train_the_projectors_alone(feature: str) -> None:
    plain = Setting(feature=feature, pair_weight=1e-20, list_weight=1e-20)  # as many draws
    regularised = Setting(feature=feature, pair_weight=5.0, list_weight=5.0, pairs="batch")
    for setting in (plain, regularised):
        setting.loss().backward()
    for one, other in zip(plain.student.parameters(), regularised.student.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.to_dense(), other.grad.to_dense())
    changed: list[bool] = []
    for one, other in zip(plain.method.parameters(), regularised.method.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        changed.append(not torch.allclose(one.grad, other.grad))
    assert any(changed)


def test_who_guides_the_draw() -> None:
    everyone = torch.arange(30)
    for guide in ("teacher", "student", "uniform"):
        setting = Setting(guide=guide)
        present = setting.drawn >= 0
        users = everyone[:, None].expand_as(setting.drawn)[present]
        assert not bool(setting.interactions.contains(users, setting.drawn[present].long()).any())
    cold = {
        guide: Setting(guide=guide, temperature=0.01).drawn[:, 0].long() for guide in ("teacher", "student")
    }
    setting = Setting()
    assert setting.objective.knowledge is not None
    assert torch.equal(cold["teacher"], setting.objective.knowledge.top_items(everyone, 1).ids[:, 0])
    state, interactions = setting.student.frozen(), setting.interactions
    seen = torch.zeros(30, 40, dtype=torch.bool)
    seen[interactions.users.long(), interactions.items.long()] = True
    best = state.scores(everyone).masked_fill(seen, -torch.inf).argmax(dim=1)
    assert torch.equal(cold["student"], best)


def test_only_a_guiding_teacher_needs_lists() -> None:
    assert "top_items" in CPD().needs
    assert "top_items" not in CPD(guide="student").needs


def test_resample_every() -> None:
    first, second, third = (Setting(epochs, resample_every=2).drawn for epochs in (1, 2, 3))
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"feature": "fitnet"},
        {"num_experts": 2},
        {"anneal_epochs": 50},
        {"selection": "shared"},
        {"pair_weight": 0.5},
        {"pair": "hinge"},
        {"pairs": "batch"},
        {"list_weight": 0.5},
        {"list_temperature": 0.5},
        {"guide": "student"},
        {"guide": "uniform"},
        {"num_items": 3},
        {"depth": 5},
        {"temperature": 1.0},
    ]
    found = [float(Setting(2, **change).loss().detach()) for change in changes]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"selection": "shared", "guide": "student", "pairs": "batch"},
        {"feature": "fitnet", "guide": "uniform", "pair": "hinge"},
    ],
    ids=["de", "shared", "fitnet"],
)
def test_conforms(options: dict[str, Any]) -> None:
    check_distiller(
        lambda: CPD(**{"weight": 1.0, "num_experts": 3, "depth": 6, "anneal_epochs": 5, **options}),
        stops_gradients=True,  # the regularisers hold the student fixed
    )


@pytest.mark.parametrize("feature", ["de", "fitnet", "cosine"])
def test_the_features_gradient_reaches_the_student(feature: str) -> None:
    options: dict[str, Any] = {"num_experts": 3, "depth": 6, "pair_weight": 0.0, "list_weight": 0.0}
    check_distiller(lambda: CPD(weight=1.0, feature=feature, **options))


def test_the_cosine_feature_by_hand() -> None:
    setting = Setting(feature="cosine", num_experts=2, pair_weight=0, list_weight=0)
    method, batch = setting.method, setting.batch
    assert method.needs == {"embeddings"}
    knowledge = setting.objective.knowledge
    assert knowledge is not None
    state, teacher = setting.student.state(batch), knowledge.state(batch)

    def distances(networks: nn.Module, ids: torch.Tensor, side: str) -> torch.Tensor:
        own, other = (getattr(one, f"{side}_embeddings")(ids) for one in (state, teacher))
        return 1 - nn.functional.cosine_similarity(networks(own), other)

    positives, negatives = batch.unique_positives, batch.unique_negatives
    expected = distances(method.users, batch.users, "user").mean() + 0.5 * (
        distances(method.items, positives, "item").mean() + distances(method.items, negatives, "item").mean()
    )
    torch.testing.assert_close(setting.loss(), expected)


def test_items_are_drawn_only_where_something_compares_them() -> None:
    setting = Setting(pairs="batch", list_weight=0)
    assert setting.method.needs == {"embeddings"}
    assert setting.method.list_depths() == {}
    assert bool((setting.drawn < 0).all())


def test_absent_pairs_do_not_count() -> None:
    before, after = torch.tensor([[1.0, 2.0], [1.0, 1.0]]), torch.tensor([[-1.0, 1.0], [5.0, 5.0]])
    present = torch.tensor([[True, True], [False, False]])
    assert float(pair_consistency(before, after, present, "hinge")) == pytest.approx((1 + 0) / 2)


@pytest.mark.parametrize("selection", ["argmax", "shared"])
@pytest.mark.parametrize("pairs", ["drawn", "batch"])
def test_the_whole_equation_by_hand(selection: Any, pairs: Any) -> None:
    data = tiny_interactions()  # user 1 has three items left, so that its list of five has pads
    student: Any = built(BPR(dim=3), data)
    method: Any = CPD(
        weight=1.0,
        num_experts=3,
        selection=selection,
        pairs=pairs,
        num_items=5,
        pair_weight=0.7,
        list_weight=0.3,
    )
    knowledge = live(built(BPR(dim=5), data, seed=7), data)
    objective = Objective([method], knowledge, 0.0)
    objective.setup(student, data, 10, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    batch = batch_of(data)
    before = method.generator.get_state()
    (found,) = objective.terms(student, student.state(batch), batch).values()
    method.generator.set_state(before)
    drawn = method.get_buffer("drawn")[batch.users].long()
    known = torch.cat(
        [drawn[drawn >= 0], batch.items] if pairs == "batch" else [batch.items, drawn[drawn >= 0]]
    ).unique()

    def side(part: Any, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        logits = part.logits(other)
        soft = select(logits, part.noise(len(own), method.generator), 1.0)
        hard = F.one_hot(logits.argmax(dim=1), 3).float()
        experts = Experts(part.first, part.first_bias, part.second, part.second_bias)
        errors = (mixture_reference(own, soft, experts) - other).square().sum(dim=1)
        return errors, mixture_reference(own, soft if selection == "shared" else hard, experts)

    users_error, p = side(
        method.users, student.user_table[batch.users], knowledge.user_embeddings(batch.users)
    )
    items_error, q = side(method.items, student.item_table[known], knowledge.item_embeddings(known))
    place = torch.full((14,), -1).scatter_(0, known, torch.arange(len(known)))
    sides = [items_error[place[ids]].mean() for ids in (batch.unique_positives, batch.unique_negatives)]
    expected = users_error.mean() + (sides[0] + sides[1]) / 2
    a = (student.user_table[batch.users] @ student.item_table[known].T).detach()
    b = p @ q.T
    lists, swaps = [], []
    for row, ids in enumerate(drawn):
        at = place[ids[ids >= 0]]
        lists.append(-(torch.softmax(a[row, at] / 0.1, 0) * torch.log_softmax(b[row, at] / 0.1, 0)).sum())
        for i in range(len(at) if pairs == "drawn" else 0):
            swaps += [-(b[row, at[i]] - b[row, j]) * (a[row, at[i]] - a[row, j]) for j in at[i + 1 :]]
    if pairs == "batch":
        row, i, j = batch.row, place[batch.positives], place[batch.negatives[:, 0]]
        swaps = list(-(b[row, i] - b[row, j]) * (a[row, i] - a[row, j]))
    expected = expected + 0.3 * torch.stack(lists).mean() + 0.7 * F.softplus(torch.stack(swaps)).mean()
    torch.testing.assert_close(found, expected)


def test_the_noise_is_gumbel() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = ExpertMixture(2, 3, 4, generator).noise(50_000, generator)
    for value in (-1.0, 0.0, 2.0):
        assert float((noise <= value).float().mean()) == pytest.approx(math.exp(-math.exp(-value)), abs=0.005)
