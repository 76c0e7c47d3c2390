"""Folding in new users: the ridge solution by a direct formula, its memory, histories without items."""

from __future__ import annotations

import pytest
import torch

from method_cases import INTERACTIONS
from recdistill import ops
from recdistill.models import recommend
from recdistill.models.base import ScoreVectors
from recdistill.models.bpr import BPR
from recdistill.models.recommend import _recommend_folded, fold_in
from recdistill.testing import built, largest_tensor


def histories(count: int, num_items: int, most: int) -> ops.Rows:
    """Up to ``most`` distinct items a user; the first user has none."""
    generator = torch.Generator().manual_seed(1)
    rows = [
        torch.randperm(num_items, generator=generator)[: n % (most + 1)].sort().values for n in range(count)
    ]
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    return ops.Rows(lengths.cumsum(0), torch.cat(rows).int())


def vectors(num_items: int, dim: int) -> ScoreVectors:
    items = torch.randn(num_items, dim, generator=torch.Generator().manual_seed(0))
    return ScoreVectors(items[:1], items)


def test_the_solution_is_that_of_the_equation() -> None:
    made, known = vectors(30, 4), histories(9, 30, 8)
    found = fold_in(made, known, negative_weight=0.2, ridge=0.01)
    items = made.items.double()
    for user, start in enumerate(known.indptr[:-1].tolist()):
        own = items[known.items[start : int(known.indptr[user + 1])].long()]
        matrix = own.T @ own + 0.2 * len(own) / 30 * items.T @ items
        matrix += 0.01 * matrix.trace() / 4 * torch.eye(4)
        expected = torch.linalg.solve(matrix, own.sum(dim=0)) if len(own) else torch.zeros(4)
        torch.testing.assert_close(found[user].double(), expected.double(), rtol=1e-4, atol=1e-5)
    assert not found[0].any()


@pytest.mark.parametrize("dim", [3, 40])
def test_blocks_change_nothing(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, known = vectors(50, dim), histories(60, 50, 20)
    whole = fold_in(made, known)
    monkeypatch.setattr(recommend, "_FOLDED_BYTES", 7 * 4 * dim**2)  # seven matrices
    assert torch.equal(fold_in(made, known), whole)


def test_memory_does_not_grow_with_the_length_of_vectors() -> None:
    made, known = vectors(450, 400), histories(40, 450, 30)
    with largest_tensor() as watch:
        fold_in(made, known)
    assert 400**2 < watch.elements <= recommend._FOLDED_BYTES // 4, watch.operation


def test_a_folded_in_user_gets_no_item_of_its_history() -> None:
    vectors = built(BPR(dim=3), INTERACTIONS).frozen().score_vectors()
    known = INTERACTIONS.rows(torch.tensor([3, 4]))
    for seen, allowed in ((True, False), (False, True)):
        ids = _recommend_folded(vectors, known, 60, seen, None, "bpr")[0]
        users = torch.tensor([3, 4])
        assert bool(INTERACTIONS.contains(users, ids).any()) == allowed
