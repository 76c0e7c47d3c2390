"""SLD: golden values, the conformance kit, and each option."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, KNOWLEDGE, STUDENT, loss_of, set_up
from recdistill import ops
from recdistill.distillers.sld import SLD, soft_cross_entropy, teacher_labels
from recdistill.knowledge.teacher import live
from recdistill.testing import batch_of, check_distiller

S = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
T = torch.tensor([[0.3, 2.0, 1.0, -1.0], [-0.5, 0.5, 1.5, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, 0.95732564 + 1.03342389), (0.5, 1.37310397)], ids=["1", "half"]
)
def test_golden_values(temperature: float, expected: float) -> None:
    # the items are 1, 2, 3 for user 0 and 2, 1, 0 for user 1
    items = torch.tensor([[1, 2, 3], [2, 1, 0]])
    labels = torch.softmax(T.gather(1, items) / temperature, dim=1)
    loss = soft_cross_entropy(S.gather(1, items) / temperature, labels, items >= 0)
    assert float(loss.sum()) == pytest.approx(expected, abs=1e-7)


def test_padding_changes_nothing_and_empty_rows_have_no_loss() -> None:
    logits = torch.tensor([[0.5, 99.0, -0.5, 0.0], [9.0] * 4], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0.7, 0.0, 0.2, 0.1], [0.0] * 4], dtype=torch.float64)
    present = torch.tensor([[True, False, True, True], [False] * 4])
    loss = soft_cross_entropy(logits, labels, present)
    kept = soft_cross_entropy(
        logits[:1, [0, 2, 3]], labels[:1, [0, 2, 3]], torch.ones(1, 3, dtype=torch.bool)
    )
    assert float(loss.detach()[0]) == pytest.approx(float(kept.detach()))
    assert float(loss.detach()[1]) == 0.0
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert float(gradient[~present].abs().sum()) == 0.0


def test_large_scores_are_exact() -> None:
    logits = torch.tensor([[1000.0, 0.0]])
    assert float(soft_cross_entropy(logits, torch.tensor([[0.0, 1.0]]), torch.ones(1, 2) > 0)) == 1000.0


def test_a_student_that_scores_as_the_teacher_is_at_the_minimum() -> None:
    scores = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = (scores / 0.1).requires_grad_()
    labels = torch.softmax(scores / 0.1, dim=1)
    (gradient,) = torch.autograd.grad(soft_cross_entropy(logits, labels, torch.ones(4, 6) > 0).sum(), logits)
    assert float(gradient.abs().max()) < 1e-12


@pytest.mark.parametrize("guide", ["teacher", "student", "both"])
def test_conforms(guide: Any) -> None:
    check_distiller(
        lambda: SLD(
            weight=1.0, guide=guide, num_interesting=3, num_uninteresting=4, depth=5, position_temperature=2.0
        )
    )


def run(epochs: int = 1, **options: Any) -> tuple[SLD, float]:
    chosen: dict[str, Any] = {"num_interesting": 4, "num_uninteresting": 5, "depth": 8, **options}
    method = SLD(weight=1.0, **chosen)
    return method, loss_of(set_up(method, epochs=epochs))


def test_items_come_from_the_guides_lists_once() -> None:
    method, _ = run()
    drawn = method.get_buffer("drawn").long()
    student, teacher, others = drawn[:, :4], drawn[:, 4:8], drawn[:, 8:]
    users = torch.arange(40)
    lists = KNOWLEDGE.top_items(users, 8).ids.clone()
    lists[60 - INTERACTIONS.user_counts == 3, 1:] = -1  # half of these 3 is left to the others
    own = live(STUDENT, INTERACTIONS).top_items(users, 8).ids
    assert torch.equal(ops.listed(student, own), student >= 0)
    assert torch.equal(ops.listed(teacher, lists), teacher >= 0)
    assert not ops.listed(others, lists).any()
    assert not INTERACTIONS.contains(users, drawn).any()
    ordered = drawn.sort(dim=1).values
    assert not ((ordered.diff(dim=1) == 0) & (ordered[:, 1:] >= 0)).any()
    assert (student < 0).any()  # the two lists meet


def test_labels_are_the_teachers() -> None:
    method, _ = run(temperature=2.0)
    drawn, labels = method.get_buffer("drawn").long(), method.get_buffer("labels")
    torch.testing.assert_close(labels, teacher_labels(KNOWLEDGE, drawn, 2.0))
    filled = (drawn >= 0).any(dim=1)
    torch.testing.assert_close(labels.sum(dim=1), filled.float())
    scores = KNOWLEDGE.scores(torch.arange(40), drawn)
    expected = torch.softmax((scores / 2.0).masked_fill(drawn < 0, -torch.inf), dim=1)[filled]
    torch.testing.assert_close(labels[filled], expected)


@pytest.mark.parametrize(
    "options",
    [
        {"guide": "teacher"},
        {"guide": "student"},
        {"num_interesting": 5},
        {"num_uninteresting": 6},
        {"depth": 20},
        {"temperature": 1.0},
        {"position_temperature": 1.0},
        {"epochs": 2},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_changes_the_loss(options: dict[str, Any]) -> None:
    assert run(**options)[1] != run()[1]


def test_resample_every() -> None:
    first, second, third = (run(epochs, resample_every=2)[0].get_buffer("drawn") for epochs in (1, 2, 3))
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


def test_the_loss_from_what_was_drawn() -> None:
    method: Any = SLD(weight=1.0, depth=8, num_interesting=3, num_uninteresting=3, temperature=2.0)
    objective = set_up(method)
    users = batch_of(INTERACTIONS).users
    items = method.get_buffer("drawn")[users].long()
    teacher, student = KNOWLEDGE.scores(users, items) / 2, STUDENT.state().scores(users, items).detach() / 2
    total = 0.0
    for row, ids in enumerate(items):
        there = ids >= 0
        total -= float(
            (torch.softmax(teacher[row, there], 0) * torch.log_softmax(student[row, there], 0)).sum()
        )
    assert loss_of(objective) == pytest.approx(total / len(users), rel=1e-5)
