"""IR-RRD: golden value, the conformance kit, and each option."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, KNOWLEDGE, loss_of, set_up
from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Objective
from recdistill.distillers.ir_rrd import IRRRD
from recdistill.distillers.rrd import relaxed_ranking_loss
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.bpr import BPR
from recdistill.steps.methods import make_methods
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions


def test_golden_value() -> None:
    # item 1: user 0 over 1 (.5, -1); item 2: user 1 over 0 (.8, -.5); the sum over both items is .44242173
    scores = torch.tensor([[0.5, -1.0], [0.8, -0.5]], dtype=torch.float64)
    loss = relaxed_ranking_loss(scores, torch.tensor([[0, 1], [1, 0]]), num_interesting=1)
    assert float(loss) * 2 == pytest.approx(0.20141328 + 0.24100845, abs=1e-7)


@pytest.mark.parametrize("num_items", [4, 100])
def test_conforms(num_items: int) -> None:
    check_distiller(
        lambda: IRRRD(
            weight=1.0,
            num_items=num_items,
            num_interesting=2,
            num_uninteresting=2,
            items_per_user=4,
            depth=3,
            temperature=2.0,
        )
    )


def run(
    epochs: int = 1, knowledge: TeacherKnowledge = KNOWLEDGE, **options: Any
) -> tuple[IRRRD, Objective, float]:
    chosen: dict[str, Any] = {
        "num_items": 10,
        "num_interesting": 3,
        "num_uninteresting": 4,
        "items_per_user": 2,
    }
    method = IRRRD(weight=1.0, **{"depth": 8, **chosen, **options})
    objective = set_up(method, knowledge, epochs)
    return method, objective, loss_of(objective, 10)


def test_users_come_from_the_items_list_and_from_outside_it() -> None:
    users = run()[0].get_buffer("users").long()
    interesting, others = users[:, :3], users[:, 3:]
    items = torch.arange(60)
    lists = KNOWLEDGE.top_users(items, 8).ids
    assert torch.equal(ops.listed(interesting, lists), interesting >= 0)
    assert not ops.listed(others, lists).any()
    assert not INTERACTIONS.transpose().contains(items, users).any()
    places = (lists[:, None, :] == interesting[:, :, None]).long().argmax(dim=2)
    assert bool(((places.diff(dim=1) > 0) | (interesting[:, 1:] < 0)).all())


def test_a_step_takes_a_fixed_number_of_the_batchs_items() -> None:
    method, _, _ = run()
    batch = batch_of(INTERACTIONS, 10)
    drawn = method.get_buffer("items")[batch.users]
    first, second = (method._choose(batch) for _ in range(2))
    assert len(first) == len(set(first.tolist())) == 10
    assert set(first.tolist()) <= set(drawn.flatten().tolist())
    assert set(first.tolist()) != set(second.tolist())


def test_few_items_estimate_the_mean_over_all() -> None:
    whole = run(num_items=60)[1]
    exact = loss_of(whole, 10)
    assert exact == loss_of(whole, 10)  # nothing is drawn at a step that takes all
    few = run(num_items=5)[1]
    estimates = torch.tensor([loss_of(few, 10) for _ in range(600)]).double()
    error = float(estimates.std()) / len(estimates) ** 0.5
    assert abs(float(estimates.mean()) - exact) < 4 * error


def test_items_without_a_list_are_left_out() -> None:
    lists = KNOWLEDGE.top_users(torch.arange(60), 8)
    bare = TeacherKnowledge(INTERACTIONS, None, dict(KNOWLEDGE.lists))
    empty = lists.ids.clone().int()
    empty[10:] = -1
    bare.lists["top_users"] = type(lists)(empty, lists.scores.masked_fill(empty < 0, -torch.inf))
    method, objective, _ = run(knowledge=bare)
    chosen = method._choose(batch_of(INTERACTIONS))
    assert 0 < len(chosen) <= 10
    assert int(chosen.max()) < 10
    bare.lists["top_users"].ids.fill_(-1)
    objective = run(knowledge=bare)[1]
    assert loss_of(objective, 10) == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"num_items": 11},
        {"num_interesting": 2},
        {"num_uninteresting": 5},
        {"items_per_user": 3},
        {"depth": 20},
        {"temperature": 0.5},
        {"epochs": 2},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_changes_the_loss(options: dict[str, Any]) -> None:
    assert run(**options)[2] != run()[2]


def test_a_catalogue_that_everybody_took_has_no_loss() -> None:
    everything = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    full = Interactions.from_events(everything[:, 0], everything[:, 1], 3, 4)
    method = IRRRD(weight=1.0)
    student = built(BPR(dim=2), full)
    objective = Objective([method], live(built(BPR(dim=2), full, seed=9), full), 0.0)
    objective.setup(student, full, 1, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    batch = batch_of(tiny_interactions(3, 4))
    (loss,) = objective.terms(student, student.state(batch), batch).values()
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_the_preset_has_both_sides() -> None:
    assert [method.method_name() for method in make_methods("rrd-ir-rrd")] == ["rrd", "ir-rrd"]


def test_lists_as_long_as_the_catalogue_leave_users_outside() -> None:
    # 40 users, 4 to be left outside: a list of an item with c users ends after 40 - c - 4 of the others
    method = run(depth=500)[0]
    others = method.get_buffer("users")[:, 3:]
    assert bool((others >= 0).all())
    left = 40 - INTERACTIONS.item_counts
    assert torch.equal(method._users._lengths, left - 4)


def test_the_others_are_distinct() -> None:
    method: Any = IRRRD(num_interesting=3, num_uninteresting=12, items_per_user=20, depth=8)
    set_up(method)
    for name, first in (("users", 3), ("items", 20)):
        others = method.get_buffer(name)[:, first:].sort(dim=1).values
        assert not bool(((others.diff(dim=1) == 0) & (others[:, 1:] >= 0)).any())


def test_uninteresting_items_are_candidates_too() -> None:
    method: Any = IRRRD(items_per_user=2, depth=8)
    set_up(method)
    batch = batch_of(INTERACTIONS, 10)
    drawn = method.get_buffer("items")[batch.users]
    assert set(method._choose(batch).tolist()) == set(drawn[drawn >= 0].tolist())
