"""Soft labels: golden values of the three forms, minimum, the conformance kit, and each option."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch

from recdistill.distillers.base import Objective
from recdistill.distillers.sld import soft_cross_entropy
from recdistill.distillers.soft_labels import SoftLabels, binary_loss, draw_pairs, soft_labels
from recdistill.knowledge.base import Lists
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.models.bpr import BPR
from recdistill.models.ranking import top_items
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions

FORMS = ["listwise", "pairwise", "pointwise"]
STUDENT = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[0.3, 2.0, 1.0, -1.0], [-0.5, 0.5, 1.5, 1.0]], dtype=torch.float64)
ITEMS = torch.tensor([[1, 2, 3], [2, 1, 0]])


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


def entropy(target: float, logit: float) -> float:
    return -sigma(target) * log(sigma(logit)) - sigma(-target) * log(sigma(-logit))


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 1.99074954), (0.5, 1.37310397)])
def test_golden_value_of_the_listwise_form(temperature: float, expected: float) -> None:
    present = ITEMS >= 0
    labels = soft_labels(TEACHER.gather(1, ITEMS) / temperature, present)
    loss = soft_cross_entropy(STUDENT.gather(1, ITEMS) / temperature, labels, present)
    assert float(loss.sum()) == pytest.approx(expected, abs=1e-7)


def test_value_of_the_pairwise_form() -> None:
    # user 0: item 1 against 2 and against 3; user 1: item 2 against 1
    first, second = torch.tensor([[1, 1], [2, 0]]), torch.tensor([[2, 3], [1, 0]])
    targets = TEACHER.gather(1, first) - TEACHER.gather(1, second)
    logits = STUDENT.gather(1, first) - STUDENT.gather(1, second)
    loss = binary_loss(logits, torch.sigmoid(targets), torch.tensor([[True, True], [True, False]]))
    expected = ((entropy(1.0, 1.0) + entropy(3.0, 0.5)) / 2 + entropy(1.0, 1.8)) / 2
    assert float(loss) == pytest.approx(expected, abs=1e-12)


def test_value_of_the_pointwise_form() -> None:
    present = torch.tensor([[True, True, False], [False, False, False]])
    labels = torch.sigmoid(TEACHER.gather(1, ITEMS))
    loss = binary_loss(STUDENT.gather(1, ITEMS), labels, present)
    assert float(loss) == pytest.approx((entropy(2.0, 0.5) + entropy(1.0, -0.5)) / 2 / 2, abs=1e-12)


def test_pairs_are_uniform_over_different_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, present = draw_pairs(torch.full((1000,), 4), 60, generator)
    assert bool(present.all())
    shares = torch.bincount((4 * first + second).flatten(), minlength=16).view(4, 4) / first.numel()
    torch.testing.assert_close(shares, (1 - torch.eye(4)) / 12, atol=0.005, rtol=0)


def test_lists_of_fewer_than_two_items_have_no_pairs() -> None:
    first, second, present = draw_pairs(torch.tensor([0, 1, 2]), 5, torch.Generator().manual_seed(0))
    assert present.any(dim=1).tolist() == [False, False, True]
    assert bool((first[:2] + second[:2] == 0).all())
    assert bool((first[2] + second[2] == 1).all())


@pytest.mark.parametrize("form", FORMS)
def test_conforms(form: Any) -> None:
    check_distiller(lambda: SoftLabels(form=form, k=6, temperature=2.0, num_pairs=4))


def set_up(
    lists: Lists | None = None, student: BPR | None = None, **options: Any
) -> tuple[Objective, torch.Tensor]:
    """A teacher of nothing but ids and scores, and the loss of one batch."""
    interactions = tiny_interactions(40, 60, seed=3)
    teacher = built(BPR(dim=5), interactions, seed=9)
    lists = lists or Lists(*top_items(teacher.frozen(), torch.arange(40), 20, [interactions]))
    model = student or built(BPR(dim=3), interactions)
    stored = TeacherKnowledge(interactions, None, {"top_items": lists})
    merged: dict[str, Any] = {"k": 20, **options}
    objective = Objective([SoftLabels(**merged)], stored, base_weight=0.0)
    objective.setup(model, interactions, 10, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    (term,) = objective.terms(model, model.state(), batch_of(interactions)).values()
    return objective, term


def value(**options: Any) -> float:
    return float(set_up(**options)[1].detach())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [{"weight": 2.0}, {"k": 5}, {"temperature": 0.5}])
def test_every_option_changes_the_loss(form: Any, change: dict[str, Any]) -> None:
    assert value(form=form) != value(form=form, **change)


def test_the_form_and_the_number_of_pairs_change_the_loss() -> None:
    losses = [value(form=form) for form in FORMS]
    losses.append(value(form="pairwise", num_pairs=3))
    assert len(set(losses)) == 4


@pytest.mark.parametrize("form", FORMS)
def test_a_student_that_scores_as_the_teacher_is_at_the_minimum(form: Any) -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    twin = built(BPR(dim=5), interactions, seed=9)
    assert isinstance(twin, BPR)
    _, term = set_up(student=twin, form=form)
    term.backward()
    for parameter in twin.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.to_dense().abs().max()) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing(form: Any) -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    teacher = built(BPR(dim=5), interactions, seed=9)
    ids, scores = top_items(teacher.frozen(), torch.arange(40), 6, [interactions])
    pad = torch.full((40, 4), -1), torch.full((40, 4), -torch.inf)
    padded = Lists(torch.cat([ids, pad[0]], dim=1), torch.cat([scores, pad[1]], dim=1))
    short = set_up(Lists(ids, scores), form=form, k=6)[1]
    torch.testing.assert_close(set_up(padded, form=form, k=10)[1], short)


def test_what_comes_from_the_knowledge_is_not_in_a_checkpoint() -> None:
    assert not set_up()[0].state_dict()


@pytest.mark.parametrize("form", ["listwise", "pairwise", "pointwise"])
def test_both_sides_are_divided_by_the_temperature(form: Any) -> None:
    """As of both models' scores divided by it; τ = 1."""

    def loss(divided: float, temperature: float) -> float:
        pairs = tiny_interactions(40, 60, seed=3)
        ids, scores = top_items(built(BPR(dim=5), pairs, seed=9).frozen(), torch.arange(40), 8, [pairs])
        stored = TeacherKnowledge(pairs, None, {"top_items": Lists(ids, scores / divided)})
        objective = Objective([SoftLabels(form=form, k=8, temperature=temperature)], stored, 0.0)
        student = built(BPR(dim=3), pairs)
        with torch.no_grad():
            student.parameter("user_table").div_(divided)
        objective.setup(student, pairs, 10, torch.Generator().manual_seed(0), CPU)
        (term,) = objective.terms(student, student.state(), batch_of(pairs)).values()
        return float(term.detach())

    assert loss(1.0, 2.0) == pytest.approx(loss(2.0, 1.0), rel=1e-5)
