"""LightGCN: vectors smoothed over the user-item graph.

He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020.

    E⁰ = the parameters, E^{l+1} = D^{-1/2} A D^{-1/2} E^l, E = mean(E⁰ … E^L)      (eqs. 3, 4, 8)
    L = mean softplus(−(s_ui − s_uj)) + decay · ½ ‖E⁰ of the batch's rows‖² / n     (eq. 15)

A is the bipartite adjacency without self-loops, kept as CSR. One propagation a step, whatever reads the state.
Repeated users and items of a batch count once a row in the penalty, as in the authors' code.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch, EmbeddingState, Recommender, State, rows_of
from recdistill.models.bpr import bpr_loss, normal, pair_scores


class _Smooth(torch.autograd.Function):
    """Product with a symmetric sparse matrix; its gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, table: Tensor) -> Tensor:
        ctx.adjacency = adjacency.to(table.dtype)
        return ctx.adjacency @ table

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        return None, ctx.adjacency @ grad_outputs[0].contiguous()


def smooth(adjacency: Tensor, table: Tensor) -> Tensor:
    """One propagation: the product of a symmetric CSR matrix with ``table`` (n, dim), with gradient."""
    return _Smooth.apply(adjacency, table)  # pyright: ignore[reportReturnType]


def normalised_adjacency(interactions: Interactions) -> Tensor:
    """D^{-1/2} A D^{-1/2} of the bipartite graph, CSR of shape ``(U + I, U + I)``, float32; O(pairs) memory."""
    users, items = interactions.num_users, interactions.num_items
    back = interactions.transpose()
    degree = torch.cat([interactions.user_counts, interactions.item_counts]).float()
    scale = degree.clamp(min=1).rsqrt()
    indptr = torch.cat([interactions.indptr, interactions.indptr[-1] + back.indptr[1:]])
    columns = torch.cat([interactions.items.long() + users, back.items.long()])
    rows = torch.repeat_interleave(torch.arange(users + items), indptr.diff())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            indptr, columns, scale[rows] * scale[columns], (users + items,) * 2, check_invariants=False
        )


class LightGCN(Recommender):
    """Graph convolution without weights or non-linearities.

    Args:
        dim: length of a vector, at least 1 (paper: 64).
        num_layers: propagations L, at least 0 (paper: 3).
        num_negatives: unobserved items a row, at least 1 (paper: 1).
        init_std: standard deviation of the initial vectors, above 0 (paper: 0.1).
        embedding_decay: weight of the penalty on the batch's initial vectors, at least 0 (paper: 1e-4).
    """

    tables = ("table",)

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        num_layers: Annotated[int, Field(ge=0)] = 3,
        num_negatives: Annotated[int, Field(ge=1)] = 1,
        init_std: Annotated[float, Field(gt=0)] = 0.1,
        embedding_decay: Annotated[float, Field(ge=0)] = 1e-4,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_layers = num_layers
        self.init_std = init_std
        self.embedding_decay = embedding_decay
        self._adjacency: Tensor | None = None

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        table = normal(self.num_users + self.num_items, self.dim, self.init_std, generator)
        self.table = nn.Parameter(table)  # users, then items
        self.attach_graph(interactions)

    def attach_graph(self, interactions: Interactions) -> None:
        """Set the graph to smooth over: the train pairs."""
        self._adjacency = normalised_adjacency(interactions)

    def attach(self, users: Any, items: Any, train_pairs: Interactions) -> None:
        super().attach(users, items, train_pairs)
        self.attach_graph(train_pairs)

    def adjacency(self) -> Tensor:
        """The graph, on the parameters' device."""
        if self._adjacency is None:
            raise RuntimeError("the graph is set by build() or attach()")
        if self._adjacency.device != self.table.device:
            self._adjacency = self._adjacency.to(self.table.device)
        return self._adjacency

    def state(self, batch: Batch | None = None) -> EmbeddingState:
        layer = mean = self.table
        with torch.autocast(self.table.device.type, enabled=False):  # CSR products exist in float32 alone
            for _ in range(self.num_layers):
                layer = smooth(self.adjacency(), layer)
                mean = mean + layer
        mean = mean / (self.num_layers + 1)
        return EmbeddingState(mean[: self.num_users], mean[self.num_users :])

    def loss(self, state: State, batch: Batch) -> Tensor:
        loss = bpr_loss(pair_scores(state, batch))
        if self.embedding_decay == 0:
            return loss
        return loss + self.embedding_decay * initial_penalty(self.table, self.num_users, batch)


def initial_penalty(table: Tensor, num_users: int, batch: Batch) -> Tensor:
    """½ ‖E⁰ of the batch's rows‖² / n, with ``table`` holding users, then items."""
    items = [batch.positives] if batch.negatives is None else [batch.positives, batch.negatives.reshape(-1)]
    rows = torch.cat([batch.row_users, *(ids + num_users for ids in items)])
    return 0.5 * rows_of(table, rows).square().sum() / len(batch)
