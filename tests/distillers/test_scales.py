"""Every method that reads the teacher's scores reads them at the teacher's scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, loss_of, set_up
from recdistill.distillers.cd import CD
from recdistill.distillers.kd import KD
from recdistill.distillers.logit_kd import LogitKD
from recdistill.distillers.rce_kd import RCEKD
from recdistill.distillers.sld import SLD
from recdistill.distillers.soft_labels import SoftLabels
from recdistill.knowledge.teacher import live
from recdistill.models.bpr import BPR
from recdistill.testing import built


@pytest.mark.parametrize(
    "name", ["soft-labels", "cd", "cd-student", "kd", "kd-student", "sld", "rce-kd", "logit-kd"]
)
def test_the_teachers_scores_are_scaled(name: str) -> None:
    """A teacher whose scores are s with a scale of 4 teaches as one whose scores are 4 s."""
    make: dict[str, Any] = {
        "soft-labels": lambda: SoftLabels(k=5),
        "cd": lambda: CD(guide="teacher", depth=8),
        "cd-student": lambda: CD(depth=8),
        "kd": lambda: KD(k=5),
        "kd-student": lambda: KD(k=5, guide="student"),
        "sld": lambda: SLD(depth=8, num_interesting=3, num_uninteresting=3, temperature=1.0),
        "rce-kd": lambda: RCEKD(k=4, num_sampled=3, depth=8),
        "logit-kd": lambda: LogitKD(places="newest", items="top", k=5),
    }

    def loss(factor: float, scale: float) -> float:
        teacher: Any = built(BPR(dim=5), INTERACTIONS, seed=9)
        with torch.no_grad():
            teacher.user_table.mul_(factor)
        known = live(teacher, INTERACTIONS)
        known.frozen.score_scale = scale
        return loss_of(set_up(make[name](), known))

    assert loss(0.25, 4.0) == pytest.approx(loss(1.0, 1.0), rel=1e-4)
    assert loss(0.25, 1.0) != pytest.approx(loss(1.0, 1.0), rel=1e-4)
