"""CellNet: cells of convolutions over a user's items, in the architecture that a search found or a hand wrote.

The student of AdaRec: Chen et al., Scene-adaptive Knowledge Distillation for Sequential Recommendation via
Differentiable Architecture Search, 2021.

    x_t = √d · e_{i_t} + p_t                     i_t the t-th item of the history, p_t a learnt position
    x ← Cell_k(x),  k = 1…K                      K cells of one architecture, each with its own weights
    score of item j at t = x_t · e_j

An architecture is written node by node, apart by ``;``, each with its operations from the input and from every node
before it: ``conv3; skip, conv5`` is node 1 = conv3(input), node 2 = skip(input) + conv5(1). See
:mod:`recdistill.models.cells` for what a cell computes and :data:`recdistill.models.architecture.SPACES` for the
operations.

The paper's code has an output layer of its own and no factor √d (``head="untied"``; a table scales itself); dropout
is .1 after the embedding and before the output, as there. Positions count from the newest item. What lies further
back than the convolutions reach does not change an output, so lists and vectors of users are computed from as many
newest items alone. Losses are means over targets in the authors' code too.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.data.sequences import Samples
from recdistill.errors import OptionError
from recdistill.models.architecture import Architecture
from recdistill.models.base import rows_of
from recdistill.models.bpr import normal
from recdistill.models.cells import Cell, Neighbours
from recdistill.models.sequence_batches import Places
from recdistill.models.sequence_state import Encoded
from recdistill.models.sequential import Head, LossName, SequenceModel, layer_outputs


class CellNet(SequenceModel):
    """Cells of convolutions in a given architecture.

    Args:
        architecture: operations of a cell's edges, node by node: ``conv3; skip, conv5`` is node 1 = conv3(input),
            node 2 = skip(input) + conv5(1).
        cells: K, at least 1 (paper: 4).
        dim: length of a vector, at least 1 (paper: 32 or 64).
        dropout: share of numbers left out, within [0, 1) (paper's code: .1).
        causal: refuse operations that look ahead; false is for replicating the published space, whose scores
            of training rows are worthless.
        max_length: newest items of a history that make a window, at least 2 (paper's code: 10 to 50);
            with ``samples="shift-all"`` the newest is a target alone, and one less is read, in serving too.
        samples: training windows: ``shift-all`` takes each user's newest items, ``windows`` older ones too,
            ``prefix`` makes one of every event with a target at its end alone.
        head: ``tied`` scores with the items' own vectors, ``untied`` with another table and a bias (paper's code).
        loss: ``softmax`` over all items (paper), ``sampled-softmax``, ``bce`` or ``gbce``.
        num_negatives: of the last three, at least 1: a target, for ``sampled-softmax`` a step.
        popularity: ``sampled-softmax`` draws items by their count to this power, within [0, 1]; 0 is uniform.
        calibration: t of gBCE, within [0, 1].
        init_std: standard deviation of the initial tables, above 0.
    """

    reads_positions = True

    @validated
    def __init__(
        self,
        *,
        architecture: str = "conv3; skip, conv3d2; skip, none, conv5",
        cells: Annotated[int, Field(ge=1)] = 2,
        dim: Annotated[int, Field(ge=1)] = 16,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        causal: bool = True,
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
        self.architecture = Architecture.parse(architecture)
        if self.architecture.empty:
            raise OptionError(
                f"no node of the architecture '{self.architecture}' hears the input: it reads the newest item alone",
                "choose an operation other than 'none' for an edge from the input",
            )
        if causal and not self.architecture.causal:
            raise OptionError(
                f"the architecture '{self.architecture}' reads the item that is to be predicted",
                "use operations that look back only, or set causal = false",
            )
        self.num_cells, self.dropout = cells, dropout

    def build_layers(self, generator: torch.Generator) -> None:
        self.position_table = nn.Parameter(normal(self.max_length, self.dim, self.init_std, generator))
        self.cells = nn.ModuleList(
            Cell(self.architecture, self.dim, generator) for _ in range(self.num_cells)
        )

    @property
    def lookback(self) -> int:
        most = super().lookback
        return min(most, self.num_cells * self.architecture.reach + 1) if self.architecture.causal else most

    def encode(self, places: Places) -> Encoded:
        embeddings = embedded(self, self.position_table, places)
        hidden = layer_outputs(self.cells, embeddings, Neighbours(places))
        return Encoded(embeddings, hidden, F.dropout(hidden[-1], self.dropout, self.training))


def embedded(model: SequenceModel, positions: Tensor, places: Places) -> Tensor:
    """√d · e + p of the items, with dropout in training, shape ``(N, dim)``."""
    order = places.before.clamp(max=model.max_length - 1)
    vectors = model.dim**0.5 * rows_of(model.item_table, places.items) + positions[order]
    return F.dropout(vectors, float(model.options["dropout"]), model.training)
