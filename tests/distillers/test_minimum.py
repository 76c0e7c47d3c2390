"""A student that is its teacher has nothing left to learn: methods whose loss is least there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from recdistill import config
from recdistill.distillers.base import Objective
from recdistill.distillers.projectors import LinearMap, OrthogonalMap
from recdistill.knowledge.teacher import live
from recdistill.models.bpr import BPR
from recdistill.testing import tiny_interactions

DATA = tiny_interactions()

CASES: list[tuple[str, dict[str, Any]]] = [
    ("kd", {"k": 6}),
    ("kd", {"k": 6, "guide": "student"}),
    ("soft-labels", {"k": 6, "form": "listwise"}),
    ("soft-labels", {"k": 6, "form": "pairwise"}),
    ("soft-labels", {"k": 6, "form": "pointwise"}),
    ("cd", {"label_temperature": 1.0, "depth": 10}),
    ("sld", {"num_interesting": 4, "num_uninteresting": 3}),
    ("rce-kd", {"k": 4, "num_sampled": 3}),
    ("ftd", {}),
    ("htd", {"gamma": 1.0, "num_groups": 3}),
    ("fitnet", {}),  # by the identity as its map, as vkd
    ("fitnet", {"normalise": True}),
    ("vkd", {}),
]


def loss_and_gradient(method: str, options: dict[str, Any], noise: float) -> tuple[float, float]:
    """At the teacher, or at so far from it."""
    teacher = BPR(dim=5)
    teacher.build(DATA, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_(std=0.7, generator=torch.Generator().manual_seed(1))
    student = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(2)
    objective = Objective(
        [config.find("distillers", method)(**options)], live(teacher, DATA), base_weight=0.0
    )
    objective.setup(student, DATA, 5, torch.Generator().manual_seed(3), torch.device("cpu"))
    objective.start_epoch(0)
    with torch.no_grad():
        for module in objective.modules():
            if isinstance(module, LinearMap | OrthogonalMap):
                for parameter in module.parameters():
                    parameter.copy_(torch.eye(5) if parameter.dim() == 2 else torch.zeros(5))
        for parameter in student.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
    batch = next(iter(student.batches(DATA, 1000, torch.Generator().manual_seed(4))))
    (loss,) = objective.terms(student, student.state(batch), batch).values()
    loss.backward()
    gradients = [p.grad.to_dense() for p in student.parameters() if p.grad is not None]
    return float(loss.detach()), max(float(gradient.abs().max()) for gradient in gradients)


@pytest.mark.parametrize(("method", "options"), CASES, ids=lambda value: str(value))
def test_the_teacher_itself_is_the_minimum(method: str, options: dict[str, Any]) -> None:
    least, gradient = loss_and_gradient(method, options, 0.0)
    assert gradient == pytest.approx(0.0, abs=2e-7 * max(1.0, least))
    for noise in (0.05, 0.3):
        higher, slope = loss_and_gradient(method, options, noise)
        assert higher > least
        assert slope > gradient
