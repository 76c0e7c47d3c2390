"""XSimGCL: LightGCN whose one perturbed pass serves ranking and contrast.

Yu et al., XSimGCL: Towards Extremely Simple Graph Contrastive Learning for Recommendation, TKDE 2023.

    E^l = Â E^{l−1} + Δ^l,  Δ = sign(Â E^{l−1}) ⊙ ε r / ‖r‖ a row,  r ~ U[0, 1)^dim
    E = mean(E¹ … E^L), without the parameters E⁰
    L = mean softplus(−(s_ui − s_uj)) + c · (N(users) + N(positives)) + decay · ½ ‖E⁰ of the batch's rows‖² / n
    N(X) = mean over x ∈ X of LSE_{y ∈ X} cos(E_x, E^{l*}_y) / τ − cos(E_x, E^{l*}_x) / τ

Â is LightGCN's normalised graph, c ``contrast_weight``, l* ``contrast_layer``, τ ``temperature``, ε ``noise``; X are
the step's unique users, and its unique positives. The noise is drawn in training alone, from torch's own generator,
which a run seeds and keeps in its checkpoints. Tables start Xavier-uniform. Ranking loss and contrast are means, as in
the authors' code; code that sums the first at batch B matches with c / B here. The authors' penalty is on the final
vectors of users and positives, here it is LightGCN's.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill import ops
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.errors import OptionError
from recdistill.models.base import Batch, EmbeddingState, Recommender, State, rows_of
from recdistill.models.bpr import bpr_loss, pair_scores
from recdistill.models.lightgcn import initial_penalty, normalised_adjacency, smooth


class XSimGCLState(EmbeddingState):
    """The propagated vectors, and those of the layer that they are contrasted with."""

    def __init__(self, table: Tensor, contrast: Tensor, num_users: int) -> None:
        super().__init__(table[:num_users], table[num_users:])
        self.user_contrast = contrast[:num_users]
        self.item_contrast = contrast[num_users:]


class XSimGCL(Recommender):
    """Graph convolution with noise and a cross-layer contrast.

    Args:
        dim: length of a vector, at least 1 (paper: 64).
        num_layers: propagations L, at least 1 (paper: 2 or 3).
        contrast_layer: l*, from 1 to L (paper: 1).
        contrast_weight: c, at least 0 (paper: 0.2).
        temperature: τ, above 0 (paper: 0.2).
        noise: ε, the length of a row's perturbation, at least 0 (paper: 0.2).
        num_negatives: unobserved items a row, at least 1 (paper: 1).
        embedding_decay: weight of the penalty on the batch's initial vectors, at least 0 (paper: 1e-4).
    """

    tables = ("table",)

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        num_layers: Annotated[int, Field(ge=1)] = 2,
        contrast_layer: Annotated[int, Field(ge=1)] = 1,
        contrast_weight: Annotated[float, Field(ge=0)] = 0.2,
        temperature: Annotated[float, Field(gt=0)] = 0.2,
        noise: Annotated[float, Field(ge=0)] = 0.2,
        num_negatives: Annotated[int, Field(ge=1)] = 1,
        embedding_decay: Annotated[float, Field(ge=0)] = 1e-4,
    ) -> None:
        super().__init__()
        if contrast_layer > num_layers:
            raise OptionError(
                f"contrast_layer must be at most num_layers, {num_layers}; found {contrast_layer}"
            )
        self.dim = dim
        self.num_layers = num_layers
        self.contrast_layer = contrast_layer
        self.contrast_weight = contrast_weight
        self.temperature = temperature
        self.noise = noise
        self.embedding_decay = embedding_decay

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        table = torch.empty(self.num_users + self.num_items, self.dim)  # users, then items
        for part in (table[: self.num_users], table[self.num_users :]):
            bound = math.sqrt(6 / (part.shape[0] + self.dim))
            part.uniform_(-bound, bound, generator=generator)
        self.table = nn.Parameter(table)
        self._adjacency = normalised_adjacency(interactions)

    def attach(self, users: Any, items: Any, train_pairs: Interactions) -> None:
        super().attach(users, items, train_pairs)
        self._adjacency = normalised_adjacency(train_pairs)

    def state(self, batch: Batch | None = None) -> XSimGCLState:
        layer, total = self.table, torch.zeros_like(self.table)
        contrast = layer
        self._adjacency = self._adjacency.to(self.table.device)
        with torch.autocast(self.table.device.type, enabled=False):  # CSR products exist in float32 alone
            for number in range(1, self.num_layers + 1):
                layer = smooth(self._adjacency, layer)
                if self.training and self.noise > 0:
                    layer = layer + perturbation(layer.detach(), self.noise)
                total = total + layer
                if number == self.contrast_layer:
                    contrast = layer
        return XSimGCLState(total / self.num_layers, contrast, self.num_users)

    def loss(self, state: State, batch: Batch) -> Tensor:
        loss = bpr_loss(pair_scores(state, batch))
        if self.contrast_weight > 0:
            assert isinstance(state, XSimGCLState)
            users, items = batch.users, batch.unique_positives
            of_users = info_nce(
                state.user_embeddings(users), rows_of(state.user_contrast, users), self.temperature
            )
            of_items = info_nce(
                state.item_embeddings(items), rows_of(state.item_contrast, items), self.temperature
            )
            loss = loss + self.contrast_weight * (of_users + of_items)
        if self.embedding_decay > 0:
            loss = loss + self.embedding_decay * initial_penalty(self.table, self.num_users, batch)
        return loss


def perturbation(layer: Tensor, noise: float) -> Tensor:
    """Random rows of length ``noise`` in the orthant of the rows of ``layer`` (n, dim)."""
    return layer.sign() * F.normalize(torch.rand_like(layer), dim=1) * noise


def info_nce(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Mean over rows of the cross-entropy of finding ``other``'s row by ``one``'s (both ``(n, dim)``) by cosine."""
    logits = F.normalize(one, dim=1, eps=1e-12) @ F.normalize(other, dim=1, eps=1e-12).T / temperature
    return F.cross_entropy(ops.full_precision(logits), torch.arange(len(one), device=one.device))
