"""What every distillation method must do, checked without knowing its equation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Distiller, Objective
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import KINDS
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.base import Batch, Recommender
from recdistill.models.bpr import BPR
from recdistill.models.sasrec import SASRec
from recdistill.testing.tiny import (
    CPU,
    assert_finite_scalar,
    batch_of,
    built,
    largest_tensor,
    peak_memory,
    reached,
    sparse_interactions,
    tiny_interactions,
    tiny_sequences,
)

_STEP = 1e-6  # of the differences that gradients are held against


class _Run:
    """One method, set up on a student and a teacher."""

    def __init__(
        self,
        method: Distiller,
        interactions: Interactions,
        student: Recommender | None = None,
        kinds: frozenset[str] | None = None,
        teacher: Callable[[], Recommender] | None = None,
        double: bool = False,
        noise_seed: int = 3,
    ) -> None:
        torch.manual_seed(noise_seed)  # models draw noise and dropout by it, methods nothing
        self.interactions, self.method = interactions, method
        self.student = student or built(BPR(dim=3), interactions)
        teacher = built(teacher() if teacher else BPR(dim=5), interactions, seed=7)
        self.teacher = teacher
        if double:
            self.student.double()
            teacher.double()
        self.knowledge: TeacherKnowledge = live(teacher, interactions)
        self.generator = torch.Generator().manual_seed(3)
        reads = self.knowledge.restrict(method.needs if kinds is None else kinds)
        self.objective = Objective([method], reads, base_weight=0.0)
        self.objective.setup(self.student, interactions, 10, self.generator, CPU)
        self.objective.start_epoch(0)
        if double:
            method.double()

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
        stops_gradients: the method holds what it computes of the student fixed in parts of its equation, so that the
            student's gradient is not that of the loss; the gradients of the method's own parameters alone are
            checked.
    """
    for interactions in (tiny_interactions(), tiny_interactions(30, 40, seed=5)):

        def new_student(interactions: Interactions = interactions) -> Recommender:
            return built(student() if student else BPR(dim=3), interactions)

        _finite_with_gradients(make, interactions, new_student, teacher)
        _same_seed_same_loss(make, interactions, new_student, noisy=student is not None)
        _batch_of_one(make, interactions, new_student)
    _needs_are_true(make, tiny_interactions())
    interactions = tiny_interactions()
    own = built(student() if student else BPR(dim=3), interactions, scale=5.0)
    run = _Run(make(), interactions, own, teacher=teacher, double=True)
    of = ("method.",) if stops_gradients else ("student.", "method.")
    _gradients_are_exact(run, batch_of(interactions, rows=6), of, singly=student is None)
    _never_users_by_items(make, student, teacher)
    if student is None and teacher is None:
        _never_users_by_items_in_parts(make)


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

    def run(kinds: frozenset[str] | None = None, double: bool = False, noise_seed: int = 3) -> _Run:
        own = student() if student else SASRec(dim=4, max_length=8, dropout=0.0)
        other = teacher or (lambda: SASRec(dim=6, blocks=3, max_length=8))
        own = built(own, interactions, scale=5.0)
        return _Run(make(), interactions, own, kinds, teacher=other, double=double, noise_seed=noise_seed)

    def losses(size: int, noise_seed: int = 3) -> list[Tensor]:
        made = run(noise_seed=noise_seed)
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
        first, second = losses(size), losses(size, 3 if student else 4)
        assert first == second, f"the same seed gives {first} and then {second}"
    made = run(double=True)
    _gradients_are_exact(
        made, next(made.student.batches(interactions, 1000, torch.Generator().manual_seed(0))), rtol=3e-3
    )
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
    make: Callable[[], Distiller],
    interactions: Interactions,
    student: Callable[[], Recommender],
    *,
    noisy: bool,
) -> None:
    """Losses repeat; beside a student without noise of its own, whatever torch's own generator holds."""

    def losses(noise_seed: int) -> list[float]:
        run = _Run(make(), interactions, student(), noise_seed=noise_seed)
        found: list[float] = []
        for epoch in range(3):
            run.objective.start_epoch(epoch)
            found.append(float(run.loss(batch_of(interactions)).detach()))
        return found

    first, second = losses(3), losses(3 if noisy else 4)
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


def _gradients_are_exact(
    run: _Run,
    batch: Batch,
    of: tuple[str, ...] = ("student.", "method."),
    *,
    singly: bool = False,
    rtol: float = 1e-3,
) -> None:
    """In float64: each parameter's gradient along a random direction is the loss's central difference along it.

    Args:
        run: in float64.
        batch: of its student.
        of: whose parameters, by the beginnings of their names.
        singly: the student's numbers are changed one by one instead.
        rtol: how much the two may differ; iterations that end at a tolerance want more.
    """
    networks = torch.nn.ModuleDict({"student": run.student, "method": run.method})
    before = run.generator.get_state()

    def loss() -> Tensor:
        torch.manual_seed(0)  # noise and dropout of models
        run.generator.set_state(before)
        return run.loss(batch)

    generator = torch.Generator().manual_seed(1)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        loss()  # some models project their vectors into a ball when they are read
        for parameter in networks.parameters():  # off its edge, and off the edge at 0 of what is rectified
            parameter.mul_(0.9).add_(0.02 * noise(parameter))
    loss().backward()
    with torch.no_grad():
        for name, parameter in networks.named_parameters():
            if not name.startswith(of):
                continue
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            start, directions = parameter.clone(), noise(parameter)[None]
            if singly and name.startswith("student."):
                directions = torch.eye(parameter.numel(), dtype=torch.float64).view(-1, *parameter.shape)
            for direction in directions:
                parameter.copy_(start + _STEP * direction)
                above = loss()
                parameter.copy_(start - _STEP * direction)
                torch.testing.assert_close(
                    (above - loss()) / (2 * _STEP),
                    (gradient * direction).sum(),
                    rtol=rtol,
                    atol=1e-6,
                    msg=lambda found, name=name: f"the gradient of {name} is not that of the loss: {found}",
                )
            parameter.copy_(start)


def _never_users_by_items(
    make: Callable[[], Distiller],
    student: Callable[[], Recommender] | None,
    teacher: Callable[[], Recommender] | None,
) -> None:
    """Three epochs' starts and a step, with what models hold by themselves (weights of items × items) left out."""
    users, items = 6000, 6000
    interactions = sparse_interactions(users, items)
    own = built(student(), interactions) if student else None
    with largest_tensor() as watch:
        _three_epochs(_Run(make(), interactions, own, teacher=teacher))
    assert watch.elements < users * items // 2, (
        f"{watch.operation} makes {watch.elements:,} elements for {users:,} users x {items:,} items"
    )


def _never_users_by_items_in_parts(make: Callable[[], Distiller]) -> None:
    """The same of the whole process: in arrays of other libraries, in other threads, in many small parts."""
    users, items = 20_000, 20_000  # a table of single bytes is more than methods and compilers take
    interactions = sparse_interactions(users, items)
    with peak_memory() as peak:
        _three_epochs(_Run(make(), interactions))
    assert peak.bytes is None or peak.bytes < users * items, (
        f"memory grows by {peak.bytes:,} bytes for {users:,} users x {items:,} items"
    )


def _three_epochs(run: _Run) -> None:
    """Three epochs' starts and a step."""
    for epoch in range(3):
        run.objective.start_epoch(epoch)
    run.loss(batch_of(run.interactions, rows=64)).backward()
