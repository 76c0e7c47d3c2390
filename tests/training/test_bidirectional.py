"""Bidirectional distillation: golden values, draws, gradients, each option, resume bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Objective
from recdistill.errors import OptionError
from recdistill.models.base import EmbeddingState, Recommender
from recdistill.models.bpr import BPR
from recdistill.models.cml import CML
from recdistill.models.itemvae import ItemVAE
from recdistill.models.lightgcn import LightGCN
from recdistill.models.multvae import MultVAE
from recdistill.models.neumf import NeuMF
from recdistill.models.popularity import Popularity
from recdistill.models.simplex import SimpleX
from recdistill.models.xsimgcl import XSimGCL
from recdistill.testing import CPU, batch_of, built, largest_tensor, tiny_interactions
from recdistill.training.bidirectional import (
    BD,
    Pair,
    draw,
    imitation_loss,
    ranks,
    student_weights,
    teacher_weights,
)
from recdistill.training.loop import train
from recdistill.training.options import TrainingOptions

STUDENT = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[0.3, 2.0, 1.0, -1.0], [-0.5, 0.5, 1.5, 1.0]], dtype=torch.float64)
SEEN = (torch.tensor([0, 1]), torch.tensor([0, 3]))
NOTHING = (torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ranks_of(scores: Tensor, seen: tuple[Tensor, Tensor] = SEEN) -> Tensor:
    """Ranks of a table of scores, as of a model whose users are unit vectors."""
    return ranks(EmbeddingState(torch.eye(len(scores)), scores.T.float()), torch.arange(len(scores)), seen)


def set_up(method: BD, teacher: Recommender | None = None, student: Recommender | None = None) -> Pair:
    interactions = tiny_interactions()
    pair = Pair(
        built(teacher or BPR(dim=5), interactions, seed=7), built(student or BPR(dim=3), interactions)
    )
    method.setup(pair, interactions, 10, torch.Generator().manual_seed(3), CPU)
    return pair


def test_golden_ranks_and_weights() -> None:
    student, teacher = ranks_of(STUDENT), ranks_of(TEACHER)
    assert student[0, 1:].tolist() == [1, 3, 2]
    assert teacher[0, 1:].tolist() == [1, 2, 3]
    gap = (student - teacher)[0, 1:]  # [0, 1, -1]
    assert student_weights(gap, 0.5).tolist() == pytest.approx([0, 0.46211716, 0], abs=1e-7)
    weights = teacher_weights(gap[None].double(), 0.1)[0]
    assert (weights / weights[0]).tolist() == pytest.approx([1, 0.90483742, 1.10517092], abs=1e-7)


def test_golden_weights_of_the_released_code() -> None:
    gap = (ranks_of(STUDENT, NOTHING) - ranks_of(TEACHER, NOTHING))[0]
    assert student_weights(-gap, 0.5).tolist() == pytest.approx([0.76159416, 0, 0, 0.46211716], abs=1e-7)


def test_golden_losses() -> None:
    # tau = 5; the student's draws are items 2 and 1, the teacher's 3 and 0; sums over the two rows
    rows, both = torch.arange(2), torch.ones(2, dtype=torch.bool)
    for_student, for_teacher = torch.tensor([2, 1]), torch.tensor([3, 0])
    to_student = imitation_loss(STUDENT[rows, for_student], TEACHER[rows, for_student] / 5, both)
    to_teacher = imitation_loss(TEACHER[rows, for_teacher], STUDENT[rows, for_teacher] / 5, both)
    assert 2 * float(to_student) == pytest.approx(1.58723486, abs=1e-7)
    assert 2 * float(to_teacher) == pytest.approx(1.54233801, abs=1e-7)


def test_equal_scores_rank_by_index_and_signs_do_not_matter() -> None:
    scores = torch.tensor([[0.0, -0.0, 1.0, -2.0, 0.0, -1e-30]])
    assert ranks_of(scores, NOTHING).tolist() == [[2, 3, 1, 6, 4, 5]]


def test_rows_without_a_draw_count_as_zero_and_labels_get_no_gradient() -> None:
    scores = torch.tensor([0.3, -0.4], requires_grad=True)
    labels = torch.tensor([0.5, 0.1], requires_grad=True)
    one = imitation_loss(scores, labels, torch.tensor([True, False]))
    assert 2 * float(one.detach()) == pytest.approx(
        float(imitation_loss(scores[:1], labels[:1], torch.tensor([True])).detach())
    )
    one.backward()
    assert labels.grad is None
    assert scores.grad is not None
    assert scores.grad[1] == 0


def test_equal_logits_are_the_minimum() -> None:
    logits = torch.tensor([0.5, -1.5, 3.0], dtype=torch.float64)
    scores = logits.clone().requires_grad_()
    imitation_loss(scores, logits, torch.ones(3, dtype=torch.bool)).backward()
    assert scores.grad is not None
    assert torch.allclose(scores.grad, torch.zeros(3, dtype=torch.float64))


def test_draws_follow_the_weights_exactly() -> None:
    weights = torch.tensor([[0.0, 3.0, 0.0, 1.0, 4.0, 0.0], [0.0] * 6, [0.0, 0.0, 0.0, 0.0, 0.0, 2.0]])
    found = draw(weights, 40_000, torch.Generator().manual_seed(0))
    share = torch.bincount(found[0], minlength=6) / 40_000
    assert share.tolist() == pytest.approx([0, 0.375, 0, 0.125, 0.5, 0], abs=0.01)
    assert bool((found[1] == -1).all())
    assert bool((found[2] == 5).all())


def test_no_slope_overflows() -> None:
    weights = teacher_weights(torch.tensor([[-90_000, 0, 90_000]]), 1.0)
    assert weights.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("direction", ["intended", "code"])
def test_each_model_is_taught_what_it_ranks_too_low(direction: str) -> None:
    method = BD(direction=direction, student_slope=0.2, teacher_slope=5.0, num_draws=30)
    pair = set_up(method)
    method.start_epoch(0)
    interactions = tiny_interactions()
    users = torch.arange(interactions.num_users)
    owner = torch.repeat_interleave(users, interactions.indptr.diff())
    seen = (owner, interactions.items.long())
    with torch.no_grad():
        gap = ranks(pair.student.frozen(), users, seen) - ranks(pair.teacher.frozen(), users, seen)
    drawn = method.get_buffer("drawn").long()
    present = drawn >= 0
    everyone = users[:, None].expand_as(drawn[0])
    for side in range(2):
        taken = present[side]
        assert not bool(interactions.contains(everyone[taken], drawn[side][taken]).any())
    sign = 1 if direction == "intended" else -1
    for_student = sign * gap.gather(1, drawn[0].clamp(min=0))[present[0]]
    assert bool((for_student > 0).all())
    assert bool(present[1].all())  # every user has an item that the teacher may learn
    for_teacher = sign * gap.gather(1, drawn[1])
    assert float(for_teacher.double().mean()) < 0


def test_the_loss_moves_both_models_and_only_the_learner_of_each_term() -> None:
    method = BD(num_draws=4)
    pair = set_up(method)
    method.start_epoch(0)
    batch = batch_of(tiny_interactions())
    for term, learner, other in (
        ("to_student", pair.student, pair.teacher),
        ("to_teacher", pair.teacher, pair.student),
    ):
        pair.zero_grad()
        method.terms(pair, pair.state(batch), batch)[term].backward()
        assert any(p.grad is not None and p.grad.to_dense().abs().sum() > 0 for p in learner.parameters())
        assert all(p.grad is None or p.grad.to_dense().abs().sum() == 0 for p in other.parameters())


def test_a_batch_of_one_row_works() -> None:
    method = BD(num_draws=4)
    pair = set_up(method)
    method.start_epoch(0)
    for row in range(5):
        batch = batch_of(tiny_interactions(), rows=1, seed=row)
        terms = method.terms(pair, pair.state(batch), batch)
        assert all(bool(torch.isfinite(value)) for value in terms.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"student_weight": 1.0},
        {"teacher_weight": 1.0},
        {"teacher_temperature": 2.0},
        {"student_temperature": 2.0},
        {"student_slope": 1.0},
        {"teacher_slope": 1.0},
        {"refresh": 2},
        {"num_draws": 7},
        {"direction": "code"},
    ],
    ids=str,
)
def test_every_option_changes_something(changes: dict[str, Any]) -> None:
    def losses(**options: Any) -> list[float]:
        defaults: dict[str, Any] = {"refresh": 1, "student_slope": 0.1, "teacher_slope": 0.1, "num_draws": 20}
        method = BD(**{**defaults, **options})
        pair = set_up(method)
        found: list[float] = []
        for epoch in range(3):
            method.start_epoch(epoch)
            batch = batch_of(tiny_interactions(), seed=epoch)
            found += [float(v.detach()) for v in method.terms(pair, pair.state(batch), batch).values()]
        return found

    assert losses() == losses()
    assert losses() != losses(**changes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CML(dim=3),
        lambda: LightGCN(dim=3),
        lambda: NeuMF(dim=3),
        lambda: MultVAE(dim=3),
        lambda: ItemVAE(dim=3),
        lambda: SimpleX(dim=3, num_negatives=4),
        lambda: XSimGCL(dim=3),
    ],
    ids=["cml", "lightgcn", "neumf", "multvae", "itemvae", "simplex", "xsimgcl"],
)
def test_every_model_learns_on_either_side(make: Any) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    options = TrainingOptions(epochs=2, batch_size=32)
    for pair in (Pair(make(), BPR(dim=3)), Pair(BPR(dim=5), make())):
        pair.build(interactions, torch.Generator().manual_seed(0))
        before = {name: value.clone() for name, value in pair.state_dict().items()}
        train(pair, BD(refresh=1, num_draws=4), interactions, options)
        moved = {
            name.split(".")[0] for name, value in pair.named_parameters() if (value != before[name]).any()
        }
        assert moved == {"teacher", "student"}


def test_a_warm_model_is_not_built_again() -> None:
    interactions = tiny_interactions()
    teacher = built(BPR(dim=5), interactions, seed=7)
    before = teacher.parameter("user_table").clone()
    pair = Pair(teacher, BPR(dim=3))
    pair.build(interactions, torch.Generator().manual_seed(0))
    assert torch.equal(teacher.parameter("user_table"), before)
    assert pair.student.num_users == interactions.num_users


def test_what_cannot_train_is_refused() -> None:
    with pytest.raises(OptionError, match="popularity is fitted at once"):
        Pair(Popularity(), BPR(dim=3))
    with pytest.raises(OptionError, match="trains a Pair; found BPR"):
        train(BPR(dim=3), BD(), tiny_interactions(), TrainingOptions(epochs=1))


def test_one_optimiser_for_both_is_one_for_each() -> None:
    interactions = tiny_interactions(40, 60, seed=1)
    options = TrainingOptions(epochs=3, batch_size=64, learning_rate=0.02)
    pair = Pair(built(BPR(dim=5), interactions, seed=7), built(BPR(dim=3), interactions))
    train(pair, BD(student_weight=0, teacher_weight=0, num_draws=3), interactions, options)
    for dim, seed, together in ((5, 7, pair.teacher), (3, 1, pair.student)):
        alone = built(BPR(dim=dim), interactions, seed=seed)
        train(alone, Objective(), interactions, options)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(value, together.state_dict()[name])


class _KilledError(Exception):
    """Stands for the process being killed."""


class _Killing(BD):
    """Ends the process, so to say, at its n-th step."""

    steps_left = 10**9

    def after_step(self) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            raise _KilledError


@pytest.mark.parametrize("steps", [3, 8, 13])
def test_a_resumed_run_gives_the_same_bits(steps: int, tmp_path: Path) -> None:
    interactions = tiny_interactions(40, 60, seed=1)
    options = TrainingOptions(epochs=4, batch_size=128, learning_rate=0.02, checkpoint_seconds=0)

    def run(work: Path, steps: int = 10**9, resume: bool = False) -> Pair:
        pair, method = Pair(BPR(dim=6), SimpleX(dim=3, num_negatives=3)), _Killing(refresh=2, num_draws=5)
        method.steps_left = steps
        train(pair, method, interactions, options, work=work, resume=resume, seed=5)
        return pair

    whole = run(tmp_path / "whole")
    with pytest.raises(_KilledError):
        run(tmp_path / "cut", steps)
    resumed = run(tmp_path / "cut", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_nothing_of_users_by_items_is_built() -> None:
    users, items = 6000, 6000
    generator = torch.Generator().manual_seed(0)
    pairs = (
        torch.randint(0, users, (20_000,), generator=generator),
        torch.randint(0, items, (20_000,), generator=generator),
    )
    interactions = Interactions.from_events(*pairs, users, items)
    pair = Pair(built(BPR(dim=4), interactions), built(BPR(dim=2), interactions))
    method = BD(num_draws=10)
    with largest_tensor() as watch:
        method.setup(pair, interactions, 1, generator, CPU)
        method.start_epoch(0)
    assert watch.elements < users * items // 20
