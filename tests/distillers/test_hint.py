"""Hints between layers: the equation by hand, the choice of layers, conformance."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.distillers.hint import Hint
from recdistill.errors import OptionError
from recdistill.models.sasrec import SASRec
from recdistill.testing import built, check_sequence_distiller
from sequence_cases import DATA, Step, value


@pytest.mark.parametrize(("student", "teacher"), [(-1, -1), (0, 2), (1, -4)])
def test_the_equation_by_hand(student: int, teacher: int) -> None:
    step = Step(Hint(weight=2.0, student_layer=student, teacher_layer=teacher))
    projection: Any = step.method.projection
    projected = step.student.hidden_states[student] @ projection.map.matrix + projection.map.bias
    expected = 2 * (projected - step.teacher.hidden_states[teacher]).square().mean()
    torch.testing.assert_close(step.loss(), expected)


@pytest.mark.parametrize(
    ("options", "said"), [({"student_layer": 2}, "student has 2"), ({"teacher_layer": -5}, "teacher has 4")]
)
def test_layers_that_are_not_there(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Step(Hint(**options))


def test_a_teacher_that_reads_fewer_items() -> None:
    teacher = built(SASRec(dim=6, max_length=3), DATA, seed=7)
    assert bool(torch.isfinite(Step(Hint(), teacher=teacher).loss()))


def test_every_option_changes_the_loss() -> None:
    found = [
        value(Hint(**options))
        for options in (
            {},
            {"student_layer": 0},
            {"teacher_layer": 0},
            {"metric": "kl"},
            {"metric": "cosine"},
        )
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("metric", ["mse", "kl", "cosine"])
def test_conforms(metric: Any) -> None:
    check_sequence_distiller(lambda: Hint(metric=metric))


@pytest.mark.parametrize("layer", [1, -2])
def test_where_fewer_layers_are_drawn_the_nearest_one_learns(layer: int) -> None:
    student = built(SASRec(dim=4, blocks=3, max_length=8, dropout=0.0), DATA, scale=5.0)
    step = Step(Hint(student_layer=layer), student)
    kept = step.student.hidden_states[:1]
    step.student.encoded = step.student.encoded._replace(hidden_states=kept)
    projection: Any = step.method.projection
    projected = kept[0] @ projection.map.matrix + projection.map.bias
    torch.testing.assert_close(step.loss(), (projected - step.teacher.hidden_states[-1]).square().mean())


def test_where_two_layers_are_drawn_the_second_one_learns() -> None:
    student = built(SASRec(dim=4, blocks=3, max_length=8, dropout=0.0), DATA, scale=5.0)
    step = Step(Hint(student_layer=2), student)
    step.student.encoded = step.student.encoded._replace(hidden_states=step.student.hidden_states[:2])
    projection: Any = step.method.projection
    projected = step.student.hidden_states[1] @ projection.map.matrix + projection.map.bias
    torch.testing.assert_close(step.loss(), (projected - step.teacher.hidden_states[-1]).square().mean())
