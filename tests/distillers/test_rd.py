"""RD: golden values, the conformance kit, and each option."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import loss_of, set_up
from recdistill.distillers.base import Objective
from recdistill.distillers.rd import (
    RD,
    estimated_ranks,
    position_importance,
    rank_discrepancy,
    weighted_positives,
)
from recdistill.knowledge.teacher import live
from recdistill.models.bpr import BPR
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions

SCORES = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
TOP = torch.tensor([[1, 2], [2, 1]])


def test_golden_value_of_static_weights() -> None:
    weights = position_importance(TOP >= 0, temperature=1.0)
    assert weights[0].tolist() == pytest.approx([0.73105858, 0.26894142], abs=1e-8)
    loss = weighted_positives(SCORES.gather(1, TOP), weights)
    assert float(loss) * 2 == pytest.approx(0.60854769 + 0.62448679, abs=1e-7)


def test_golden_value_of_dynamic_weights() -> None:
    drawn = torch.tensor([[2, 3, 3], [0, 0, 1]])
    scores = SCORES.gather(1, TOP)
    ranks = estimated_ranks(scores, SCORES.gather(1, drawn), drawn >= 0, num_items=4)
    assert ranks.tolist() == [[1, 3], [1, 3]]
    weights = position_importance(TOP >= 0, 1.0) * rank_discrepancy(ranks, 0.1)
    assert rank_discrepancy(ranks, 0.1)[0].tolist() == pytest.approx([0, 0.09966799], abs=1e-8)
    weights = weights / weights.sum(dim=1, keepdim=True)
    assert float(weighted_positives(scores, weights)) * 2 == pytest.approx(0.97407698 + 1.31326169, abs=1e-7)


def test_golden_value_of_importance_times_discrepancy() -> None:
    scores = torch.tensor([[0.1, 0.9, -0.2, 0.4, 0.6, -0.7]], dtype=torch.float64)
    top, drawn = torch.tensor([[2, 3, 1]]), torch.tensor([[1, 4, 1, 3]])
    ranks = estimated_ranks(scores.gather(1, top), scores.gather(1, drawn), drawn >= 0, num_items=6)
    assert ranks.tolist() == [[6, 4, 1]]
    weights = position_importance(top >= 0, 2.0) * rank_discrepancy(ranks, 0.1)
    assert float(weighted_positives(scores.gather(1, top), weights)) == pytest.approx(0.21791261, abs=1e-8)
    scaled = weights / weights.sum()
    assert scaled[0].tolist() == pytest.approx([0.7942459, 0.2057541, 0], abs=1e-7)
    assert float(weighted_positives(scores.gather(1, top), scaled)) == pytest.approx(0.73947352, abs=1e-8)


def test_short_lists_share_the_importance() -> None:
    present = torch.tensor([[True, True, False], [False, False, False]])
    weights = position_importance(present, 1.0)
    assert weights[0].tolist() == pytest.approx([0.73105858, 0.26894142, 0.0], abs=1e-8)
    assert weights[1].tolist() == [0.0, 0.0, 0.0]


def test_a_short_sample_counts_what_is_there() -> None:
    others = torch.tensor([[5.0, 9.0, 9.0], [0.0, 0.0, 0.0]])
    drawn = torch.tensor([[True, False, False], [False, False, False]])
    ranks = estimated_ranks(torch.tensor([[1.0, 6.0], [1.0, -1.0]]), others, drawn, num_items=11)
    assert ranks.tolist() == [[11, 1], [1, 1]]


@pytest.mark.parametrize("static_epochs", [0, 100])
@pytest.mark.parametrize("normalise", [True, False])
def test_conforms(static_epochs: int, normalise: bool) -> None:
    check_distiller(
        lambda: RD(k=6, temperature=3.0, num_samples=8, static_epochs=static_epochs, normalise=normalise)
    )


def value(epochs: int = 1, **options: Any) -> float:
    return loss_of(set_up(RD(**options), epochs=epochs))


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 2.0},
        {"k": 4},
        {"temperature": 3.0},
        {"slope": 0.01},
        {"num_samples": 7},
        {"static_epochs": 1},
        {"normalise": False},
    ],
)
def test_every_option_changes_the_loss(change: dict[str, Any]) -> None:
    start: dict[str, Any] = {"k": 6, "temperature": 2.0, "static_epochs": 0}
    assert value(**start) != value(**{**start, **change})


def test_weights_are_static_until_the_discrepancy_starts() -> None:
    static = value(epochs=1, k=6, static_epochs=100)
    assert value(epochs=2, k=6, static_epochs=2) == static
    assert value(epochs=3, k=6, static_epochs=2) != static


def test_what_the_loss_reads_is_kept_in_a_checkpoint() -> None:
    interactions = tiny_interactions(40, 60, seed=3)
    student = built(BPR(dim=3), interactions)
    knowledge = live(built(BPR(dim=5), interactions, seed=9), interactions)
    batch, losses = batch_of(interactions), list[float]()
    saved: dict[str, torch.Tensor] = {}
    for seed in (0, 1):
        objective = Objective([RD(k=6, static_epochs=0)], knowledge, base_weight=0.0)
        objective.setup(student, interactions, 10, torch.Generator().manual_seed(seed), CPU)
        if saved:
            objective.load_state_dict(saved)
        else:
            objective.start_epoch(0)
            saved = objective.state_dict()
        (term,) = objective.terms(student, student.state(), batch).values()
        losses.append(float(term.detach()))
    assert losses[0] == losses[1]
