"""FreqD: vectors are compared after a low-pass filter on the graph of entities that occur together.

Zhu and Zhang, Exploring Feature-based Knowledge Distillation for Recommender System: A Frequency Perspective, KDD 2025.

    H = α Ã + (1 − α) I
    L(X) = mean over x ∈ X of d((H f(p))_x, (H P)_x),   d(a, b) = 1 − cos(a, b)  or  ‖a − b‖²
    L = L(users) + ½ (L(positives) + L(negatives))

p student, P teacher, all entities of a side. Ã: each entity points at the K others with which it shares the most train
pairs, with weight 1; (A + Aᵀ)/2, then D^-½ A D^-½. Each step drops edges, and the kept ones grow by 1/keep; both sides
see the same graph. f: the mean of M networks of dT hidden units. An error in a direction of eigenvalue μ of Ã counts
(1 − α + αμ)² fold: smooth errors more.

Against the authors' code: an entity is never its own neighbour and entities that share nothing are none (there, the
first of K + 1 is taken for the entity itself, and short rows are filled up with any); student and teacher vectors are
of one kind (there, LightGCN's initial vectors against the teacher's final ones); only the batch and its neighbours
are projected. The filter is applied to the hidden units, since it commutes with the last, linear map; co-occurrence
is counted in blocks and stays sparse.

A published weight λ on sums at batch B (n unique users, as many items a side) is ``weight = λ · n / B`` here: λ = 0.5
is about 0.35.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.graphs import Bags, Graph, co_occurring, normalised
from recdistill.distillers.projectors import (
    MeanExperts,
    cosine_error,
    embedding_dims,
    item_weights,
    mean_weights,
    squared_error,
)
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class FreqD(Distiller):
    """Frequency-aware feature distillation.

    Args:
        weight: of this term in the objective, above 0 (paper's code: 0.5 on sums, about 0.35 here).
        filter_weight: α, share of the neighbours in the filter, in [0, 1] (paper's code: 0.5).
        num_neighbors: K, of each row in the graph, at least 1 (paper's code: 5).
        keep_edges: share of the graph's edges that a step keeps, in (0, 1] (paper's code: 0.5).
        num_experts: M, networks whose mean is the projector, at least 1 (paper's code: 5).
        dropout: of the projector's inputs and hidden units, in [0, 1) (paper's code: 0.2).
        distance: ``cosine`` or ``squared`` (paper's code: cosine).
    """

    needs = frozenset({"embeddings"})
    student_needs = frozenset({"embeddings"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.35,
        filter_weight: Annotated[float, Field(ge=0, le=1)] = 0.5,
        num_neighbors: Annotated[int, Field(ge=1)] = 5,
        keep_edges: Annotated[float, Field(gt=0, le=1)] = 0.5,
        num_experts: Annotated[int, Field(ge=1)] = 5,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        distance: Literal["cosine", "squared"] = "cosine",
    ) -> None:
        super().__init__()
        self.weight = weight
        self.filter_weight = filter_weight
        self.num_neighbors = num_neighbors
        self.keep_edges = keep_edges
        self.num_experts = num_experts
        self.dropout = dropout
        self.distance = distance

    def setup(self, context: Context) -> None:
        self.generator = context.generator
        student_dim, teacher_dim = embedding_dims(context)
        network = student_dim, teacher_dim, teacher_dim, self.num_experts, self.dropout, self.generator
        self.users, self.items = MeanExperts(*network), MeanExperts(*network)
        pairs = context.interactions
        self.user_graph = Graph(normalised(co_occurring(pairs, self.num_neighbors)))
        self.item_graph = Graph(normalised(co_occurring(pairs.transpose(), self.num_neighbors)))

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users, items = self._bags(self.user_graph, batch.users), self._bags(self.item_graph, batch.items)
        of_users = self._error(
            self.users,
            users,
            student.user_embeddings(users.ids),
            teacher.user_embeddings(users.ids),
            mean_weights(batch.users),
        )
        of_items = self._error(
            self.items,
            items,
            student.item_embeddings(items.ids),
            teacher.item_embeddings(items.ids),
            item_weights(batch),
        )
        return of_users + of_items

    def _bags(self, graph: Graph, rows: Tensor) -> Bags:
        return graph.bags(rows, self.filter_weight, self.keep_edges, self.generator)

    def _error(
        self, f: MeanExperts, bags: Bags, student: Tensor, teacher: Tensor, row_weight: Tensor
    ) -> Tensor:
        hidden = bags.apply(f.hidden(student))
        projected = f.output(hidden, bags.sums()[:, None])
        error = cosine_error if self.distance == "cosine" else squared_error
        return error(projected, bags.apply(teacher), row_weight)
