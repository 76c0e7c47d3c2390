"""VkD: orthogonal projectors of any shape, normalisation, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, KNOWLEDGE, STUDENT, loss_of, set_up
from recdistill.distillers.projectors import OrthogonalMap
from recdistill.distillers.vkd import VkD, normalised
from recdistill.models.bpr import BPR
from recdistill.testing import batch_of, check_distiller


@pytest.mark.parametrize(("student_dim", "teacher_dim"), [(3, 7), (7, 3), (4, 4), (1, 5)])
def test_the_projector_is_orthogonal_and_the_same_for_the_same_seed(
    student_dim: int, teacher_dim: int
) -> None:
    makes = [OrthogonalMap(student_dim, teacher_dim, torch.Generator().manual_seed(1)) for _ in range(2)]
    first, second = (m.double().orthogonal().detach() for m in makes)
    assert first.shape == (student_dim, teacher_dim)
    assert torch.equal(first, second)
    narrow = min(student_dim, teacher_dim)
    product = first @ first.T if student_dim <= teacher_dim else first.T @ first
    torch.testing.assert_close(product, torch.eye(narrow, dtype=torch.float64))


def test_distances_are_kept() -> None:
    projector = OrthogonalMap(3, 7, torch.Generator().manual_seed(1)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.cdist(projector(x), projector(x)).detach(), torch.cdist(x, x))


def test_the_projector_learns_any_rotation() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64, generator=generator))[0].T
    x = torch.randn(50, 2, dtype=torch.float64, generator=generator)
    projector = OrthogonalMap(2, 6, generator).double()
    optimiser = torch.optim.Adam(projector.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        loss = (projector(x) - x @ target).square().mean()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(projector.orthogonal().detach(), target, atol=1e-4, rtol=0)


def test_normalisation() -> None:
    vectors = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert normalised(vectors, "none") is vectors
    assert normalised(vectors, "centre").tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    torch.testing.assert_close(
        normalised(3 * vectors, "standardise"), torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    )
    assert vectors.tolist() == [[1.0, 5.0], [3.0, 5.0]]


@pytest.mark.parametrize("normalise", ["none", "centre", "standardise"])
def test_conforms(normalise: Any) -> None:
    check_distiller(lambda: VkD(weight=1.0, normalise=normalise))


def test_conforms_with_a_wider_student() -> None:
    check_distiller(lambda: VkD(weight=1.0), student=lambda: BPR(dim=8))


def test_the_teacher_alone_is_normalised() -> None:
    method: Any = VkD(weight=1.0, normalise="standardise")
    objective = set_up(method)
    batch, state = batch_of(INTERACTIONS), STUDENT.state()
    expected = torch.zeros(())
    for part, ids, side in ((method.users, batch.users, "user"), (method.items, batch.items, "item")):
        own, other = (getattr(one, f"{side}_embeddings")(ids) for one in (state, KNOWLEDGE))
        expected = (
            expected + (own @ part.orthogonal() - normalised(other, "standardise")).square().sum(dim=1).mean()
        )
    assert loss_of(objective) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_signs_of_the_factor_are_fixed() -> None:
    for seed in range(5):
        made = OrthogonalMap(3, 7, torch.Generator().manual_seed(seed))
        triangle = made.orthogonal() @ made.matrix  # (3, 3)
        assert bool((triangle.diagonal() > 0).all())
        torch.testing.assert_close(triangle.tril(-1).detach(), torch.zeros(3, 3), atol=1e-5, rtol=0)
