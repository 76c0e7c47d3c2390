"""What a method says of the lists that it reads is what it reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, KNOWLEDGE, STUDENT
from recdistill import config
from recdistill.distillers.base import Distiller, Objective
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.testing import CPU, batch_of

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in config.names("distillers")),
    ("kd", {"guide": "student"}),
    ("cd", {"guide": "teacher"}),
    ("cpd", {"guide": "teacher"}),
    ("rce-kd", {"mask_train": True}),
    ("dcd", {"item_weight": 0.0}),
    ("logit-kd", {"items": "top", "places": "newest"}),
]
SMALL = {"depth": 7, "k": 5, "num_interesting": 3, "num_uninteresting": 3, "num_sampled": 3}


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))
def test_it_reads_lists_as_deep_as_it_says(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls: type[Distiller] = config.find("distillers", name)
    method = cls(**{key: value for key, value in SMALL.items() if key in config.option_names(cls)} | options)
    if "hidden_states" in method.needs:
        pytest.skip("it reads sequence models")
    read: dict[str, int] = {}
    for kind in ("top_items", "top_users"):
        plain = getattr(TeacherKnowledge, kind)

        def top(self: TeacherKnowledge, rows: Any, depth: int, kind: str = kind, plain: Any = plain) -> Any:
            read[kind] = max(depth, read.get(kind, 0))
            return plain(self, rows, depth)

        monkeypatch.setattr(TeacherKnowledge, kind, top)
    objective = Objective([method], KNOWLEDGE, base_weight=0.0)
    objective.setup(STUDENT, INTERACTIONS, 10, torch.Generator().manual_seed(0), CPU)
    batch = batch_of(INTERACTIONS)
    for epoch in range(2):
        objective.start_epoch(epoch)
        objective.terms(STUDENT, STUDENT.state(batch), batch)
    assert read == method.list_depths()
