"""SASRec: self-attention over a user's items, in order.

Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018.

    x_t = √d · e_{i_t} + p_t                     i_t the t-th item of the history, p_t a learnt position
    x ← N(x) + A(N(x), x, x)                     A causal attention of several heads
    x ← N(x) + F(N(x)),  F(x) = W₂ relu(W₁ x + b₁) + b₂
    h = N(x) after the last block,  score of item j at t = h_t · e_j

N is a layer norm, each with its own weights. Dropout follows the sum of embedding and position, the attention's
weights and output, relu and F. ``norm="paper"`` is the above, in which only the queries are normalised; ``pre``
normalises what enters A and F (x ← x + A(N(x)), x ← x + F(N(x)), h = N(x)), ``post`` what leaves them
(x ← N(x + A(x)), x ← N(x + F(x)), h = x). The attention ends with a linear layer; the authors' code has none
(``attention_output``). ``gated`` makes a block x + g · block(x), g a number that training starts at 0 (Bachlechner et
al., ReZero, UAI 2021), as deep teachers of other papers have it.

The paper trains with BCE and one negative a position; the full softmax is much better (Klenitskiy and Vasilev, RecSys
2023) and the default here. Positions count from the newest item, as in the authors' code, or from the window's oldest.
Padding takes no part: no layer sees it, so that the length to which a batch is padded changes nothing. The newest item
of a history is only predicted in training; where a method reads a user's vector at it, a pass of its own gives items
the positions that they have when the model is served. Losses are means over targets in the authors' code too.
"""

from __future__ import annotations

from typing import Annotated, Literal

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

Norm = Literal["pre", "post", "paper"]


class SASRec(SequenceModel):
    """Self-attentive sequential recommendation.

    Args:
        dim: length of a vector, at least 1 (paper: 50).
        blocks: attention blocks, at least 1 (paper: 2).
        heads: of each attention, a divisor of ``dim`` (paper: 1).
        inner: units between W₁ and W₂, at least 1; ``dim`` by default (paper: dim; others: 4 dim).
        dropout: share of numbers left out, within [0, 1) (paper: .2 on ML-1M, .5 on sparse data).
        attention_dropout: the same for the attention's weights; ``dropout`` by default. At 0 attention takes a third of
            the time on a CPU.
        norm: where layer norms stand: ``pre``, ``post``, or ``paper``.
        activation: of F: ``relu`` (paper) or ``gelu``.
        attention_output: end the attention with a linear layer (authors' code: False).
        gated: learn g.
        positions: count places from the newest item (``end``, paper) or from the oldest one read (``start``).
        max_length: newest items of a history that make a window, at least 2 (paper: 200 on ML-1M, 50);
            with ``samples="shift-all"`` the newest is a target alone, and one less is read, in serving too.
        samples: training windows: ``shift-all`` takes each user's newest items, ``windows`` older ones too, ``prefix``
            makes one of every event with a target at its end alone.
        head: ``tied`` scores with the items' own vectors (paper), ``untied`` with another table and a bias.
        loss: ``softmax`` over all items, ``sampled-softmax``, ``bce`` (paper) or ``gbce``.
        num_negatives: of the last three, at least 1: a target, for ``sampled-softmax`` a step (paper: 1; gSASRec: 256).
        popularity: ``sampled-softmax`` draws items by their count to this power, within [0, 1]; 0 is uniform.
        calibration: t of gBCE, within [0, 1] (gSASRec: .75).
        init_std: standard deviation of the initial weights, above 0.
    """

    reads_positions = True

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        blocks: Annotated[int, Field(ge=1)] = 2,
        heads: Annotated[int, Field(ge=1)] = 1,
        inner: Annotated[int, Field(ge=1)] | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None,
        norm: Norm = "pre",
        activation: Literal["relu", "gelu"] = "relu",
        attention_output: bool = True,
        gated: bool = False,
        positions: Literal["end", "start"] = "end",
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
        self.num_blocks, self.heads, self.inner = blocks, heads, inner or dim
        self.dropout, self.norm, self.activation, self.positions = dropout, norm, activation, positions
        self.attention_output, self.gated = attention_output, gated
        self.attention_dropout = dropout if attention_dropout is None else attention_dropout

    def build_layers(self, generator: torch.Generator) -> None:
        self.position_table = nn.Parameter(normal(self.max_length, self.dim, self.init_std, generator))
        self.blocks = nn.ModuleList(Block(self, generator) for _ in range(self.num_blocks))
        self.last_norm = nn.Identity() if self.norm == "post" else nn.LayerNorm(self.dim)

    def encode(self, places: Places) -> Encoded:
        order = places.before if self.positions == "end" else places.slots
        order = order.clamp(max=self.max_length - 1)
        vectors = self.dim**0.5 * rows_of(self.item_table, places.items)
        embeddings = self._drop(vectors + self.position_table[order])
        hidden = layer_outputs(self.blocks, embeddings, places)
        return Encoded(embeddings, hidden, self.last_norm(hidden[-1]))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    """Attention, then two layers item by item, with the norms where ``model.norm`` has them."""

    def __init__(self, model: SASRec, generator: torch.Generator) -> None:
        super().__init__()
        dim, std = model.dim, model.init_std
        self.heads, self.norm, self.activation = model.heads, model.norm, model.activation
        self.dropout, self.attention_dropout = model.dropout, model.attention_dropout
        self.queries = linear(dim, dim, std, generator)
        self.keys_values = linear(dim, 2 * dim, std, generator)
        self.mix = linear(dim, dim, std, generator) if model.attention_output else nn.Identity()
        self.first = linear(dim, model.inner, std, generator)
        self.second = linear(model.inner, dim, std, generator)
        self.norm_attention, self.norm_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.gate = nn.Parameter(torch.zeros(())) if model.gated else None

    def forward(self, x: Tensor, places: Places) -> Tensor:
        found = self._layers(x, places)
        return found if self.gate is None else torch.addcmul(x, self.gate, found)

    def _layers(self, x: Tensor, places: Places) -> Tensor:
        if self.norm == "post":
            x = self.norm_attention(x + self._attend(x, x, places))
            return self.norm_forward(x + self._forward(x))
        normed = self.norm_attention(x)
        if self.norm == "paper":
            x = self.norm_forward(normed + self._attend(normed, x, places))
            return x + self._forward(x)
        x = x + self._attend(normed, normed, places)
        return x + self._forward(self.norm_forward(x))

    def _attend(self, queries: Tensor, x: Tensor, places: Places) -> Tensor:
        dropout = self.attention_dropout if self.training else 0.0
        found = attend(self.queries(queries), self.keys_values(x), places, self.heads, dropout)
        return self._drop(self.mix(found))

    def _forward(self, x: Tensor) -> Tensor:
        inner = self.first(x)
        inner = inner.relu() if self.activation == "relu" else F.gelu(inner)
        return self._drop(self.second(self._drop(inner)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def attend(queries: Tensor, keys_values: Tensor, places: Places, heads: int, dropout: float) -> Tensor:
    """Causal attention of each item over those before it in its window and itself.

    Args:
        queries: shape ``(N, dim)``.
        keys_values: keys and values side by side, shape ``(N, 2 dim)``.
        places: where the N items lie.
        heads: a divisor of dim.
        dropout: share of the attention's weights left out.

    Returns:
        Shape ``(N, dim)``.
    """
    dim = queries.shape[1]

    def layer(grid: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in grid.split(dim, dim=2))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        return found.transpose(1, 2).flatten(2)  # from (w, heads, width, dim / heads)

    return places.through(layer, torch.cat([queries, keys_values], dim=1))
