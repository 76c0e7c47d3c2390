"""One set-up and one step of a method on a small student and a live teacher, for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable

import torch

from recdistill.distillers.base import Distiller, Objective
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.bpr import BPR
from recdistill.testing import CPU, batch_of, built, tiny_interactions

INTERACTIONS = tiny_interactions(40, 60, seed=3)
STUDENT = built(BPR(dim=3), INTERACTIONS)
KNOWLEDGE = live(built(BPR(dim=5), INTERACTIONS, seed=9), INTERACTIONS)


def set_up(
    method: Distiller,
    knowledge: TeacherKnowledge = KNOWLEDGE,
    epochs: int = 1,
    note: Callable[[str], None] = lambda text: None,
) -> Objective:
    """The method's objective alone, set up on :data:`STUDENT`, after the starts of some epochs."""
    objective = Objective([method], knowledge, base_weight=0.0)
    objective.setup(STUDENT, INTERACTIONS, 10, torch.Generator().manual_seed(0), CPU, note)
    for epoch in range(epochs):
        objective.start_epoch(epoch)
    return objective


def loss_of(objective: Objective, rows: int | None = None) -> float:
    """The loss of one batch of all train pairs, or of the first ``rows``."""
    batch = batch_of(INTERACTIONS, rows)
    (term,) = objective.terms(STUDENT, STUDENT.state(batch), batch).values()
    return float(term.detach())
