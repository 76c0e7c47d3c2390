"""FreqD: golden values, the graph, the filter through the hidden units, each option, the conformance kit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from method_cases import INTERACTIONS, KNOWLEDGE, loss_of, set_up
from method_cases import STUDENT as MODEL
from recdistill.data.interactions import Interactions
from recdistill.distillers import graphs
from recdistill.distillers.freqd import FreqD
from recdistill.distillers.graphs import Graph, co_occurring, normalised
from recdistill.distillers.projectors import MeanExperts, cosine_error, squared_error
from recdistill.testing import batch_of, check_distiller, tiny_interactions

STUDENT = torch.tensor([[1, 1], [0.5, -1], [0, 2], [-1, 0.5]], dtype=torch.float64)
TEACHER = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, -1], [0.5, 0.5, 0.5]], dtype=torch.float64)
W = torch.tensor([[1, 0], [0, 1], [0.5, 0.5]], dtype=torch.float64)
B = torch.tensor([0, 0, 0.1], dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(0)


def directed(edges: list[tuple[int, int]], nodes: int) -> sparse.csr_matrix:
    rows, columns = zip(*edges, strict=True)
    return sparse.csr_matrix((np.ones(len(edges)), (rows, columns)), shape=(nodes, nodes))


MATRIX = normalised(directed([(0, 1), (1, 0), (2, 1), (3, 2)], 4))


def test_golden_values() -> None:
    expected = np.zeros((4, 4))
    expected[0, 1], expected[1, 2], expected[2, 3] = 0.81649658, 0.40824829, 0.70710678
    np.testing.assert_allclose(MATRIX.toarray(), expected + expected.T, atol=1e-8)
    bags = Graph(MATRIX).double().bags(torch.tensor([0, 2]), 0.5, 1.0, GENERATOR)
    s = bags.apply((STUDENT @ W.T + B)[bags.ids])
    t = bags.apply(TEACHER[bags.ids])
    ones = torch.ones(2, dtype=torch.float64)
    assert float(squared_error(s, t, ones)) == pytest.approx(2.26941631, abs=1e-6)
    assert float(cosine_error(s, t, ones)) == pytest.approx(1.17265318, abs=1e-6)


def test_filtering_hidden_units_is_filtering_what_they_give() -> None:
    f = MeanExperts(2, 3, 5, 2, 0.0, GENERATOR).double()
    bags = Graph(MATRIX).double().bags(torch.tensor([1, 3]), 0.7, 1.0, GENERATOR)
    found = f.output(bags.apply(f.hidden(STUDENT[bags.ids])), bags.sums()[:, None])
    full = 0.7 * torch.from_numpy(MATRIX.toarray()) + 0.3 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(found, (full @ f(STUDENT))[[1, 3]], atol=1e-6, rtol=0)


def test_dropped_edges_grow_the_others_and_leave_the_entity() -> None:
    graph = Graph(normalised(directed([(0, n) for n in range(1, 2001)], 2001)))
    bags = graph.bags(torch.tensor([0]), 1.0, 0.25, GENERATOR)
    edges = bags.values[1:]
    assert float(bags.values[0]) == 0.0
    assert len(edges) == pytest.approx(500, abs=80)
    torch.testing.assert_close(edges, torch.full_like(edges, 4 / 2000**0.5))


def dense_neighbours(pairs: Interactions, k: int) -> np.ndarray[Any, Any]:
    taken = np.zeros((pairs.num_users, pairs.num_items), dtype=np.int64)
    taken[pairs.users.numpy(), pairs.items.numpy()] = 1
    counts = taken @ taken.T
    np.fill_diagonal(counts, 0)
    found = np.zeros(counts.shape)
    for row, order in enumerate(np.argsort(-counts, axis=1, kind="stable")[:, :k]):
        found[row, order[counts[row, order] > 0]] = 1
    return found


@pytest.mark.parametrize("side", ["users", "items"])
def test_neighbours_are_those_of_the_dense_counts(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_BLOCK_COUNTS", 200)
    pairs = tiny_interactions(40, 60, seed=3)
    pairs = pairs if side == "users" else pairs.transpose()
    np.testing.assert_array_equal(co_occurring(pairs, 3).toarray(), dense_neighbours(pairs, 3))


def test_nobody_shares_anything() -> None:
    pairs = Interactions.from_events([0, 1], [1, 0], 3, 2)
    assert co_occurring(pairs, 2).nnz == 0
    bags = Graph(normalised(co_occurring(pairs, 2))).bags(torch.tensor([0, 2]), 0.5, 0.5, GENERATOR)
    assert bags.values.tolist() == [0.5, 0.5]


def value(**options: Any) -> float:
    return loss_of(set_up(FreqD(**{"weight": 1.0, "num_experts": 2, **options})))


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"filter_weight": 0.8},
        {"num_neighbors": 3},
        {"keep_edges": 0.9},
        {"num_experts": 1},
        {"dropout": 0.5},
        {"distance": "squared"},
    ]
    found = [value(**change) for change in changes]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
@pytest.mark.parametrize("keep_edges", [0.5, 1.0])
def test_conforms(distance: Any, keep_edges: float) -> None:
    check_distiller(lambda: FreqD(weight=1.0, num_experts=2, keep_edges=keep_edges, distance=distance))


def test_the_edges_that_are_kept_follow_the_generator() -> None:
    graph = Graph(normalised(co_occurring(INTERACTIONS, 3)))

    def kept(seed: int) -> list[int]:
        return graph.bags(torch.arange(40), 0.5, 0.5, torch.Generator().manual_seed(seed)).places.tolist()

    assert kept(0) == kept(0) != kept(1)


def test_the_equation_by_hand() -> None:
    method: Any = FreqD(weight=1.0, keep_edges=1.0, dropout=0.0, num_experts=2, num_neighbors=3)
    objective = set_up(method)
    batch = batch_of(INTERACTIONS)
    pairs, state = INTERACTIONS, MODEL.state()

    def errors(graph: Any, f: Any, student: Tensor, teacher: Tensor) -> Tensor:
        full = 0.5 * torch.from_numpy(normalised(graph).toarray()).float() + 0.5 * torch.eye(len(student))
        return 1 - F.cosine_similarity(full @ f(student), full @ teacher, dim=1)

    users, items = torch.arange(40), torch.arange(60)
    of_users = errors(
        co_occurring(pairs, 3), method.users, state.user_embeddings(users), KNOWLEDGE.user_embeddings(users)
    )
    of_items = errors(
        co_occurring(pairs.transpose(), 3),
        method.items,
        state.item_embeddings(items),
        KNOWLEDGE.item_embeddings(items),
    )
    sides = of_items[batch.unique_positives].mean() + of_items[batch.unique_negatives].mean()
    expected = of_users[batch.users].mean() + sides / 2
    assert loss_of(objective) == pytest.approx(float(expected.detach()), rel=1e-5)
