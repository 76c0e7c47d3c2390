"""FTD: the golden value, the pairwise definition, rows of zeros, the conformance kit."""

from __future__ import annotations

import pytest
import torch

from recdistill.distillers.ftd import FTD
from recdistill.distillers.projectors import unit_rows
from recdistill.distillers.relations import relation_error
from recdistill.testing import check_distiller

# users 0, 1 and items 0, 1
STUDENT = torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
TEACHER = torch.tensor(
    [[1.0, 0.0, 1.0], [0.0, 1.0, -1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64
)


def error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return relation_error(unit_rows(student), unit_rows(teacher), [len(student)], positive_only=False)


def test_golden_value() -> None:
    assert float(error(STUDENT, TEACHER)) * 16 == pytest.approx(4.34087537, abs=1e-8)


def test_value_and_gradient_are_those_of_the_matrix_of_pairs() -> None:
    student = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    teacher = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    student.requires_grad_()
    s, t = unit_rows(student), unit_rows(teacher)
    expected = (s @ s.T - t @ t.T).square().mean()
    torch.testing.assert_close(error(student, teacher), expected)
    (wanted,) = torch.autograd.grad(expected, student)
    (found,) = torch.autograd.grad(error(student, teacher), student)
    torch.testing.assert_close(found, wanted)


def test_the_teacher_itself_costs_nothing() -> None:
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert float(error(2 * TEACHER @ rotation, TEACHER)) == pytest.approx(0, abs=1e-12)


def test_a_row_of_zeros_has_cosine_0_and_no_gradient() -> None:
    student = STUDENT.clone()
    student[0] = 0
    student.requires_grad_()
    loss = error(student, TEACHER)
    loss.backward()
    s, t = unit_rows(student.detach()), unit_rows(TEACHER)
    assert float(loss.detach()) == pytest.approx(float((s @ s.T - t @ t.T).square().mean()))
    assert student.grad is not None
    assert student.grad[0].tolist() == [0.0, 0.0]


def test_conforms() -> None:
    check_distiller(lambda: FTD(weight=1.0))
