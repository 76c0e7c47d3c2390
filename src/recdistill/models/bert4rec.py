"""BERT4Rec: attention both ways over a user's items, trained to fill in masked ones.

Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer, CIKM 2019.

    x_t = N(e_{i_t} + p_t)                       e of MASK where item t is masked, p_t a learnt position
    x ← N(x + A(x)),  x ← N(x + F(x))            A attention of several heads, F(x) = W₂ gelu(W₁ x + b₁) + b₂
    h_t = N(gelu(W x_t + b)),  score of item j at t = h_t · e_j + c_j
    L = mean over masked t of −log softmax(scores at t)_{i_t}

N is a layer norm, each with its own weights. Each step masks, window by window, either the newest item alone (with
chance ``last_share``) or each item with chance ``mask_share``, at least one. To recommend, MASK is appended to the
history. What an item becomes has seen later items, so this is all that lists, vectors and methods read: the answer at
MASK, given in the place of each window's newest item; the other items have none (:meth:`BERT4Rec.answered`).

The authors' code trains on ten fixed maskings of a history and one of its newest item; drawing anew follows later
replications. A masked item is always replaced by MASK, as in the paper. Positions count from the newest place.
Windows of one item train nothing. Losses are means over masked items in the authors' code too; many more epochs are
needed than for models that predict at every item (Petrov and Macdonald, RecSys 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import Samples
from recdistill.errors import OptionError
from recdistill.models.base import Batch, State, rows_of
from recdistill.models.bpr import normal
from recdistill.models.cloze import ClozeBatch, cloze_batch, draw_masks, newest_masks
from recdistill.models.sequence_batches import Places, sequence_batches
from recdistill.models.sequence_state import Encoded, SequenceState
from recdistill.models.sequential import Head, LossName, SequenceModel, check_heads, layer_outputs, linear


class BERT4Rec(SequenceModel):
    """Bidirectional attention with masked items.

    Args:
        dim: length of a vector, at least 1 (paper: 64).
        blocks: attention blocks, at least 1 (paper: 2).
        heads: of each attention, a divisor of ``dim`` (paper: 2).
        inner: units between W₁ and W₂, at least 1; 4 dim by default (paper).
        dropout: share of numbers left out, within [0, 1) (paper's code: .2 to .5).
        mask_share: chance of an item to be masked, within (0, 1) (paper: .2 on ML-1M, .4 to .6 on sparse data).
        last_share: chance of a window to have its newest item masked alone, within [0, 1] (others: .5).
        max_length: places that are read, MASK among them, at least 2 (paper: 200 on ML-1M, 50).
        samples: training windows: ``shift-all`` takes each user's newest items, ``windows`` older ones too (paper),
            ``prefix`` makes one of every event.
        head: ``tied`` scores with the items' own vectors (paper), ``untied`` with another table; both with a bias.
        loss: ``softmax`` over all items (paper), ``sampled-softmax``, ``bce`` or ``gbce``.
        num_negatives: of the last three, at least 1: a masked item, for ``sampled-softmax`` a step.
        popularity: ``sampled-softmax`` draws items by their count to this power, within [0, 1]; 0 is uniform.
        calibration: t of gBCE, within [0, 1].
        init_std: standard deviation of the initial weights, above 0 (paper: .02).
    """

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        blocks: Annotated[int, Field(ge=1)] = 2,
        heads: Annotated[int, Field(ge=1)] = 2,
        inner: Annotated[int, Field(ge=1)] | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        last_share: Annotated[float, Field(ge=0, le=1)] = 0.5,
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
        self.num_blocks, self.heads, self.inner, self.dropout = blocks, heads, inner or 4 * dim, dropout
        self.mask_share, self.last_share = mask_share, last_share

    def build_layers(self, generator: torch.Generator) -> None:
        self.mask_vector = nn.Parameter(normal(1, self.dim, self.init_std, generator)[0])
        self.position_table = nn.Parameter(normal(self.max_length, self.dim, self.init_std, generator))
        self.first_norm, self.last_norm = nn.LayerNorm(self.dim), nn.LayerNorm(self.dim)
        self.blocks = nn.ModuleList(Block(self, generator) for _ in range(self.num_blocks))
        self.last = linear(self.dim, self.dim, self.init_std, generator)
        if self.output_bias is None:
            self.output_bias = nn.Parameter(torch.zeros(self.num_items))

    @property
    def lookback(self) -> int:
        return self.max_length - 1

    def answered(self, places: Places) -> Tensor:
        return (places.from_end == 0).nonzero().squeeze(1)

    def encode(self, places: Places) -> Encoded:
        """The newest items of each window with MASK after them; 0 but for what is made of MASK (of its last item)."""
        windows = torch.full(places.mask.shape, -1, device=places.items.device)
        windows[places.mask] = places.items
        longer = Places(F.pad(windows[:, -self.lookback :], (0, 1), value=0))
        found = self.fill_in(longer, longer.from_end == 0)
        full = (places.lengths > 0).nonzero().squeeze(1)
        newest = self.answered(places)
        ends = longer.lengths.cumsum(0)[full] - 1

        def spread(values: Tensor, at: Tensor = ends) -> Tensor:
            rows = values.index_select(0, at)
            return rows.new_zeros(len(places.items), self.dim).index_copy(0, newest, rows)

        hidden = tuple(spread(layer) for layer in found.hidden_states)
        return Encoded(spread(found.embeddings, ends - 1), hidden, spread(found.outputs))

    def fill_in(self, places: Places, masked: Tensor) -> Encoded:
        """Run the layers over all items, those ``masked`` (N,) replaced by MASK."""
        vectors = torch.where(masked[:, None], self.mask_vector, rows_of(self.item_table, places.items))
        embeddings = self.drop(self.first_norm(vectors + self.position_table[places.from_end]))
        hidden = layer_outputs(self.blocks, embeddings, places)
        return Encoded(embeddings, hidden, self.last_norm(F.gelu(self.last(hidden[-1]))))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[ClozeBatch]:
        draw = self.negative_sampler(interactions, generator)
        for batch in sequence_batches(interactions, self.max_length, self.samples, batch_size, generator):
            masked = draw_masks(batch.sequences, self.mask_share, self.last_share, generator)
            yield cloze_batch(batch, masked, draw)

    def loss(self, state: State, batch: Batch) -> Tensor:
        assert isinstance(state, SequenceState)
        windows = state.batch
        assert windows is not None
        if not isinstance(windows, ClozeBatch):  # made for another model
            if self.loss_name != "softmax":
                raise OptionError(f"with loss = '{self.loss_name}' this model needs batches of its own")
            windows = cloze_batch(windows, newest_masks(windows.sequences))
        places = windows.places
        masked = windows.masked[places.mask]
        at = masked.nonzero().squeeze(1)
        outputs = self.fill_in(places, masked).outputs
        if not len(at):
            return outputs.sum() * 0.0
        positives = places.items[at]
        return self.loss_of(outputs.index_select(0, at), positives, windows.masked_negatives, windows.shared)


class Block(nn.Module):
    """x ← N(x + A(x)), x ← N(x + F(x))."""

    def __init__(self, model: BERT4Rec, generator: torch.Generator) -> None:
        super().__init__()
        dim, std = model.dim, model.init_std
        self.heads, self.dropout = model.heads, model.dropout
        self.attention = linear(dim, 3 * dim, std, generator)
        self.mix = linear(dim, dim, std, generator)
        self.first = linear(dim, model.inner, std, generator)
        self.second = linear(model.inner, dim, std, generator)
        self.norm_attention, self.norm_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        rate = self.dropout if self.training else 0.0
        found = attend_all(self.attention(x), places, self.heads, rate)
        x = self.norm_attention(x + self._drop(self.mix(found)))
        return self.norm_forward(x + self._drop(self.second(F.gelu(self.first(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def attend_all(projected: Tensor, places: Places, heads: int, dropout: float) -> Tensor:
    """Attention of each item over all items of its window.

    Args:
        projected: queries, keys and values side by side, shape ``(N, 3 dim)``.
        places: where the N items lie; no window without an item.
        heads: a divisor of dim.
        dropout: share of the attention's weights left out.

    Returns:
        Shape ``(N, dim)``.
    """

    def layer(grid: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in grid[..., :-1].chunk(3, dim=2))
        present = grid[:, None, None, :, -1] > 0  # a column of ones, zero after the end of a window
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=present, dropout_p=dropout)
        return found.transpose(1, 2).flatten(2)  # from (w, heads, width, dim / heads)

    return places.through(layer, torch.cat([projected, projected.new_ones(len(projected), 1)], dim=1))
