"""BERT-EMD: the equation by hand, weights that move after a step and are resumed, conformance."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.distillers.bert_emd import BERTEMD
from recdistill.distillers.layers import LayerTransport, layer_distances
from recdistill.ops.transport import cooperative_weights, sinkhorn_plan, transport_plan
from recdistill.testing import check_sequence_distiller
from sequence_cases import Step, value


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_the_equation_by_hand(solver: Any) -> None:
    step = Step(BERTEMD(metric="kl", solver=solver))
    method: Any = step.method
    projected = torch.stack(step.student.hidden_states) @ method.hidden.map.matrix + method.hidden.map.bias
    cost = layer_distances(projected, torch.stack(step.teacher.hidden_states), "kl")
    w, u = torch.full((2,), 1 / 2), torch.full((4,), 1 / 4)
    plan = transport_plan(cost, w, u) if solver == "exact" else sinkhorn_plan(cost, w, u)
    first = step.student.embeddings @ method.first.map.matrix + method.first.map.bias
    expected = (plan * cost).sum() + (first - step.teacher.embeddings).square().mean()
    torch.testing.assert_close(step.loss(), expected)
    step.objective.after_step()
    moved = cooperative_weights(plan.detach(), cost.detach(), w, u)
    torch.testing.assert_close(method.transport.student_weights, moved[0])
    torch.testing.assert_close(method.transport.teacher_weights, moved[1])


def test_weights_change_the_next_loss_and_are_resumed() -> None:
    step = Step(BERTEMD())
    before = float(step.loss().detach())
    step.objective.after_step()
    after = float(step.loss().detach())
    assert before != after
    resumed = Step(BERTEMD())
    resumed.objective.load_state_dict(step.objective.state_dict())
    assert float(resumed.loss().detach()) == after


def test_without_a_step_the_weights_stay() -> None:
    transport = LayerTransport(2, 3)
    transport(torch.rand(2, 3))
    assert transport.student_weights.tolist() == [0.5, 0.5]


def test_absent_layers_keep_their_weights() -> None:
    transport = LayerTransport(3, 2)
    loss = transport(torch.tensor([[1.0, 5.0], [4.0, 2.0]]), active=2)
    assert float(loss) == pytest.approx(0.5 * 1 + 0.5 * 2)
    transport.after_step()
    assert transport.flow.tolist() == [[0.5, 0], [0, 0.5], [0, 0]]
    assert float(transport.student_weights[2]) == pytest.approx(1 / 3)
    assert float(transport.student_weights.sum()) == pytest.approx(1)
    assert float(transport.student_weights[0]) > float(transport.student_weights[1])


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"metric": "kl"},
        {"metric": "kl", "direction": "reverse"},
        {"metric": "cosine"},
        {"solver": "sinkhorn"},
        {"embeddings": False},
    ]
    found = [value(BERTEMD(**options)) for options in changes]
    assert len(set(found)) == len(found)
    for options in ({"temperature": 1.0}, {"smoothing": 0.0}):
        step, other = Step(BERTEMD()), Step(BERTEMD(**options))
        for each in (step, other):
            each.loss()
            each.objective.after_step()
        first, second = (each.method.get_buffer("transport.student_weights") for each in (step, other))
        assert not torch.equal(first, second), options


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_conforms(solver: Any) -> None:
    check_sequence_distiller(lambda: BERTEMD(solver=solver, metric="kl"))
