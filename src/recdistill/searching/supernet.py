"""The supernet: every architecture of a space in one sequence model, and the parameters that choose among them.

    z = onehot(argmax y), y = softmax((log softmax(α) + g) / τ)      one row of α an edge, shared by all cells x ←
    MixedCell_k(x; z),  k = 1…K output = Σ_k d_k x_k                                            d: the same of δ,
    which chooses the number of cells

g is Gumbel noise, drawn anew at each forward of training; evaluation takes the architecture that would be derived. α
and δ learn with an optimiser of their own: from the batches of the weights (one level, as published), or from users
held out from those (``bilevel``, first order, as DARTS does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill import config
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import Samples
from recdistill.errors import DataError
from recdistill.models.architecture import SPACES, Architecture
from recdistill.models.base import ParameterGroup
from recdistill.models.bpr import normal
from recdistill.models.cellnet import CellNet, embedded
from recdistill.models.cells import Neighbours
from recdistill.models.sequence_batches import Places, SequenceBatch
from recdistill.models.sequence_state import Encoded
from recdistill.models.sequential import Head, LossName, SequenceModel
from recdistill.searching.derivation import space
from recdistill.searching.mixture import MixedCell, Mixture
from recdistill.searching.relaxation import chosen, gumbel, relaxed, straight_through


class Supernet(SequenceModel):
    """Every architecture of a space in one model.

    Args:
        operations: candidates of an edge, in order.
        nodes: N, of a cell, at least 1 (paper: 3).
        cells: K, at least 1 (paper: 4).
        search_cells: the number of cells is chosen too, from 1 to K (paper: always K).
        mixture: ``full`` evaluates every candidate (paper), ``single`` the drawn one.
        causal: refuse operations that look ahead.
        architecture_rate: learning rate of α and δ, above 0 (paper's code: 2e-5, which hardly moves them).
        architecture_decay: their weight decay in the gradient, at least 0 (paper's code: 1e-4, but as AdamW's,
            which at its rate is none).
        bilevel: α and δ learn from half of the users, the weights from the others (paper: false).
        dim: length of a vector, at least 1.
        dropout: share of numbers left out, within [0, 1).
        max_length: newest items of a history that are read, at least 2.
        samples: how histories become training windows.
        head: ``tied`` or ``untied``.
        loss: of training.
        num_negatives: as for :class:`~recdistill.models.cellnet.CellNet`.
        init_std: standard deviation of the initial tables, above 0.
        popularity: as for :class:`~recdistill.models.cellnet.CellNet`.
        calibration: likewise.

    Attributes:
        derivation: the architecture and its number of cells that α and δ stand for now, which evaluation computes; the
            largest α and δ where there is none.
    """

    reads_positions = True
    tables = (*SequenceModel.tables, "held_out_users")
    temperature: Tensor
    frozen_architecture: Tensor
    held_out_users: Tensor

    @validated
    def __init__(
        self,
        *,
        operations: tuple[str, ...] = SPACES["causal"],
        nodes: Annotated[int, Field(ge=1)] = 3,
        cells: Annotated[int, Field(ge=1)] = 4,
        search_cells: bool = True,
        mixture: Mixture = "full",
        causal: bool = True,
        architecture_rate: Annotated[float, Field(gt=0)] = 1e-3,
        architecture_decay: Annotated[float, Field(ge=0)] = 0.0,
        bilevel: bool = False,
        dim: Annotated[int, Field(ge=1)] = 16,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
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
        self.operations = space(operations, causal)
        self.num_nodes, self.num_cells, self.search_cells = nodes, cells, search_cells and cells > 1
        self.mixture: Mixture = mixture
        self.bilevel, self.dropout = bilevel, dropout
        self.architecture_rate, self.architecture_decay = architecture_rate, architecture_decay
        self.most_layers = cells
        self.generator: torch.Generator | None = None
        self.derivation: Callable[[], tuple[Architecture, int]] | None = None
        self._derived: tuple[Tensor, Tensor] | None = None
        self.drawn: tuple[Tensor, Tensor] | None = None

    @property
    def num_edges(self) -> int:
        return self.num_nodes * (self.num_nodes + 1) // 2

    def build_layers(self, generator: torch.Generator) -> None:
        self.position_table = nn.Parameter(normal(self.max_length, self.dim, self.init_std, generator))
        self.cells = nn.ModuleList(
            MixedCell(self.operations, self.num_nodes, self.dim, generator) for _ in range(self.num_cells)
        )
        self.architecture = nn.ParameterDict(
            {
                "operations": normal(self.num_edges, len(self.operations), 0.01, generator),
                "cells": normal(1, self.num_cells, 0.01, generator),
            }
        )
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("frozen_architecture", torch.zeros((), dtype=torch.bool))
        half = torch.rand(self.num_users, generator=generator) < 0.5
        self.register_buffer("held_out_users", half & torch.tensor(self.bilevel))

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        return (
            ParameterGroup("architecture.", self.architecture_rate, self.architecture_decay, self.bilevel),
        )

    # choices

    def shares(self) -> tuple[Tensor, Tensor]:
        """softmax(α), shape ``(edges, operations)``, and softmax(δ), shape ``(K,)``."""
        found = (torch.softmax(self.architecture[name].detach(), dim=1) for name in ("operations", "cells"))
        operations, cells = found
        return operations, cells[0]

    def _choices(self) -> tuple[Tensor, Tensor]:
        """z, shape ``(edges, operations)``, and d, shape ``(K,)``."""
        alpha, delta = self.architecture["operations"], self.architecture["cells"]
        if not self.search_cells:
            delta = F.one_hot(torch.tensor([self.num_cells - 1]), self.num_cells).to(alpha) * 1e9
        if not self.training:
            if self._derived is None:
                self._derived = self._derive(alpha.detach(), delta.detach())
            return self._derived
        if bool(self.frozen_architecture):
            alpha, delta = alpha.detach(), delta.detach()
        source = self.generator or torch.default_generator
        drawn: list[Tensor] = []
        for logits in (alpha, delta):
            noise = gumbel((logits.shape[0], logits.shape[1]), source).to(logits)
            drawn.append(straight_through(relaxed(logits, noise, float(self.temperature))))
        return drawn[0], drawn[1][0]

    def _derive(self, alpha: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        if self.derivation is None:
            return chosen(alpha), chosen(delta)[0]
        architecture, cells = self.derivation()
        choices = torch.zeros_like(alpha)
        for edge, name in enumerate(architecture.edges):
            if name in self.operations:  # an edge without operation is a row of zeros
                choices[edge, self.operations.index(name)] = 1.0
        return choices, F.one_hot(torch.tensor(cells - 1), self.num_cells).to(alpha)

    def train(self, mode: bool = True) -> Supernet:
        self._derived = None
        super().train(mode)
        return self

    # the sequence model

    def encode(self, places: Places) -> Encoded:
        choices, depth = self.drawn = self._choices()
        mixture = self.mixture if self.training else "single"
        last = int(depth.detach().argmax())
        x = embeddings = embedded(self, self.position_table, places)
        neighbours, hidden = Neighbours(places), list[Tensor]()
        learns = depth.requires_grad and self.search_cells
        for number, cell in enumerate(self.cells):
            if number > last and not learns:
                break
            with torch.set_grad_enabled(torch.is_grad_enabled() and number <= last):  # deeper ones weigh 0
                x = cell(x, neighbours, choices, mixture)
            hidden.append(x)
        output = hidden[last] * depth[last]
        for number, layer in enumerate(hidden):
            if number != last:
                output = torch.addcmul(output, layer, depth[number])
        return Encoded(embeddings, tuple(hidden[: last + 1]), F.dropout(output, self.dropout, self.training))

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[SequenceBatch]:
        if not self.bilevel:
            yield from super().batches(interactions, batch_size, generator)
            return
        held_out = self.held_out_users.cpu()
        own, others = of_users(interactions, ~held_out), of_users(interactions, held_out)
        for what, part in (("the weights", own), ("the architecture", others)):
            if not bool((part.event_indptr.diff() >= 2).any()):
                raise DataError(
                    f"no user with two train rows is left for {what}: with bilevel each has about half of the users",
                    "set search.bilevel = false",
                )
        apart = iter(())
        for batch in super().batches(own, batch_size, generator):
            other = next(apart, None)
            if other is None:
                apart = super().batches(others, batch_size, generator)
                other = next(apart)
            yield SearchBatch(**{f.name: getattr(batch, f.name) for f in fields(batch)}, apart=other)

    # what comes out

    def weights_of(self, architecture: Architecture, cells: int) -> dict[str, Tensor]:
        """The state of a :class:`~recdistill.models.cellnet.CellNet` that computes what this model does with them."""
        kept = ("item_table", "position_table", "own_output_table", "output_bias")
        found = {name: value for name, value in self.state_dict().items() if name in kept}
        for number in range(cells):
            cell = self.cells[number]
            assert isinstance(cell, MixedCell)
            found |= {f"cells.{number}.{key}": value for key, value in cell.weights_of(architecture).items()}
        return found

    def student(self, architecture: Architecture, cells: int) -> CellNet:
        """An unbuilt student of ``architecture`` with this model's other options."""
        own = config.option_names(CellNet)
        options = {name: value for name, value in self.options.items() if name in own and name != "cells"}
        return CellNet(architecture=str(architecture), cells=cells, **options)


@dataclass(frozen=True)
class SearchBatch(SequenceBatch):
    """Windows for the weights, and others for the architecture."""

    apart: SequenceBatch | None = None

    @property
    def held_out(self) -> SequenceBatch | None:
        return self.apart

    def to(self, device: torch.device) -> SequenceBatch:
        moved = super().to(device)
        assert isinstance(moved, SearchBatch)
        return replace(moved, apart=self.apart and self.apart.to(device))


def of_users(interactions: Interactions, chosen: Tensor) -> Interactions:
    """The events of the users where ``chosen`` (U,) is true; indices stay."""
    own = chosen[interactions.event_users.long()]
    times, positions = interactions.event_times, interactions.event_positions
    return Interactions.from_events(
        interactions.event_users[own],
        interactions.event_items[own],
        interactions.num_users,
        interactions.num_items,
        times=None if times is None else times[own],
        positions=None if positions is None else positions[own],
    )
