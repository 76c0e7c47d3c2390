"""What the sequence models share: item tables, windows and losses.

A subclass makes its layers in :meth:`SequenceModel.build_layers` and runs them in :meth:`SequenceModel.encode`, from
the items of some windows to one vector an item; the score of an item is its product with the output table (plus a
bias).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from recdistill import ops
from recdistill.config import option_names
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import Samples
from recdistill.errors import OptionError
from recdistill.models.base import Batch, Recommender, State, rows_of
from recdistill.models.bpr import normal
from recdistill.models.sequence_batches import (
    Draw,
    Places,
    SequenceBatch,
    SharedNegatives,
    history_windows,
    sequence_batches,
)
from recdistill.models.sequence_losses import bce, gbce, sampled_softmax
from recdistill.models.sequence_state import Encoded, SequenceState

Head = Literal["tied", "untied"]
LossName = Literal["softmax", "sampled-softmax", "bce", "gbce"]

_CELLS = 1 << 15
"""Places of a block of histories, padding among them."""


class SequenceModel(Recommender, ABC):
    """Base of the models that read a user's history in order.

    Args:
        dim: length of an item's vector and of every layer's output.
        max_length: items of a history that are read, the newest.
        samples: how histories become training windows.
        head: ``tied`` scores with the table that items enter by, ``untied`` with another and a bias.
        loss: of training.
        num_negatives: a row, or a step where they are shared (``sampled-softmax``).
        popularity: exponent of an item's count in the chance to be drawn, for ``sampled-softmax``.
        calibration: t of gBCE.
        init_std: standard deviation of the initial tables.
    """

    sequential: ClassVar[bool] = True
    tables: ClassVar[tuple[str, ...]] = ("item_table", "own_output_table", "output_bias", "position_table")
    samples: Samples
    reads_positions: ClassVar[bool] = False
    """Whether items are told apart by where they lie. In training the newest item of a history is only predicted, so
    answers at it then have a pass of their own, with the positions that training gives to items that are read."""
    most_layers: int = 0
    """Hidden states of a step at most, for a model in which their number varies."""
    own_output_table: nn.Parameter | None
    output_bias: nn.Parameter | None

    def __init__(
        self,
        *,
        dim: int,
        max_length: int,
        samples: Samples = "shift-all",
        head: Head = "tied",
        loss: LossName = "softmax",
        num_negatives: int = 1,
        popularity: float = 0.0,
        calibration: float = 0.75,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.dim, self.max_length, self.samples, self.head = dim, max_length, samples, head
        self.loss_name, self.popularity, self.calibration = loss, popularity, calibration
        self.init_std = init_std
        self._negatives = num_negatives

    def shared_options(self) -> dict[str, Any]:
        """Those of :attr:`options` that this base takes; a constructor that states them hands them on at once."""
        return {name: self.options[name] for name in option_names(SequenceModel) if name in self.options}

    @abstractmethod
    def build_layers(self, generator: torch.Generator) -> None:
        """Make the parameters beside the tables, drawn from ``generator``."""

    @abstractmethod
    def encode(self, places: Places) -> Encoded:
        """Run the layers over the items of some windows (at most ``max_length`` each, possibly none at all)."""

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.histories = interactions
        self.item_table = nn.Parameter(normal(self.num_items, self.dim, self.init_std, generator))
        self.own_output_table = self.output_bias = None
        if self.head == "untied":
            self.own_output_table = nn.Parameter(normal(self.num_items, self.dim, self.init_std, generator))
            self.output_bias = nn.Parameter(torch.zeros(self.num_items))
        self.build_layers(generator)

    @property
    def lookback(self) -> int:
        """Newest items on which the output at the newest one depends, at most ``max_length``; as many as training reads
        where they have positions."""
        return self.max_length - int(self.reads_positions and self.samples == "shift-all")

    def answered(self, places: Places) -> Tensor | None:
        """Rows among the N items whose next item this model predicts, (n,) int64; None for all of them."""
        del places
        return None

    @property
    def output_table(self) -> Tensor:
        """The table that scores, shape ``(I, dim)``."""
        return self.item_table if self.own_output_table is None else self.own_output_table

    def attach(self, users: Any, items: Any, train_pairs: Interactions) -> None:
        super().attach(users, items, train_pairs)
        self.histories = train_pairs

    # states

    def state(self, batch: Batch | None = None) -> SequenceState:
        if batch is not None and not isinstance(batch, SequenceBatch):
            batch = self._windows_of(batch)
        if (
            batch is not None and batch.sequences.shape[1] > self.max_length
        ):  # made for a model that reads more
            sequences, targets = (part[:, -self.max_length :] for part in (batch.sequences, batch.targets))
            batch = replace(batch, sequences=sequences, targets=targets)
        return SequenceState(self, self.histories, batch)

    def _windows_of(self, batch: Batch) -> SequenceBatch:
        """The windows of a batch of pairs: the newest of its users' train items."""
        sequences = history_windows(self.histories, batch.users.cpu(), self.max_length).to(batch.users.device)
        targets = torch.full_like(sequences, -1)
        targets[:, :-1] = torch.where(sequences[:, :-1] >= 0, sequences[:, 1:], -1)
        return SequenceBatch(
            **{
                name: getattr(batch, name) for name in ("users", "row", "positives", "negatives", "num_items")
            },
            sequences=sequences,
            targets=targets,
            newest=torch.arange(len(batch.users), device=batch.users.device),
        )

    def state_of(self, histories: Interactions) -> SequenceState:
        return SequenceState(self, histories, None)

    def fold_in(self, histories: ops.Rows) -> SequenceState:
        owners = ops.owners_of(histories.indptr.diff())
        order = torch.arange(len(owners))
        count = len(histories.indptr) - 1
        return self.state_of(
            Interactions.from_events(owners, histories.items, count, self.num_items, positions=order)
        )

    def vectors_of(self, histories: Interactions, users: Tensor) -> Tensor:
        """Outputs at the newest item of each of ``users``, shape ``(b, dim)``, in blocks; 0 without a history."""
        device = self.item_table.device
        users = users.long()
        counts = histories.event_indptr[users + 1] - histories.event_indptr[users]
        lengths, order = counts.clamp(max=self.lookback).sort(descending=True, stable=True)
        parts: list[Tensor] = []
        start, end = 0, int((lengths > 0).sum())
        while start < end:  # users of similar length together: little padding
            rows = min(max(1, _CELLS // int(lengths[start])), end - start)
            chosen = users[order[start : start + rows]]
            windows = history_windows(histories, chosen, self.lookback).to(device)
            places = Places(windows, torch.ones(len(windows), dtype=torch.bool, device=device))
            parts.append(places.at_end(self.encode(places).outputs))
            start += rows
        parts.append(self.item_table.new_zeros(len(users) - end, self.dim))
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return torch.cat(parts)[back.to(device)]

    def product(
        self, outputs: Tensor, items: Tensor | None, rows: Tensor | None = None, table: Tensor | None = None
    ) -> Tensor:
        """Scores of items (n, m) for rows of ``outputs``, −1 scores 0; of the whole catalogue without items.

        ``table`` is :attr:`output_table` where a caller has it already.
        """
        table, bias = self.output_table if table is None else table, self.output_bias
        if items is None:
            scores = outputs @ table.T
            return scores if bias is None else scores + bias
        rows = torch.arange(len(outputs), device=outputs.device) if rows is None else rows
        scores = ops.scores_at(outputs, table, rows, items)
        if bias is None:
            return scores
        return scores + torch.where(items >= 0, bias[items.clamp(min=0)], 0)

    # training

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[SequenceBatch]:
        draw = self.negative_sampler(interactions, generator)
        return sequence_batches(interactions, self.max_length, self.samples, batch_size, generator, draw)

    def negative_sampler(self, interactions: Interactions, generator: torch.Generator) -> Draw | None:
        """What draws the loss's negatives for users and positives; None for the full softmax.

        Raises:
            OptionError: there is no second item that gBCE could tell from the positive.
        """
        if self.loss_name == "gbce" and interactions.num_items < 2:
            raise OptionError("model.loss=gbce needs at least two items; found one", "choose another loss")
        return None if self.loss_name == "softmax" else _Draw(self, interactions, generator)

    def num_negatives(self) -> int:
        return 0 if self.loss_name == "softmax" else self._negatives

    def loss(self, state: State, batch: Batch) -> Tensor:
        assert isinstance(state, SequenceState)
        windows = state.batch
        assert windows is not None
        at = (windows.next_items >= 0).nonzero().squeeze(1)
        outputs, positives = state.encoded.outputs.index_select(0, at), windows.next_items[at]
        if not len(at):
            return state.encoded.outputs.sum() * 0.0
        return self.loss_of(outputs, positives, windows.negatives, windows.shared)

    def loss_of(
        self, outputs: Tensor, positives: Tensor, negatives: Tensor | None, shared: SharedNegatives | None
    ) -> Tensor:
        """The loss of rows (n, dim) whose next items are ``positives`` (n,), n at least 1."""
        if self.loss_name == "softmax":
            return ops.softmax_cross_entropy(outputs, self.output_table, positives, self.output_bias)
        liked = self.product(outputs, positives[:, None])[:, 0]
        if shared is not None:
            ids, log_chances = shared
            scores = outputs @ rows_of(self.output_table, ids).T
            if self.output_bias is not None:
                scores = scores + self.output_bias[ids]
            return sampled_softmax(liked, scores, log_chances, positives[:, None] == ids)
        assert negatives is not None
        scores = self.product(outputs, negatives)
        if self.loss_name == "bce":
            return bce(liked, scores, negatives >= 0)
        return gbce(liked, scores, self.num_items, self.calibration)


class _Draw:
    """Negatives as the loss wants them: unobserved (BCE), any item (gBCE), shared by popularity (sampled softmax)."""

    def __init__(self, model: SequenceModel, interactions: Interactions, generator: torch.Generator) -> None:
        self._loss, self._count = model.loss_name, model.num_negatives()
        self._interactions, self._generator = interactions, generator
        if self._loss == "sampled-softmax":
            weights = interactions.item_counts.double().clamp(min=1) ** model.popularity
            self._mass = weights.cumsum(0)
            self._log_chances = (weights / weights.sum()).log().float()

    def __call__(self, users: Tensor, positives: Tensor) -> Tensor | SharedNegatives:
        if self._loss == "bce":
            return self._interactions.sample_unobserved(users, self._count, self._generator)
        if self._loss == "gbce":
            shape = (len(positives), self._count)
            return torch.randint(self._interactions.num_items, shape, generator=self._generator)
        drawn = torch.rand(self._count, dtype=torch.float64, generator=self._generator) * self._mass[-1]
        ids = torch.searchsorted(self._mass, drawn, right=True).clamp(max=len(self._mass) - 1)
        return SharedNegatives(ids, self._log_chances[ids])


def check_heads(dim: int, heads: int) -> None:
    """Check that ``dim`` numbers split evenly over ``heads``.

    Raises:
        OptionError: they do not.
    """
    if dim % heads:
        raise OptionError(f"dim must be a multiple of heads; found {dim} and {heads}")


def layer_outputs(layers: Iterable[nn.Module], x: Tensor, reads: object) -> tuple[Tensor, ...]:
    """What each layer leaves, first to last, from ``x`` (N, dim); a layer also reads ``reads``."""
    found: list[Tensor] = []
    for layer in layers:
        x = layer(x, reads)
        found.append(x)
    return tuple(found)


def linear(inputs: int, outputs: int, std: float, generator: torch.Generator, bias: bool = True) -> nn.Linear:
    """A linear layer whose weights are drawn from N(0, std²), its bias 0."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    layer.weight = nn.Parameter(normal(outputs, inputs, std, generator))
    if bias:
        layer.bias = nn.Parameter(torch.zeros(outputs))
    return layer
