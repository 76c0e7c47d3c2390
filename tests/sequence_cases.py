"""One step of a method that reads sequence models item by item."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Distiller, Objective
from recdistill.knowledge.sequence import SequenceReads
from recdistill.knowledge.teacher import live
from recdistill.models.base import Recommender
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_state import SequenceState
from recdistill.testing import CPU, built, tiny_sequences

DATA = tiny_sequences()


def _each_item_once() -> Interactions:
    """The same users, who take no item again."""
    return Interactions.from_events(
        DATA.users, DATA.items, DATA.num_users, DATA.num_items, positions=torch.arange(DATA.num_pairs)
    )


ONCE = _each_item_once()


class Step:
    """A method, set up on a student of two blocks and a teacher of four, and the first batch."""

    def __init__(
        self,
        method: Distiller,
        student: Recommender | None = None,
        teacher: Recommender | None = None,
        seed: int = 0,
        data: Interactions = DATA,
    ) -> None:
        self.method = method
        self.model = student or built(SASRec(dim=4, max_length=8, dropout=0.0), data, scale=5.0)
        knowledge = live(
            teacher or built(SASRec(dim=6, blocks=4, max_length=8), data, seed=7, scale=5.0), data
        )
        self.objective = Objective([method], knowledge, base_weight=0.0)
        self.objective.setup(self.model, data, 10, torch.Generator().manual_seed(seed), CPU)
        self.batch = next(self.model.batches(data, 1000, torch.Generator().manual_seed(1)))
        state = self.model.state(self.batch)
        assert isinstance(state, SequenceState)
        self.student = state
        self.teacher: SequenceReads = knowledge.state(self.batch).sequence_reads(state.places)

    def loss(self) -> Tensor:
        (term,) = self.objective.terms(self.model, self.student, self.batch).values()
        return term


def value(method: Distiller) -> float:
    """The loss of the first step."""
    return float(Step(method).loss().detach())
