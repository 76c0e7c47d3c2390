"""CD: golden values, both laws of positions, the conformance kit, and each option."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from method_cases import KNOWLEDGE, loss_of, set_up
from recdistill.distillers.base import Objective
from recdistill.distillers.cd import (
    CD,
    geometric_positions,
    soft_label_loss,
    tournament_logits,
    tournament_positions,
)
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import Lists
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.bpr import BPR
from recdistill.models.ranking import top_items
from recdistill.testing import CPU, built, check_distiller, tiny_interactions

STUDENT = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[0.3, 2.0, 1.0, -1.0], [-0.5, 0.5, 1.5, 1.0]], dtype=torch.float64)
LAW = [0.3114, 0.2516, 0.1933, 0.1363, 0.0808, 0.0266]


@pytest.mark.parametrize(
    ("temperature", "shift", "expected"), [(2.0, 0.0, 2.73218622), (1.0, 0.5, 2.55947217)]
)
def test_golden_value(temperature: float, shift: float, expected: float) -> None:
    items = torch.tensor([[1, 2], [2, 0]])
    labels = torch.sigmoid((TEACHER.gather(1, items) + shift) / temperature)
    loss = soft_label_loss(STUDENT.gather(1, items), labels, items >= 0)
    assert float(loss) * 2 == pytest.approx(expected, abs=1e-7)


def test_padding_changes_nothing() -> None:
    scores, labels = torch.tensor([[1.0, 99.0]]), torch.tensor([[0.3, 0.0]])
    loss = soft_label_loss(scores, labels, torch.tensor([[True, False]]))
    torch.testing.assert_close(loss, torch.nn.functional.softplus(torch.tensor(1.0)) - 0.3)


def test_the_minimum_is_at_the_labels() -> None:
    labels = torch.tensor([[0.2, 0.7, 0.9]], dtype=torch.float64)
    scores = torch.logit(labels).requires_grad_()
    soft_label_loss(scores, labels, labels > 0).backward()
    assert scores.grad is not None
    assert float(scores.grad.abs().max()) < 1e-12


def test_law_of_the_tournament() -> None:
    logits = tournament_logits(torch.tensor([6, 2]), width=8, temperature=6 * 20.0)
    assert torch.softmax(logits, dim=1)[0, :6].tolist() == pytest.approx(LAW, abs=5e-5)
    assert bool(logits[0, 6:].isneginf().all())
    assert bool(logits[1, 2:].isneginf().all())
    tails = torch.tensor([1.0, torch.softmax(-torch.arange(2) / 120.0, dim=0)[1], 0.0])
    assert torch.softmax(logits, dim=1)[1, :2].tolist() == pytest.approx((-(tails**2).diff()).tolist())


def test_single_draws_of_the_tournament_follow_its_law() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = tournament_positions(torch.full((40_000,), 6), 1, 120.0, generator)[:, 0]
    shares = torch.bincount(drawn, minlength=6) / len(drawn)
    assert shares.tolist() == pytest.approx(LAW, abs=0.012)


@pytest.mark.parametrize(("length", "temperature"), [(6, 120.0), (6, 1.0), (400, 1.5)])
def test_draws_without_repeats_have_the_law_of_one_after_the_other(length: int, temperature: float) -> None:
    """The stream of draws and its completion against clocks for every position, on how often each is taken."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.full((30_000,), length)
    drawn = tournament_positions(lengths, 4, temperature, generator)
    assert bool((drawn.sort(dim=1).values.diff(dim=1) > 0).all())
    logits = tournament_logits(lengths, length, temperature)
    clocks = -torch.log1p(-torch.rand(logits.shape, dtype=torch.float64, generator=generator))
    expected = (logits - clocks.log()).topk(4, dim=1).indices
    shares = [torch.bincount(taken.flatten(), minlength=length) / 30_000 for taken in (drawn, expected)]
    torch.testing.assert_close(*shares, atol=0.015, rtol=0)


def test_short_lists_give_all_their_positions() -> None:
    drawn = tournament_positions(torch.tensor([0, 1, 3, 50]), 3, 20.0, torch.Generator().manual_seed(0))
    assert drawn[0].tolist() == [-1, -1, -1]
    assert sorted(drawn[1].tolist()) == [-1, -1, 0]
    assert sorted(drawn[2].tolist()) == [0, 1, 2]
    assert int(drawn[3].min()) >= 0


