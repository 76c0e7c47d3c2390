"""RCE-KD: golden values, the conformance kit, and each option."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from method_cases import INTERACTIONS, KNOWLEDGE, STUDENT, loss_of, set_up
from recdistill import ops
from recdistill.distillers.rce_kd import (
    RCEKD,
    correction_sets,
    overlap_weights,
    rejuvenated_cross_entropy,
    second_share,
)
from recdistill.knowledge.teacher import live
from recdistill.models.ranking import top_items
from recdistill.testing import batch_of, check_distiller

S = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
T = torch.tensor([[0.3, 2.0, 1.0, -1.0], [-0.5, 0.5, 1.5, 1.0]], dtype=torch.float64)
TEACHER_TOP = torch.tensor([[1, 2], [2, 3]])
STUDENT_TOP = torch.tensor([[0, 1, 3], [2, 3, 0]])
SAMPLED = torch.tensor([[1, 3], [2, 0]])


def test_golden_sets_and_weights() -> None:
    # c = [1, 1, 0] and [2, 1, 0] at T = 10, here relative to each row's first
    weights = overlap_weights(STUDENT_TOP, TEACHER_TOP, 10.0)
    expected = torch.tensor([[1.22140276, 1.22140276, 1.10517092]])
    torch.testing.assert_close(weights[:1], expected / expected[0, 0])
    torch.testing.assert_close(weights[1], torch.tensor([0.0, -0.1, -0.2]).exp())
    own, others = correction_sets(TEACHER_TOP, STUDENT_TOP, SAMPLED)
    assert own.tolist() == [[0, 1], [2, 3]]
    assert others.tolist() == [[1, 3, -1, 2], [2, 0, -1, -1]]
    torch.testing.assert_close(
        second_share(TEACHER_TOP, SAMPLED, 1.0), torch.full((2,), 0.60653066), atol=1e-7, rtol=0
    )


def losses(temperature: float, decay: float) -> Tensor:
    own, others = correction_sets(TEACHER_TOP, STUDENT_TOP, SAMPLED)
    items = torch.cat([own, others], dim=1)
    scores = (T.gather(1, items.clamp(min=0)) / temperature).masked_fill(items < 0, -math.inf)
    labels = torch.cat([torch.softmax(part, dim=1) for part in scores.split([2, 4], dim=1)], dim=1)
    logits = S.gather(1, items.clamp(min=0)) / temperature
    gamma = second_share(TEACHER_TOP, SAMPLED, decay).double()
    return rejuvenated_cross_entropy(logits, labels, items >= 0, gamma, k=2)


def test_golden_values() -> None:
    assert losses(1.0, 1.0).tolist() == pytest.approx([0.93352811, 0.57000604], abs=1e-7)
    assert float(losses(1.0, 1.0).sum()) == pytest.approx(1.50353415, abs=1e-7)
    assert float(losses(0.5, 2.0).sum()) == pytest.approx(1.52336931, abs=1e-7)


def test_the_counts_saturate_and_padding_is_never_drawn() -> None:
    student = torch.arange(70)[None].clone()
    student[0, 60:] = -1
    weights = overlap_weights(student, torch.arange(60)[None], 1.0)
    assert weights[0, :11].tolist() == [1.0] * 11  # 60 to 50 items at or below
    assert float(weights[0, 11]) == pytest.approx(math.exp(-1))
    assert weights[0, 60:].tolist() == [0.0] * 10
    assert bool((overlap_weights(student, torch.arange(60)[None], 1e-3)[0, :60] > 0).all())


@pytest.mark.parametrize("sampling", ["overlap", "position"])
@pytest.mark.parametrize("mask_train", [True, False])
def test_conforms(sampling: Any, mask_train: bool) -> None:
    check_distiller(
        lambda: RCEKD(weight=1.0, k=3, num_sampled=3, depth=6, sampling=sampling, mask_train=mask_train)
    )


def test_a_list_shorter_than_k_conforms() -> None:
    check_distiller(lambda: RCEKD(weight=1.0, k=5, num_sampled=4, depth=2))


def run(epochs: int = 1, **options: Any) -> tuple[RCEKD, float]:
    chosen: dict[str, Any] = {"k": 5, "num_sampled": 4, "depth": 10, **options}
    method = RCEKD(weight=1.0, **chosen)
    return method, loss_of(set_up(method, epochs=epochs))


def test_the_two_sets() -> None:
    method, _ = run()
    own, sampled, missing = method.get_buffer("items").long().split([5, 4, 5], dim=1)
    users = torch.arange(40)
    student = live(STUDENT, INTERACTIONS).top_items(users, 10).ids
    teacher = KNOWLEDGE.top_items(users, 5).ids
    assert torch.equal(own, student[:, :5])
    assert torch.equal(ops.listed(sampled, student), sampled >= 0)
    assert torch.equal(ops.listed(missing, teacher), missing >= 0)
    assert not ops.listed(missing, torch.cat([own, sampled], dim=1)).any()
    everything = torch.cat([own, sampled, missing], dim=1)
    assert torch.equal(ops.listed(teacher, everything), teacher >= 0)
    labels = method.get_buffer("labels")
    for part in (labels[:, :5], labels[:, 5:]):
        torch.testing.assert_close(part.sum(dim=1), torch.ones(40))


def test_train_items_are_masked_unless_asked() -> None:
    users = torch.arange(40)
    masked, included = (run(mask_train=mask)[0].get_buffer("items").long() for mask in (True, False))
    assert not INTERACTIONS.contains(users, masked).any()
    assert INTERACTIONS.contains(users, included).any()
    best = STUDENT.frozen().scores(users).topk(5, dim=1).indices
    assert torch.equal(included[:, :5], best)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 6},
        {"num_sampled": 5},
        {"depth": 20},
        {"temperature": 2.0},
        {"decay": 1.0},
        {"sampling": "position"},
        {"sampling_temperature": 0.3},
        {"mask_train": False},
        {"epochs": 2},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_changes_the_loss(options: dict[str, Any]) -> None:
    assert run(**options)[1] != run()[1]


def test_lists_stay_until_the_next_ranking() -> None:
    drawn = [run(epochs=epochs, refresh=2)[0].get_buffer("items") for epochs in (1, 2, 3)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_the_draws_come_from_the_first_m() -> None:
    method: Any = RCEKD(k=8, depth=3, num_sampled=3)
    set_up(method)
    own = STUDENT.frozen()
    STUDENT.train()
    top = top_items(own, torch.arange(40), 3, [INTERACTIONS])[0]
    sampled = method.get_buffer("items")[:, 8:11].long()
    assert bool(ops.listed(sampled, top)[sampled >= 0].all())


def test_the_loss_from_what_was_drawn() -> None:
    method: Any = RCEKD(weight=1.0, k=3, num_sampled=4, depth=6, temperature=2.0, decay=1.5)
    objective = set_up(method)
    users = batch_of(INTERACTIONS).users
    items = method.get_buffer("items")[users].long()
    teacher = KNOWLEDGE.top_items(users, 3).ids
    own, student = KNOWLEDGE.scores(users, items) / 2, STUDENT.state().scores(users, items).detach() / 2
    total = 0.0
    for row, ids in enumerate(items):
        sampled = {int(i) for i in ids[3:7] if i >= 0}
        gamma = math.exp(-1.5 * len(sampled & set(teacher[row].tolist())) / 3)
        for part, share in ((slice(0, 3), 1 - gamma), (slice(3, None), gamma)):
            there = ids[part] >= 0
            t, s = own[row, part][there], student[row, part][there]
            total -= share * float((torch.softmax(t, 0) * torch.log_softmax(s, 0)).sum())
    assert loss_of(objective) == pytest.approx(total / len(users), rel=1e-5)
