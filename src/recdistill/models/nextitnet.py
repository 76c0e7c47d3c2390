"""NextItNet: dilated causal convolutions over a user's items.

Yuan et al., A Simple Convolutional Generative Network for Next Item Recommendation, WSDM 2019.

    x_t = e_{i_t}                                    i_t the t-th item of the history
    x ← x + g · relu(N(C_2δ(relu(N(C_δ(x))))))       for each δ of the dilations, the whole list `groups` times
    C_δ(x)_t = b + Σ_{j<k} W_j x_{t − jδ}            k taps, x before the first item is 0
    score of item j at t = o(x_t) · e'_j

N is a layer norm over channels, g a number that training starts at 0 (``gated``; Bachlechner et al., ReZero, UAI 2021)
or just 1. o is the identity, relu or a linear layer. This is the paper's block (b), its choice; there are no
positions, and what lies further back than the convolutions reach does not change an output, so lists and vectors of
users are computed from as many newest items alone.

The paper's output is relu before a table of its own (``output="relu", head="untied"``), without dropout; tied tables,
a linear layer and dropout are common in later comparisons. The windows' items lie end to end without padding, and
a convolution is one matrix product over them. Losses are means over targets, at all places, as in the authors' code.
A hidden state is what a group leaves.
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
from recdistill.models.cells import Neighbours, Reads
from recdistill.models.sequence_batches import Places
from recdistill.models.sequence_state import Encoded
from recdistill.models.sequential import Head, LossName, SequenceModel, linear


class NextItNet(SequenceModel):
    """Dilated causal convolutions.

    Args:
        dim: length of a vector, at least 1 (paper: 100 to 256).
        dilations: δ of the blocks of a group, each at least 1 (paper: 1, 4; its demonstration: 1, 2).
        groups: of blocks, at least 1 (paper: 3 to 8).
        kernel: k, at least 2 (paper: 3).
        gated: learn g; otherwise 1 (paper).
        output: o: ``plain``, ``relu`` (paper) or ``linear``.
        dropout: share of numbers left out of x at the start and at the end, within [0, 1) (paper: 0).
        max_length: newest items of a history that are read, at least 2 (paper: 10 to 100).
        samples: training windows: ``shift-all`` takes each user's newest items, ``windows`` older ones too (paper),
            ``prefix`` makes one of every event with a target at its end alone.
        head: ``tied`` scores with the items' own vectors, ``untied`` with another table and a bias (paper).
        loss: ``softmax`` over all items (paper), ``sampled-softmax``, ``bce`` or ``gbce``.
        num_negatives: of the last three, at least 1: a target, for ``sampled-softmax`` a step (paper: 20 % of items).
        popularity: ``sampled-softmax`` draws items by their count to this power, within [0, 1]; 0 is uniform.
        calibration: t of gBCE, within [0, 1].
        init_std: standard deviation of the initial weights, above 0 (paper: .02).
    """

    @validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1)] = 64,
        dilations: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 4),
        groups: Annotated[int, Field(ge=1)] = 2,
        kernel: Annotated[int, Field(ge=2)] = 3,
        gated: bool = False,
        output: Literal["plain", "relu", "linear"] = "plain",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
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
        self.dilations, self.num_groups, self.kernel = dilations, groups, kernel
        self.gated, self.output, self.dropout = gated, output, dropout

    def build_layers(self, generator: torch.Generator) -> None:
        self.groups = nn.ModuleList(
            nn.ModuleList(Block(self, dilation, generator) for dilation in self.dilations)
            for _ in range(self.num_groups)
        )
        if self.output == "linear":
            self.last = linear(self.dim, self.dim, self.init_std, generator)

    @property
    def lookback(self) -> int:
        reach = self.num_groups * (self.kernel - 1) * 3 * sum(self.dilations)
        return min(self.max_length, reach + 1)

    def encode(self, places: Places) -> Encoded:
        x = embeddings = self._drop(rows_of(self.item_table, places.items))
        neighbours = Neighbours(places)
        hidden: list[Tensor] = []
        for group in self.groups:
            assert isinstance(group, nn.ModuleList)
            for block in group:
                x = block(x, neighbours)
            hidden.append(x)
        if self.output == "linear":
            x = self.last(x)
        elif self.output == "relu":
            x = x.relu()
        return Encoded(embeddings, tuple(hidden), self._drop(x))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    """x + g · relu(N(C_2δ(relu(N(C_δ(x))))))."""

    def __init__(self, model: NextItNet, dilation: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = Convolution(model, dilation, generator)
        self.second = Convolution(model, 2 * dilation, generator)
        self.gate = nn.Parameter(torch.zeros(())) if model.gated else None

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        found = self.second(self.first(x, neighbours), neighbours)
        return x + found if self.gate is None else torch.addcmul(x, self.gate, found)


class Convolution(nn.Module):
    """relu(N(C_δ(x)))."""

    def __init__(self, model: NextItNet, dilation: int, generator: torch.Generator) -> None:
        super().__init__()
        self.back = [dilation * tap for tap in range(model.kernel - 1, -1, -1)]  # oldest first
        self.taps = linear(model.kernel * model.dim, model.dim, model.init_std, generator)
        self.norm = nn.LayerNorm(model.dim, eps=1e-8)

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        return self.norm(self.convolve(x, neighbours)).relu()

    def convolve(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        """C_δ(x), shape ``(N, dim)``."""
        reads = Reads(x, neighbours)
        return self.taps(torch.cat([reads.tap(back) for back in self.back], dim=1))
