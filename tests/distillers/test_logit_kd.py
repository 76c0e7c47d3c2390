"""Logit distillation: the worked value, every set of items and places against a plain softmax, conformance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from method_cases import INTERACTIONS, KNOWLEDGE
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Objective
from recdistill.distillers.logit_kd import LogitKD, listed
from recdistill.knowledge.teacher import live
from recdistill.models.bpr import BPR
from recdistill.models.cml import CML
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_state import SequenceState
from recdistill.ops.divergence import divergence
from recdistill.testing import (
    CPU,
    batch_of,
    built,
    check_distiller,
    check_sequence_distiller,
    tiny_interactions,
    tiny_sequences,
)
from sequence_cases import ONCE, Step

DATA = tiny_sequences()


def teacher_model(max_length: int = 8, head: Any = "tied") -> SASRec:
    model = built(SASRec(dim=6, max_length=max_length, dropout=0.0, head=head), DATA, seed=7)
    assert isinstance(model, SASRec)
    return model.eval()


class _Case:
    """One step of one method."""

    def __init__(self, teacher: SASRec | None = None, student: SASRec | None = None, **options: Any) -> None:
        model = student or built(SASRec(dim=4, max_length=8, dropout=0.0), DATA)
        self.teacher = teacher or teacher_model()
        self.method = LogitKD(**{"weight": 1.0, **options})
        self.knowledge = live(self.teacher, DATA)
        self.objective = Objective([self.method], self.knowledge, base_weight=0.0)
        self.objective.setup(model, DATA, 10, torch.Generator().manual_seed(0), CPU)
        self.batch = next(model.batches(DATA, 1000, torch.Generator().manual_seed(1)))
        state = model.state(self.batch)
        assert isinstance(state, SequenceState)
        self.student, self.model = state, model

    def loss(self) -> Tensor:
        (term,) = self.objective.terms(self.model, self.student, self.batch).values()
        return term.detach()

    def teachers(self) -> SequenceState:
        state = self.teacher.state(self.batch)
        assert isinstance(state, SequenceState)
        return state


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_all_items_at_all_places(direction: str, head: str) -> None:
    case = _Case(teacher_model(head=head), temperature=2.0, direction=direction)
    expected = divergence(case.student.logits(), case.teachers().logits(), 2.0, direction == "reverse").mean()
    torch.testing.assert_close(case.loss(), expected.detach())


def test_lists_hold_the_top_items_and_the_next_one() -> None:
    case = _Case()
    reads = case.knowledge.state(case.batch).sequence_reads(case.student.places)
    ids, targets = listed(case.student, reads, 3, None)
    logits = reads.logits()
    assert case.student.batch is not None
    following_items = case.student.batch.next_items.tolist()
    assert len(following_items) == len(ids) > 0
    for row, following in enumerate(following_items):
        best = logits[row].topk(3).indices.tolist()
        expected = best + ([following] if following >= 0 and following not in best else [-1])
        assert ids[row].tolist() == expected
        present = ids[row] >= 0
        torch.testing.assert_close(targets[row][present], logits[row][ids[row][present]])
        assert bool(torch.isinf(targets[row][~present]).all())
    drawn = torch.tensor([2, 5, 11])
    ids, targets = listed(case.student, reads, 3, drawn)
    assert ids[:, :3].unique(dim=0).tolist() == [[2, 5, 11]]
    present = ids[:, 3] >= 0
    torch.testing.assert_close(targets[present], logits[present].gather(1, ids[present]))


def test_all_items_as_a_list_are_the_whole_softmax() -> None:
    expected = _Case().loss()
    for options in ({"items": "top", "k": 14}, {"items": "sampled", "k": 14}, {"items": "top", "k": 99}):
        torch.testing.assert_close(_Case(**options).loss(), expected)


@pytest.mark.parametrize("items", ["all", "top", "sampled"])
@pytest.mark.parametrize("data", [DATA, ONCE], ids=["again", "once"])
def test_newest_places_read_users(data: Interactions, items: Any) -> None:
    step = Step(LogitKD(items=items, places="newest", k=14, temperature=2.0, mask_seen=True), data=data)
    users = step.batch.users
    assert step.objective.knowledge is not None
    student, teacher = step.student.scores(users), step.objective.knowledge.state(step.batch).scores(users)
    masked = teacher.masked_fill(observed(data, users), -torch.inf) if data is ONCE else teacher
    torch.testing.assert_close(step.loss(), divergence(student, masked, 2.0).mean())
    if items != "top":
        step = Step(LogitKD(items=items, places="newest", k=14, temperature=2.0), data=data)
        torch.testing.assert_close(step.loss(), divergence(student, teacher, 2.0).mean())


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("items", ["all", "top", "sampled"])
def test_what_was_seen_takes_no_part(items: Any, direction: Any) -> None:
    options: dict[str, Any] = {
        "items": items,
        "k": 5,
        "temperature": 2.0,
        "direction": direction,
        "mask_seen": True,
    }
    step = Step(LogitKD(**options), data=ONCE)
    own, other = step.student.logits(), step.teacher.logits()
    places = step.student.places
    seen = torch.zeros(own.shape, dtype=torch.bool)
    for row, (window, slot) in enumerate(zip(places.owners.tolist(), places.slots.tolist(), strict=True)):
        seen[row, places.items[(places.owners == window) & (places.slots <= slot)]] = True
    other = other.masked_fill(seen, -torch.inf)
    method: Any = step.method
    if items != "all":
        kept = torch.zeros(own.shape, dtype=torch.bool)
        if items == "top":
            kept.scatter_(1, other.topk(5, dim=1).indices, True)
        else:
            kept[
                :, torch.randperm(14, generator=torch.Generator().set_state(method.generator.get_state()))[:5]
            ] = True
        following = step.batch.next_items
        kept[following >= 0, following[following >= 0]] = True
        other = other.masked_fill(~kept, -torch.inf)
    torch.testing.assert_close(step.loss(), divergence(own, other, 2.0, direction == "reverse").mean())
    again = Step(LogitKD(**options)), Step(LogitKD(**options | {"mask_seen": False}))
    torch.testing.assert_close(again[0].loss(), again[1].loss())  # where users take items again


def test_lists_have_no_seen_items() -> None:
    step = Step(LogitKD(), data=ONCE)
    ids, targets = listed(step.student, step.teacher, 99, None, ONCE)
    assert torch.equal(ids < 0, torch.isneginf(targets))
    assert int((ids >= 0).sum(1).max()) <= ONCE.num_items - 1
    places, items = step.student.places.up_to(torch.arange(len(ids)))
    assert len(places.unique()) == len(ids)
    assert not (ids[places] == items[:, None]).any()


def observed(data: Interactions, users: Tensor) -> Tensor:
    """Which items the users have taken, (b, I)."""
    pairs = torch.cartesian_prod(users, torch.arange(data.num_items)).unbind(1)
    return data.contains(*pairs).view(len(users), -1)


def test_a_teacher_that_reads_fewer_items() -> None:
    case = _Case(teacher_model(max_length=3))
    near = case.student.places.from_end < 3
    expected = divergence(case.student.logits()[near], case.teachers().logits()).mean()
    torch.testing.assert_close(case.loss(), expected.detach())


def test_the_student_that_is_the_teacher_has_no_loss() -> None:
    same = teacher_model()
    for options in ({}, {"items": "top", "k": 4}, {"items": "sampled", "k": 4}):
        assert float(_Case(same, same, **options).loss()) == pytest.approx(0, abs=1e-6)


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"items": "top", "k": 3},
        {"items": "top", "k": 4},
        {"items": "sampled", "k": 4},
        {"places": "newest"},
        {"temperature": 2.0},
        {"direction": "reverse"},
    ]
    found = [float(_Case(**change).loss()) for change in changes]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("items", ["all", "top", "sampled"])
def test_conforms(items: Any) -> None:
    check_sequence_distiller(lambda: LogitKD(items=items, k=5, temperature=1.5))
    check_sequence_distiller(lambda: LogitKD(items=items, k=5, mask_seen=True))


@pytest.mark.parametrize("items", ["top", "sampled"])
def test_newest_places_conform_for_any_model(items: Any) -> None:
    check_distiller(lambda: LogitKD(items=items, k=5, places="newest"))
    check_distiller(lambda: LogitKD(items=items, k=5, places="newest", mask_seen=True))
    check_sequence_distiller(lambda: LogitKD(items=items, k=5, places="newest"))


def test_any_teacher_serves_the_newest_places() -> None:
    data = tiny_interactions()
    method = LogitKD(items="all", places="newest")
    objective = Objective([method], live(built(BPR(dim=5), data, seed=7), data), base_weight=0.0)
    student = built(BPR(dim=3), data)
    objective.setup(student, data, 1, torch.Generator().manual_seed(0), CPU)
    batch = next(student.batches(data, 9, torch.Generator().manual_seed(0)))
    (term,) = objective.terms(student, student.state(batch), batch).values()
    assert float(term.detach()) > 0


@pytest.mark.parametrize("mask_seen", [False, True])
def test_the_students_scores_are_scaled(mask_seen: bool) -> None:
    student = built(CML(dim=3, score_scale=7.0), INTERACTIONS)
    for items in ("all", "sampled"):
        objective = Objective(
            [LogitKD(places="newest", items=items, k=60, mask_seen=mask_seen)], KNOWLEDGE, base_weight=0.0
        )
        objective.setup(student, INTERACTIONS, 1, torch.Generator().manual_seed(0), CPU)
        batch = batch_of(INTERACTIONS)
        state = student.state(batch)
        (found,) = objective.terms(student, state, batch).values()
        targets = KNOWLEDGE.scores(batch.users)
        if mask_seen:
            targets = targets.masked_fill(observed(INTERACTIONS, batch.users), -torch.inf)
        torch.testing.assert_close(found, divergence(7 * state.scores(batch.users), targets).mean())


@pytest.mark.parametrize("items", ["top", "sampled"])
def test_lists_by_hand(items: Any) -> None:
    teacher: Any = built(SASRec(dim=6, max_length=8, dropout=0.0, head="untied"), DATA, seed=7, scale=5.0)
    with torch.no_grad():
        teacher.output_bias.copy_(torch.linspace(-2, 2, 14))
    step = Step(LogitKD(items=items, k=14, temperature=2.0, direction="reverse"), teacher=teacher)
    own, other = step.student.logits(), step.teacher.logits()
    torch.testing.assert_close(step.loss(), divergence(own, other, 2.0, True).mean())
    few: Any = Step(LogitKD(items=items, k=3, temperature=2.0), teacher=teacher)
    method = few.method
    before = method.generator.get_state()
    found = few.loss()
    method.generator.set_state(before)
    kept = torch.zeros(own.shape, dtype=torch.bool)
    if items == "top":
        kept.scatter_(1, other.topk(3, dim=1).indices, True)
    else:
        kept[:, torch.randperm(14, generator=method.generator)[:3]] = True
    following = few.batch.next_items
    kept[following >= 0, following[following >= 0]] = True
    expected = divergence(own, other.masked_fill(~kept, -torch.inf), 2.0).mean()
    torch.testing.assert_close(found, expected)


def test_the_items_follow_the_generator() -> None:
    def drawn(seed: int) -> list[int]:
        step: Any = Step(LogitKD(items="sampled", k=5), seed=seed)
        return step.method._drawn(step.batch).tolist()

    assert drawn(0) == drawn(0) != drawn(1)
