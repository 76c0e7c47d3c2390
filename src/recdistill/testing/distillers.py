"""What every distillation method must do, checked without knowing its equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Distiller, Objective
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import KINDS
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.base import Batch, EmbeddingState, Recommender
from recdistill.models.bpr import BPR
from recdistill.models.sasrec import SASRec
from recdistill.testing.tiny import (
    CPU,
    assert_finite_scalar,
    batch_of,
    built,
    largest_tensor,
    reached,
    sparse_interactions,
    tiny_interactions,
    tiny_sequences,
)


class _Run:
    """One method, set up on a student and a teacher."""

    def __init__(
        self,
        method: Distiller,
        interactions: Interactions,
        student: Recommender | None = None,
        kinds: frozenset[str] | None = None,
        seed: int = 3,
        teacher: Callable[[], Recommender] | None = None,
    ) -> None:
        torch.manual_seed(seed)  # noise and dropout of models
        self.interactions, self.method = interactions, method
        self.student = student or built(BPR(dim=3), interactions)
        teacher = built(teacher() if teacher else BPR(dim=5), interactions, seed=7)
        self.teacher = teacher
        self.knowledge: TeacherKnowledge = live(teacher, interactions)
        self.generator = torch.Generator().manual_seed(seed)
        reads = self.knowledge.restrict(method.needs if kinds is None else kinds)
        self.objective = Objective([method], reads, base_weight=0.0)
        self.objective.setup(self.student, interactions, 10, self.generator, CPU)
        self.objective.start_epoch(0)

    def loss(self, batch: Batch) -> Tensor:
        (term,) = self.objective.terms(self.student, self.student.state(batch), batch).values()
        return term


def check_distiller(
    make: Callable[[], Distiller],
    student: Callable[[], Recommender] | None = None,
    *,
    teacher: Callable[[], Recommender] | None = None,
    stops_gradients: bool = False,
) -> None:
    """Every promise of a distillation method that can be checked without knowing its equation.

    Args:
        make: builds the method with a weight above 0; lists of 14 items and 9 users must be enough for it.
        student: builds the student; a small matrix factorisation by default.
        teacher: builds the teacher; the same, of another dim, by default.
        stops_gradients: the method holds parts of its equation fixed on purpose, so that its gradient is not
            that of its loss; that check is left out.
    """
    for interactions in (tiny_interactions(), tiny_interactions(30, 40, seed=5)):

        def new_student(interactions: Interactions = interactions) -> Recommender:
            return built(student() if student else BPR(dim=3), interactions)

        _finite_with_gradients(make, interactions, new_student, teacher)
        _same_seed_same_loss(make, interactions, new_student)
        _batch_of_one(make, interactions, new_student)
    _needs_are_true(make, tiny_interactions())
    if not stops_gradients:
        _gradients_are_exact(make, tiny_interactions())
    _never_users_by_items(make)


def check_sequence_distiller(
    make: Callable[[], Distiller],
    student: Callable[[], Recommender] | None = None,
    *,
    teacher: Callable[[], Recommender] | None = None,
) -> None:
    """What :func:`check_distiller` checks, for a method that reads sequence models item by item.

    Args:
        make: builds the method with a weight above 0.
        student: builds the student, which reads at most 8 items; two blocks of attention by default.
        teacher: builds the teacher; three blocks of another dim by default.
    """
    interactions = tiny_sequences()

    def run(kinds: frozenset[str] | None = None) -> _Run:
        own = student() if student else SASRec(dim=4, max_length=8, dropout=0.0)
        other = teacher or (lambda: SASRec(dim=6, blocks=3, max_length=8))
        return _Run(make(), interactions, built(own, interactions, scale=5.0), kinds, teacher=other)

    def losses(size: int) -> list[Tensor]:
        made = run()
        found: list[Tensor] = []
        for epoch in range(3):
            made.objective.start_epoch(epoch)
            for batch in made.student.batches(interactions, size, torch.Generator().manual_seed(epoch)):
                loss = made.loss(batch)
                assert_finite_scalar(loss)
                made.objective.after_step()
                found.append(loss)
        found[0].backward()
        _assert_gradients(made)
        return [loss.detach() for loss in found]

    for size in (1000, 7, 1):
        first, second = losses(size), losses(size)
        assert first == second, f"the same seed gives {first} and then {second}"
    for dropped in sorted(make().needs):
        try:
            made = run(make().needs - {dropped})
            made.loss(next(made.student.batches(interactions, 1000, torch.Generator())))
        except MissingKnowledgeError:
            continue
        raise AssertionError(f"needs names '{dropped}', but it is never read")


def _finite_with_gradients(
    make: Callable[[], Distiller],
    interactions: Interactions,
    student: Callable[[], Recommender],
    teacher: Callable[[], Recommender] | None,
) -> None:
    run = _Run(make(), interactions, student(), teacher=teacher)
    loss = torch.zeros(())
    for epoch in range(3):
        run.objective.start_epoch(epoch)
        loss = run.loss(batch_of(interactions))
        assert_finite_scalar(loss, f" in epoch {epoch}")
    loss.backward()
    run.objective.after_step()
    _assert_gradients(run)


def _assert_gradients(run: _Run) -> None:
    """After a backward pass: gradients reach student and method, never the teacher, and are finite."""
    assert reached(run.student.parameters()), "no gradient reaches the student"
    own = list(run.method.parameters())
    assert not own or reached(own), "no gradient reaches the method's own parameters"
    assert all(p.grad is None for p in run.teacher.parameters()), "a gradient reaches the teacher"
    for parameter in [*run.student.parameters(), *own]:
        if parameter.grad is not None:
            assert bool(torch.isfinite(parameter.grad.to_dense()).all()), "a gradient is not finite"


def _same_seed_same_loss(
    make: Callable[[], Distiller], interactions: Interactions, student: Callable[[], Recommender]
) -> None:
    def losses() -> list[float]:
        run = _Run(make(), interactions, student())
        found: list[float] = []
        for epoch in range(3):
            run.objective.start_epoch(epoch)
            found.append(float(run.loss(batch_of(interactions)).detach()))
        return found

    first, second = losses(), losses()
    assert first == second, f"the same seed gives {first} and then {second}"


def _batch_of_one(
    make: Callable[[], Distiller], interactions: Interactions, student: Callable[[], Recommender]
) -> None:
    run = _Run(make(), interactions, student())
    for row in range(min(5, interactions.num_pairs)):
        loss = run.loss(batch_of(interactions, rows=1, seed=row))
        assert_finite_scalar(loss, " of a batch of one row")


def _needs_are_true(make: Callable[[], Distiller], interactions: Interactions) -> None:
    method = make()
    unknown = method.needs - set(KINDS)
    assert not unknown, f"needs names {sorted(unknown)}; kinds are {KINDS}"
    for dropped in sorted(method.needs):
        try:
            run = _Run(make(), interactions, kinds=method.needs - {dropped})
            run.objective.start_epoch(1)
            run.loss(batch_of(interactions))
        except MissingKnowledgeError:
            continue
        raise AssertionError(f"needs names '{dropped}', but it is never read")


def _gradients_are_exact(make: Callable[[], Distiller], interactions: Interactions) -> None:
    """Float64 gradcheck of the loss as a function of the student's two tables."""
    run = _Run(make(), interactions)
    run.method.double()
    batch = batch_of(interactions, rows=6)
    teacher: Any = _Double(run.knowledge)
    before = run.generator.get_state()
    start = [run.student.parameter(f"{side}_table").detach().double() for side in ("user", "item")]

    def loss(users: Tensor, items: Tensor) -> Tensor:
        run.generator.set_state(before)
        return run.method.loss(EmbeddingState(users * 1, items * 1), teacher, batch)

    tables = [(0.1 * table).requires_grad_() for table in start]
    assert torch.autograd.gradcheck(loss, tuple(tables)), "the gradient is not that of the loss"


class _Double:
    """Knowledge whose vectors are float64."""

    def __init__(self, knowledge: TeacherKnowledge) -> None:
        self._knowledge = knowledge

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._knowledge, name)
        if name not in ("user_embeddings", "item_embeddings", "scores"):
            return found
        return lambda *arguments: found(*arguments).double()


def _never_users_by_items(make: Callable[[], Distiller]) -> None:
    users, items = 6000, 6000
    interactions = sparse_interactions(users, items)
    with largest_tensor() as watch:
        run = _Run(make(), interactions)
        run.loss(batch_of(interactions, rows=64)).backward()
    assert watch.elements < users * items // 2, (
        f"{watch.operation} makes {watch.elements:,} elements for {users:,} users x {items:,} items"
    )
