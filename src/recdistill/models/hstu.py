"""HSTU: gated attention without a softmax over a user's items, in order.

Zhai et al., Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations,
ICML 2024.

    x_t = √d · e_{i_t} + p_t                             i_t the t-th item of the history, p_t a learnt position
    U, V, Q, K = silu(N(x) W)                            side by side, split by heads
    A_ts = silu(Q_t · K_s + b_{t−s}) / n  for s ≤ t      n the maximum length, b learnt, one a distance and block
    x ← x + W_o (N(A V) ⊙ U) + b_o
    score of item j at t = cos(x_t, e_j) / τ

N is a layer norm without weights; dropout follows the sum of embedding and position, and what W_o multiplies. The
paper's b also has learnt steps of the time between the two items, which windows do not carry. It trains with τ = .05
and a softmax over the item and 128 sampled ones (``loss="sampled-softmax"``; here the step's rows share them);
``temperature=None`` makes the score x_t · e_j. Positions count from the oldest item read, as many as training reads.
Losses are means over targets in the authors' code too.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.data.sequences import Samples
from recdistill.models.base import rows_of
from recdistill.models.bpr import normal
from recdistill.models.sequence_batches import Places
from recdistill.models.sequence_state import Encoded
from recdistill.models.sequential import Head, LossName, SequenceModel, check_heads, layer_outputs, linear


class HSTU(SequenceModel):
    """Hierarchical sequential transduction units.

    Args:
        dim: length of a vector, at least 1 (paper: 50 on ML-1M).
        blocks: at least 1 (paper: 2; large: 8).
        heads: a divisor of ``dim`` (paper: 1; large: 2).
        dropout: share of numbers left out, within [0, 1) (paper: .2).
        temperature: τ of cosines, above 0 (paper: .05); None scores by the product of unscaled vectors.
        max_length: newest items of a history that make a window, at least 2 (paper: 200 on ML-1M, 50);
            with ``samples="shift-all"`` the newest is a target alone, and one less is read, in serving too.
        samples: training windows: ``shift-all`` takes each user's newest items (paper), ``windows`` older ones too,
            ``prefix`` makes one of every event with a target at its end alone.
        head: ``tied`` scores with the items' own vectors (paper), ``untied`` with another table and a bias.
        loss: ``softmax`` over all items, ``sampled-softmax`` (paper), ``bce`` or ``gbce``.
        num_negatives: of the last three, at least 1: a target, for ``sampled-softmax`` a step (paper: 128 a target).
        popularity: ``sampled-softmax`` draws items by their count to this power, within [0, 1]; 0 is uniform (paper).
        calibration: t of gBCE, within [0, 1].
        init_std: standard deviation of the initial weights, above 0 (paper: .02).
    """

    reads_positions = True

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        blocks: Annotated[int, Field(ge=1)] = 2,
        heads: Annotated[int, Field(ge=1)] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        temperature: Annotated[float, Field(gt=0)] | None = 0.05,
        max_length: Annotated[int, Field(ge=2)] = 50,
        samples: Samples = "shift-all",
        head: Head = "tied",
        loss: LossName = "softmax",
        num_negatives: Annotated[int, Field(ge=1)] = 1,
        popularity: Annotated[float, Field(ge=0, le=1)] = 0.0,
        calibration: Annotated[float, Field(ge=0, le=1)] = 0.75,
        init_std: Annotated[float, Field(gt=0)] = 0.02,
    ) -> None:
        super().__init__(**self.shared_options())
        check_heads(dim, heads)
        self.num_blocks, self.heads, self.dropout, self.temperature = blocks, heads, dropout, temperature

    def build_layers(self, generator: torch.Generator) -> None:
        self.position_table = nn.Parameter(normal(self.max_length - 1, self.dim, self.init_std, generator))
        self.blocks = nn.ModuleList(Block(self, generator) for _ in range(self.num_blocks))

    @property
    def output_table(self) -> Tensor:
        table = super().output_table
        return table if self.temperature is None else F.normalize(table, dim=1)

    def encode(self, places: Places) -> Encoded:
        order = places.slots.clamp(max=self.max_length - 2)  # what is only predicted has its neighbour's
        vectors = self.dim**0.5 * rows_of(self.item_table, places.items)
        embeddings = F.dropout(vectors + self.position_table[order], self.dropout, self.training)
        hidden = layer_outputs(self.blocks, embeddings, places)
        outputs = hidden[-1]
        if self.temperature is not None:
            outputs = F.normalize(outputs, dim=1) / self.temperature
        return Encoded(embeddings, hidden, outputs)


class Block(nn.Module):
    """x + W_o (N(A V) ⊙ U) + b_o."""

    def __init__(self, model: HSTU, generator: torch.Generator) -> None:
        super().__init__()
        dim, std = model.dim, model.init_std
        self.dim, self.heads, self.length, self.dropout = dim, model.heads, model.max_length, model.dropout
        self.inputs = linear(dim, 4 * dim, std, generator, bias=False)
        self.mix = linear(dim, dim, std, generator)
        self.distances = nn.Parameter(normal(1, model.max_length, std, generator)[0])

    def forward(self, x: Tensor, places: Places) -> Tensor:
        gates, others = F.silu(self.inputs(self._norm(x))).split([self.dim, 3 * self.dim], dim=1)
        found = self._norm(places.through(self._attend, others)) * gates
        return x + self.mix(F.dropout(found, self.dropout, self.training))

    def _attend(self, grid: Tensor) -> Tensor:
        """A V, from a grid (w, width, 3 dim) of values, queries and keys."""
        v, q, k = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in grid.chunk(3, dim=2))
        order = torch.arange(grid.shape[1], device=grid.device)
        back = order[:, None] - order
        weights = F.silu(q @ k.transpose(2, 3) + self.distances[back.clamp(min=0)]) / self.length
        found = weights.masked_fill(back < 0, 0) @ v
        return found.transpose(1, 2).flatten(2)  # from (w, heads, width, dim / heads)

    def _norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.dim,), eps=1e-6)
