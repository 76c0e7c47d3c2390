"""GRU4Rec: a recurrent network over a user's items, left to right.

Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016.

    x_t = e_{i_t}                                   i_t the t-th item of the history
    r_t = σ(W_r x_t + U_r s_{t−1}),  z_t = σ(W_z x_t + U_z s_{t−1})
    n_t = tanh(W_n x_t + r_t ⊙ U_n s_{t−1})
    s_t = (1 − z_t) ⊙ n_t + z_t ⊙ s_{t−1}           s_0 = 0; the next layer reads s as its x
    score of item j at t = (V s_t + c) · e'_j

The paper trains on sessions in parallel, one item a step, without going back in time, against the other items of the
batch. Here, as in most later comparisons, a step reads whole windows and goes back to their first item (Tan et al.,
Improved Recurrent Neural Networks for Session-based Recommendations, DLRS 2016), the loss is a softmax over all items
at all places, and a linear layer V leads from the state to the items' table. Dropout follows x, and each layer but the
last. Windows run together, each from its first item and without padding. Losses are means over targets.
"""

from __future__ import annotations

from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from recdistill.config import validated
from recdistill.data.sequences import Samples
from recdistill.models.base import rows_of
from recdistill.models.sequence_batches import Places
from recdistill.models.sequence_state import Encoded
from recdistill.models.sequential import Head, LossName, SequenceModel, linear


class GRU4Rec(SequenceModel):
    """Gated recurrent units.

    Args:
        dim: length of an item's vector, at least 1 (later comparisons: 64).
        hidden: length of s, at least 1; 2 dim by default (paper: 100 to 1000; later comparisons: 128).
        layers: of recurrence, at least 1 (paper: 1).
        dropout: share of numbers left out, within [0, 1) (later comparisons: .3).
        max_length: newest items of a history that are read, at least 2.
        samples: training windows: ``shift-all`` takes each user's newest items, ``windows`` older ones too,
            ``prefix`` makes one of every event with a target at its end alone.
        head: ``tied`` scores with the items' own vectors, ``untied`` with another table and a bias (paper).
        loss: ``softmax`` over all items, ``sampled-softmax``, ``bce`` or ``gbce``.
        num_negatives: of the last three, at least 1: a target, for ``sampled-softmax`` a step (authors' code: 2,048).
        popularity: ``sampled-softmax`` draws items by their count to this power, within [0, 1]; 0 is uniform.
        calibration: t of gBCE, within [0, 1].
        init_std: standard deviation of the initial tables, above 0.
    """

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        hidden: Annotated[int, Field(ge=1)] | None = None,
        layers: Annotated[int, Field(ge=1)] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3,
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
        self.hidden, self.num_layers, self.dropout = hidden or 2 * dim, layers, dropout

    def build_layers(self, generator: torch.Generator) -> None:
        sizes = [self.dim, *[self.hidden] * (self.num_layers - 1)]
        self.layers = nn.ModuleList(recurrence(size, self.hidden, generator) for size in sizes)
        self.last = linear(self.hidden, self.dim, self.hidden**-0.5, generator)

    def encode(self, places: Places) -> Encoded:
        embeddings = self._drop(rows_of(self.item_table, places.items))
        hidden: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, nn.GRU)
            hidden.append(run(layer, self._drop(hidden[-1]) if hidden else embeddings, places))
        return Encoded(embeddings, tuple(hidden), self.last(hidden[-1]))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def recurrence(inputs: int, hidden: int, generator: torch.Generator) -> nn.GRU:
    """A layer without bias, its weights uniform within ±1/sqrt(hidden)."""
    layer = nn.GRU(inputs, hidden, bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for weight in layer.parameters():
            weight.uniform_(-(hidden**-0.5), hidden**-0.5, generator=generator)
    return layer


def run(layer: nn.GRU, x: Tensor, places: Places) -> Tensor:
    """States after each item, ``(N, hidden)``, of inputs ``(N, n)``; each window begins at 0."""
    if not len(x):
        return x.new_zeros(0, layer.hidden_size)
    packed, place = time_major(x, places)
    found = cast(PackedSequence, layer(packed)[0])
    return found.data.index_select(0, place)


def time_major(x: Tensor, places: Places) -> tuple[PackedSequence, Tensor]:
    """The items of all windows by slot, the longest window first, and where each of the N is among them."""
    running = torch.bincount(places.slots, minlength=places.width)  # windows that have a slot
    starts = running.cumsum(0) - running
    rank = torch.empty_like(places.lengths)
    rank[places.lengths.argsort(descending=True, stable=True)] = torch.arange(len(rank), device=rank.device)
    place = starts[places.slots] + rank[places.owners]
    back = torch.empty_like(place).scatter_(0, place, torch.arange(len(place), device=place.device))
    return PackedSequence(x.index_select(0, back), running.cpu()), place