@pytest.mark.parametrize("temperature", [1e-6, 0.5, 1e12])
def test_geometric_positions_stay_in_the_list(temperature: float) -> None:
    uniform = torch.linspace(0, 1 - 1e-12, 1001, dtype=torch.float64)
    drawn = geometric_positions(torch.tensor(10), temperature, uniform)
    assert int(drawn.min()) == 0
    assert int(drawn.max()) == (0 if temperature < 0.1 else 9)
    if temperature > 1e6:
        assert bool((torch.bincount(drawn) > 95).all())


@pytest.mark.parametrize("guide", ["student", "teacher", "random"])
@pytest.mark.parametrize("law", ["tournament", "exponential"])
def test_conforms(guide: Any, law: Any) -> None:
    check_distiller(lambda: CD(guide=guide, law=law, num_sampled=3, depth=6, temperature=3.0))


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 2.0},
        {"guide": "teacher"},
        {"guide": "random"},
        {"num_sampled": 3},
        {"depth": 4},
        {"law": "exponential"},
        {"temperature": 0.05},
        {"label_temperature": 1.0},
        {"label_shift": 1.0},
    ],
)
def test_every_option_changes_the_loss(change: dict[str, Any]) -> None:
    start: dict[str, Any] = {"depth": 20}
    assert loss_of(set_up(CD(**start))) != loss_of(set_up(CD(**{**start, **change})))


def test_resample_every() -> None:
    first, second, third = (
        set_up(CD(depth=20, resample_every=2), epochs=epochs).methods()[0][1].get_buffer("drawn")
        for epochs in (1, 2, 3)
    )
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("guide", ["student", "teacher"])
@pytest.mark.parametrize("law", ["tournament", "exponential"])
def test_items_are_distinct_and_from_the_guides_list(guide: Any, law: Any) -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    method = CD(guide=guide, law=law, num_sampled=5, depth=8)
    set_up(method)
    models = {
        "student": built(BPR(dim=3), interactions),
        "teacher": built(BPR(dim=5), interactions, seed=9),
    }
    listed = top_items(models[guide].frozen(), torch.arange(40), 8, [interactions])[0]
    drawn = method.get_buffer("drawn").long()
    present = drawn >= 0
    assert bool((drawn[:, :, None] == listed[:, None, :]).any(dim=2)[present].all())
    ascending = drawn.sort(dim=1).values
    assert not bool(((ascending.diff(dim=1) == 0) & (ascending[:, 1:] >= 0)).any())
    labels = torch.sigmoid(models["teacher"].frozen().scores(torch.arange(40), drawn) / 2)
    torch.testing.assert_close(method.get_buffer("labels")[present], labels[present])


def test_a_teacher_of_lists_alone_can_guide_but_not_score_others() -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    teacher = built(BPR(dim=5), interactions, seed=9)
    lists = Lists(*top_items(teacher.frozen(), torch.arange(40), 20, [interactions]))
    stored = TeacherKnowledge(interactions, None, {"top_items": lists})
    set_up(CD(guide="teacher", depth=20), stored)
    for guide in ("student", "random"):
        with pytest.raises(MissingKnowledgeError, match="scores"):
            set_up(CD(guide=guide, depth=20), stored)


def test_the_shift_is_divided_too() -> None:
    method = CD(guide="teacher", depth=8, num_sampled=3, label_temperature=4.0, label_shift=1.5)
    set_up(method)
    ids = method.get_buffer("drawn").long()
    scores = KNOWLEDGE.scores(torch.arange(40), ids)
    present = ids >= 0
    torch.testing.assert_close(
        method.get_buffer("labels")[present], torch.sigmoid((scores + 1.5) / 4)[present]
    )


def test_the_temperature_of_the_tournament_is_in_multiples_of_the_depth() -> None:
    def mean_place(temperature: float) -> float:
        found: list[Tensor] = []
        method = CD(guide="teacher", depth=20, num_sampled=1, temperature=temperature)
        set_up(method, epochs=1)
        for seed in range(30):
            places = method._positions(torch.full((40,), 20), torch.Generator().manual_seed(seed))
            found.append(places.double())
        return float(torch.cat(found).mean())

    # F_k² − F_{k+1}² with q nearly even over 20: places fall linearly, mean about 6.2
    assert mean_place(20.0) == pytest.approx(6.2, abs=0.5)
    assert mean_place(1.0) == pytest.approx(4.6, abs=0.5)


def test_a_user_with_few_items_left_gets_all_of_them() -> None:
    pairs = tiny_interactions()  # user 1 has three items left
    method = CD(depth=10, num_sampled=3)
    student = built(BPR(dim=3), pairs)
    objective = Objective([method], live(built(BPR(dim=5), pairs, seed=9), pairs), 0.0)
    objective.setup(student, pairs, 10, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    assert method.get_buffer("drawn")[1].sort().values.tolist() == [0, 1, 13]
