"""Neighbour-based knowledge: vectors mixed with those of the teacher's nearest neighbours.

Zhu and Zhang, From Input to Output: A Multi-layer Knowledge Distillation Framework for Compressing Recommendation
Models, arXiv 2311.04549v1, 2023, the input layer. The equation follows the authors' first public code.

    s̃_x = (1 − ρ) ∘ p_x + ρ ∘ p_n,   t̃_x = (1 − ρ′) ∘ P_x + ρ′ ∘ P_n,   ρ, ρ′ ~ U(0, a)
    L(X) = mean over x ∈ X of 1 − cos(f(s̃_x), t̃_x)
    L = L(users) + ½ (L(positives) + L(negatives))

p student, P teacher; n: one of the K nearest neighbours of x in the teacher's space (Euclidean, after PCA), drawn
afresh each step; f: the mean of M networks, one such mean for users and one for items; ρ, ρ′: a number for each
dimension, or one for the step. ``neighbors="mean"`` mixes with the mean of all K, as the authors' later graph form
does, but without its edge dropout. Their later code puts the weight on the entity itself; here it is always the
neighbour's. p is what the student gives as its vectors: of graph models the propagated ones, not the table's.
Neighbours are found once, in blocks. Negatives count as in Distillation Experts.

A published weight λ on sums at batch B (n unique users, as many items a side) is ``weight = λ · n / B`` here: λ = 0.5
on CiteULike is about 0.35.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.projectors import (
    MeanExperts,
    cosine_error,
    embedding_dims,
    item_weights,
    mean_weights,
)
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State

_BLOCK_ROWS = 8192


class NKD(Distiller):
    """Neighbour-based Knowledge Distillation.

    Args:
        weight: of this term in the objective, above 0 (paper's code: 0.5 on sums, about 0.35 here).
        num_neighbors: K, of each row in the teacher's space, at least 1 (paper's code: 5).
        max_neighbor_weight: the neighbour's largest share, in (0, 1] (paper's code: 0.5).
        mixing: ``element`` draws a share for each dimension, ``scalar`` one for all rows and dimensions of a step.
        neighbors: ``one`` draws one neighbour a step, ``mean`` takes the mean of all.
        num_experts: M, networks whose mean is the projector, at least 1 (paper's code: 5).
        dropout: of the projector's inputs and hidden units, in [0, 1) (paper's code: 0.1).
        pca_dim: principal components in which neighbours are sought, at least 0; 0, or as many as the teacher has
            dimensions, seeks them in its own space (paper's code: 150).
    """

    needs = frozenset({"embeddings"})
    student_needs = frozenset({"embeddings"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.35,
        num_neighbors: Annotated[int, Field(ge=1)] = 5,
        max_neighbor_weight: Annotated[float, Field(gt=0, le=1)] = 0.5,
        mixing: Literal["element", "scalar"] = "element",
        neighbors: Literal["one", "mean"] = "one",
        num_experts: Annotated[int, Field(ge=1)] = 5,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        pca_dim: Annotated[int, Field(ge=0)] = 150,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.num_neighbors = num_neighbors
        self.max_neighbor_weight = max_neighbor_weight
        self.mixing = mixing
        self.neighbors = neighbors
        self.num_experts = num_experts
        self.dropout = dropout
        self.pca_dim = pca_dim

    def setup(self, context: Context) -> None:
        self.generator = context.generator
        knowledge, interactions = context.knowledge, context.interactions
        student_dim, teacher_dim = embedding_dims(context)
        network = student_dim, teacher_dim, max(1, (student_dim + teacher_dim) // 2)
        self.users = MeanExperts(*network, self.num_experts, self.dropout, self.generator)
        self.items = MeanExperts(*network, self.num_experts, self.dropout, self.generator)
        others = min(interactions.num_users, interactions.num_items) - 1
        self.num_neighbors = context.at_most(
            "num_neighbors", self.num_neighbors, others, "others that every user and item has"
        )
        tables = {
            "user_neighbors": knowledge.user_embeddings(torch.arange(interactions.num_users)),
            "item_neighbors": knowledge.item_embeddings(torch.arange(interactions.num_items)),
        }
        for name, table in tables.items():
            found = nearest(principal(table, self.pca_dim), self.num_neighbors)
            self.register_buffer(name, found, persistent=False)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users, items = batch.users, batch.items
        near_users = self._chosen(self.get_buffer("user_neighbors")[users])
        near_items = self._chosen(self.get_buffer("item_neighbors")[items])
        of_users = cosine_error(
            self.users(self._mixed(student.user_embeddings, users, near_users)),
            self._mixed(teacher.user_embeddings, users, near_users),
            mean_weights(users),
        )
        of_items = cosine_error(
            self.items(self._mixed(student.item_embeddings, items, near_items)),
            self._mixed(teacher.item_embeddings, items, near_items),
            item_weights(batch),
        )
        return of_users + of_items

    def _chosen(self, ids: Tensor) -> Tensor:
        """The neighbours that a step mixes in, of the K known ``(n, K)``: one or all."""
        if self.neighbors == "mean":
            return ids
        drawn = torch.randint(ids.shape[1], (len(ids), 1), generator=self.generator)
        return ids.gather(1, drawn.to(ids.device))

    def _mixed(self, vectors_of: Callable[[Tensor], Tensor], ids: Tensor, neighbors: Tensor) -> Tensor:
        own = vectors_of(ids)
        near = vectors_of(neighbors.reshape(-1)).view(*neighbors.shape, -1).mean(dim=1)
        shape = own.shape if self.mixing == "element" else (1, 1)
        share = torch.rand(shape, generator=self.generator).mul_(self.max_neighbor_weight)
        return mixed(own, near, share.to(own.device))


def mixed(own: Tensor, near: Tensor, share: Tensor) -> Tensor:
    """(1 − ρ) own + ρ near."""
    return own + share * (near - own)


def principal(vectors: Tensor, dims: int) -> Tensor:
    """The first ``dims`` principal components of vectors (n, d); the vectors themselves for 0, or d or more."""
    if dims == 0 or dims >= vectors.shape[1]:
        return vectors
    centred = vectors - vectors.mean(dim=0)
    axes = torch.linalg.eigh((centred.T @ centred).double()).eigenvectors[:, -dims:]  # of the largest values
    return centred @ axes.to(vectors.dtype)


@torch.no_grad()
def nearest(vectors: Tensor, k: int) -> Tensor:
    """The k nearest other rows of each row, nearest first, shape ``(n, k)``, int64.

    Distances are Euclidean, equal ones rank by smaller index. Where there are fewer than k others, the rest are
    the row itself.
    """
    count = len(vectors)
    penalty = -0.5 * vectors.square().sum(dim=1)  # x·y − ½‖y‖² orders as −‖x − y‖²
    found = torch.empty(count, k, dtype=torch.int64, device=vectors.device)
    for rows in torch.arange(count, device=vectors.device).split(_BLOCK_ROWS):
        itself = ops.Rows(torch.arange(len(rows) + 1, device=rows.device), rows.int())
        ids = ops.top_k(vectors[rows], vectors, k, bias=penalty, exclude=itself)[1]
        found[rows] = torch.where(ids < 0, rows[:, None], ids)
    return found
