"""What a live teacher makes of each item of a step's windows: its layers and what it expects next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from recdistill.models.base import Batch, ScoreVectors
from recdistill.models.sequence_batches import Places
from recdistill.models.sequential import SequenceModel


@dataclass(frozen=True)
class SequenceReads:
    """A teacher's answers item by item, without gradient.

    A teacher whose maximum length is below the student's answers for each window's newest items alone, one that reads
    both ways (BERT4Rec) for the newest item.

    Attributes:
        rows: which of the N items of the student's windows have an answer, shape ``(n,)``, int64.
        embeddings: what enters the first layer, shape ``(n, dim)``.
        hidden_states: what each layer leaves, shape ``(n, dim)`` each.
        vectors: tables whose product scores items as the next one: a row for each of the n, and the output table.
        whole: every item has an answer.
    """

    rows: Tensor
    embeddings: Tensor
    hidden_states: tuple[Tensor, ...]
    vectors: ScoreVectors
    whole: bool

    def among(self, rows: Tensor) -> SequenceReads:
        """The answers at those of the N items that are in ``rows`` (m,)."""
        kept = torch.isin(self.rows, rows)
        return self.at(self.rows[kept], kept.nonzero().squeeze(1))

    def at(self, rows: Tensor, at: Tensor) -> SequenceReads:
        """The answers ``at`` (m,) among the n, which are those of ``rows`` (m,) among the N items."""
        return SequenceReads(
            rows,
            self.embeddings.index_select(0, at),
            tuple(layer.index_select(0, at) for layer in self.hidden_states),
            self.vectors._replace(users=self.vectors.users.index_select(0, at)),
            whole=False,
        )

    def logits(self, at: Tensor | slice | None = None, items: Tensor | None = None) -> Tensor:
        """Scores of items (m,) as the next one of rows ``at`` among the n; of all by default."""
        outputs, table, bias = self.vectors.users, self.vectors.items, self.vectors.item_bias
        outputs = outputs if at is None else outputs[at]
        if items is not None:
            table, bias = table[items], None if bias is None else bias[items]
        scores = outputs @ table.T
        return scores if bias is None else scores + bias


class Shape(NamedTuple):
    """Sizes of what a sequence model answers item by item.

    Attributes:
        embeddings: length of what enters the first layer.
        hidden_states: length of what each layer leaves, first to last.
    """

    embeddings: int
    hidden_states: tuple[int, ...]


@torch.no_grad()
def shape_of(model: SequenceModel) -> Shape:
    """The sizes of what ``model`` answers."""
    was_training = model.training
    device = model.item_table.device
    encoded = model.eval().encode(Places(torch.zeros(1, 1, dtype=torch.int64, device=device)))
    model.train(was_training)
    layers = [layer.shape[1] for layer in encoded.hidden_states]
    layers += [layers[-1]] * (model.most_layers - len(layers))
    return Shape(encoded.embeddings.shape[1], tuple(layers))


@torch.no_grad()
def sequence_reads(model: SequenceModel, batch: Batch, places: Places) -> SequenceReads:
    """What ``model``, in eval mode, answers for ``batch``.

    Args:
        model: the teacher.
        batch: windows.
        places: where the student finds the items of these windows.
    """
    state = model.to(batch.users.device).eval().state(batch)
    rows = torch.arange(len(places.items), device=places.items.device)
    whole = state.places.mask.shape == places.mask.shape
    if not whole:
        width = state.places.mask.shape[1]
        kept = torch.zeros_like(places.mask)
        kept[:, -width:] = places.mask[:, -width:]
        rows = rows[kept[places.mask]]
    encoded, vectors = state.encoded, state.next_item_vectors()
    reads = SequenceReads(
        rows,
        encoded.embeddings,
        encoded.hidden_states,
        ScoreVectors(*(part if part is None else part.detach() for part in vectors)),  # pyright: ignore[reportArgumentType]
        whole,
    )
    answered = model.answered(state.places)
    return reads if answered is None else reads.at(rows[answered], answered)
