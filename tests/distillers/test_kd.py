"""KD: golden values, the conformance kit, and each option."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, KNOWLEDGE
from recdistill.distillers.base import Objective
from recdistill.distillers.kd import KD
from recdistill.distillers.sld import soft_cross_entropy
from recdistill.distillers.soft_labels import soft_labels
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import Lists
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.bpr import BPR
from recdistill.models.ranking import top_items
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions

GUIDES = ["teacher", "student"]


def test_golden_value() -> None:
    # both users' top three of the teacher are all their unobserved items: 0.95732564 + 1.03342389
    student = torch.tensor([[0.5, -0.5, 0.0], [0.8, -1.0, 0.2]], dtype=torch.float64)
    teacher = torch.tensor([[2.0, 1.0, -1.0], [1.5, 0.5, -0.5]], dtype=torch.float64)
    present = torch.ones(2, 3, dtype=torch.bool)
    loss = soft_cross_entropy(student, soft_labels(teacher, present), present)
    assert loss.tolist() == pytest.approx([0.95732564, 1.03342389], abs=1e-7)


@pytest.mark.parametrize("guide", GUIDES)
def test_conforms(guide: Any) -> None:
    check_distiller(lambda: KD(guide=guide, k=6, temperature=2.0))


def set_up(
    method: KD, knowledge: TeacherKnowledge | None = None, epochs: int = 1
) -> tuple[Objective, BPR, torch.Tensor]:
    """The loss of one batch after some epochs, between which the student's lists change."""
    interactions = tiny_interactions(40, 60, seed=3)
    student = built(BPR(dim=3), interactions)
    assert isinstance(student, BPR)
    knowledge = knowledge or live(built(BPR(dim=5), interactions, seed=9), interactions)
    objective = Objective([method], knowledge, base_weight=0.0)
    objective.setup(student, interactions, 10, torch.Generator().manual_seed(0), CPU)
    for epoch in range(epochs):
        with torch.no_grad():
            student.parameter("user_table").add_(0.3 * epoch)
        student.train()
        objective.start_epoch(epoch)
    (term,) = objective.terms(student, student.state(), batch_of(interactions)).values()
    return objective, student, term


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("change", [{"weight": 2.0}, {"k": 4}, {"temperature": 0.5}])
def test_every_option_changes_the_loss(guide: Any, change: dict[str, Any]) -> None:
    before, after = (set_up(KD(guide=guide, **options))[2].detach() for options in ({}, change))
    assert float(before) != float(after)


def test_the_guides_list_is_the_one_that_is_labelled() -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    teacher = built(BPR(dim=5), interactions, seed=9)
    users = torch.arange(40)
    for guide in ("teacher", "student"):
        method = KD(guide=guide, k=7)
        _, student, _ = set_up(method)
        state = teacher.frozen() if guide == "teacher" else student.frozen()
        ids = top_items(state, users, 7, [interactions])[0]
        assert torch.equal(method.get_buffer("top").long(), ids)
        expected = soft_labels(teacher.frozen().scores(users, ids), ids >= 0)
        torch.testing.assert_close(method.get_buffer("labels"), expected)


def test_refresh_every() -> None:
    lists: list[torch.Tensor] = []
    for epochs in (1, 2, 3):
        method = KD(guide="student", k=7, refresh_every=2)
        set_up(method, epochs=epochs)
        lists.append(method.get_buffer("top"))
    assert torch.equal(lists[0], lists[1])
    assert not torch.equal(lists[1], lists[2])


def test_a_student_that_scores_as_the_teacher_is_at_the_minimum() -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    for guide in ("teacher", "student"):
        twin = built(BPR(dim=5), interactions, seed=9)
        knowledge = live(built(BPR(dim=5), interactions, seed=9), interactions)
        objective = Objective([KD(guide=guide, k=8)], knowledge, base_weight=0.0)
        objective.setup(twin, interactions, 10, torch.Generator(), CPU)
        objective.start_epoch(0)
        (term,) = objective.terms(twin, twin.state(), batch_of(interactions)).values()
        term.backward()
        for parameter in twin.parameters():
            assert parameter.grad is not None
            assert float(parameter.grad.to_dense().abs().max()) < 1e-6


def test_a_checkpoint_holds_the_students_lists_alone() -> None:
    assert not set_up(KD())[0].state_dict()
    assert len(set_up(KD(guide="student"))[0].state_dict()) == 2


def test_a_teacher_of_lists_alone_can_guide_but_not_score_others() -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    teacher = built(BPR(dim=5), interactions, seed=9)
    lists = Lists(*top_items(teacher.frozen(), torch.arange(40), 20, [interactions]))
    stored = TeacherKnowledge(interactions, None, {"top_items": lists})
    set_up(KD(k=20), stored)
    with pytest.raises(MissingKnowledgeError, match="scores"):
        set_up(KD(guide="student", k=20), stored)


@pytest.mark.parametrize("guide", ["teacher", "student"])
def test_both_sides_are_divided_by_the_temperature(guide: Any) -> None:
    method = KD(weight=1.0, k=3, guide=guide, temperature=2.0)
    _, student, term = set_up(method)
    users = batch_of(INTERACTIONS).users
    ids = method.get_buffer("top")[users].long()  # all users have three items left
    labels = torch.softmax(KNOWLEDGE.scores(users, ids) / 2, dim=1)
    found = torch.log_softmax(student.state().scores(users, ids) / 2, dim=1)
    assert bool((ids >= 0).all())
    assert float(term.detach()) == pytest.approx(
        float(-(labels * found).sum(dim=1).mean().detach()), rel=1e-5
    )
