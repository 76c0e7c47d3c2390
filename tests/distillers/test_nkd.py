"""NKD: golden values, neighbours, each option, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from method_cases import INTERACTIONS, KNOWLEDGE, loss_of, set_up
from method_cases import STUDENT as MODEL
from recdistill.distillers import nkd
from recdistill.distillers.nkd import NKD, mixed, nearest, principal
from recdistill.distillers.projectors import cosine_error
from recdistill.testing import batch_of, check_distiller, largest_tensor

STUDENT = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
W = torch.tensor([[1, 0], [0, 1], [0.5, 0.5]], dtype=torch.float64)
B = torch.tensor([0, 0, 0.1], dtype=torch.float64)


def golden(student_share: float, teacher_share: float) -> list[float]:
    """Losses of two users who are each other's neighbour."""
    s = mixed(STUDENT, STUDENT.flip(0), torch.tensor(student_share, dtype=torch.float64)) @ W.T + B
    t = mixed(TEACHER, TEACHER.flip(0), torch.tensor(teacher_share, dtype=torch.float64))
    one = torch.ones(1, dtype=torch.float64)
    return [float(cosine_error(s[[u]], t[[u]], one)) for u in range(2)]


def test_golden_values() -> None:
    assert golden(0.25, 0.25) == pytest.approx([0.00277855, 0.72300231], abs=1e-8)
    assert sum(golden(0.25, 0.5)) == pytest.approx(0.51813793, abs=1e-8)


def test_neighbours_are_the_nearest_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nkd, "_BLOCK_ROWS", 16)
    vectors = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    distances = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf)
    assert torch.equal(nearest(vectors, 5), distances.argsort(dim=1)[:, :5])


def test_rows_without_enough_others_are_their_own_neighbours() -> None:
    assert nearest(torch.tensor([[0.0], [1.0]]), 3).tolist() == [[1, 0, 0], [0, 1, 1]]
    assert nearest(torch.zeros(1, 2), 2).tolist() == [[0, 0]]


def test_neighbours_need_no_matrix_of_all_pairs() -> None:
    with largest_tensor() as watch:
        nearest(torch.randn(9000, 4), 3)
    assert watch.elements < 9000 * 9000 // 10


def test_principal_components_keep_most_of_the_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(100, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    found = principal(flat, 2)
    assert found.shape == (100, 2)
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(flat, flat), atol=1e-2, rtol=0)
    assert principal(flat, 0) is flat
    assert principal(flat, 6) is flat


def value(**options: Any) -> float:
    return loss_of(set_up(NKD(**{"weight": 1.0, "num_neighbors": 4, "num_experts": 2, **options})))


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"num_neighbors": 2},
        {"max_neighbor_weight": 0.3},
        {"mixing": "scalar"},
        {"neighbors": "mean"},
        {"num_experts": 3},
        {"dropout": 0.4},
        {"pca_dim": 1},
    ]
    found = [value(**change) for change in changes]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("mixing", ["element", "scalar"])
@pytest.mark.parametrize("neighbors", ["one", "mean"])
def test_conforms(mixing: Any, neighbors: Any) -> None:
    check_distiller(
        lambda: NKD(weight=1.0, num_neighbors=3, num_experts=2, mixing=mixing, neighbors=neighbors)
    )


@pytest.mark.parametrize("mixing", ["element", "scalar"])
def test_the_equation_by_hand(mixing: Any) -> None:
    method: Any = NKD(
        weight=1.0, num_neighbors=2, num_experts=2, dropout=0.0, neighbors="mean", mixing=mixing
    )
    objective = set_up(method)
    batch, state = batch_of(INTERACTIONS), MODEL.state()
    before = method.generator.get_state()
    found = loss_of(objective)
    method.generator.set_state(before)

    def errors(side: str, ids: Tensor, f: Any) -> Tensor:
        near = method.get_buffer(f"{side}_neighbors")[ids]
        vectors: list[Tensor] = []
        for source in (state, KNOWLEDGE):
            read = getattr(source, f"{side}_embeddings")
            own, other = read(ids), (read(near[:, 0]) + read(near[:, 1])) / 2
            share = torch.rand(own.shape if mixing == "element" else (1, 1), generator=method.generator) / 2
            vectors.append((1 - share) * own + share * other)
        return 1 - F.cosine_similarity(f(vectors[0]), vectors[1], dim=1)

    of_users, of_items = errors("user", batch.users, method.users), errors("item", batch.items, method.items)
    sides = [
        of_items[torch.isin(batch.items, ids)].mean()
        for ids in (batch.unique_positives, batch.unique_negatives)
    ]
    assert found == pytest.approx(float((of_users.mean() + (sides[0] + sides[1]) / 2).detach()), rel=1e-5)
