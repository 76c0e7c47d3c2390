"""Windows with masked items that a model is to fill in."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from recdistill.models.sequence_batches import Draw, SequenceBatch, SharedNegatives


@dataclass(frozen=True, kw_only=True)
class ClozeBatch(SequenceBatch):
    """A batch whose windows have masked items; it holds negatives for these and none for other rows.

    Attributes:
        masked: True where an item is to be filled in, shape ``(w, L)``, bool.
        masked_negatives: of the m masked items, window by window, shape ``(m, k)``, int64, or None.
    """

    masked: Tensor
    masked_negatives: Tensor | None = None


def draw_masks(sequences: Tensor, share: float, newest_share: float, generator: torch.Generator) -> Tensor:
    """Which items to fill in, (w, L) bool; none in windows of one item.

    Args:
        sequences: windows, shape ``(w, L)``, int64, padded with −1 on the left.
        share: chance of an item, at least one a window.
        newest_share: chance of a window to have its newest item masked alone.
        generator: a CPU generator.
    """
    noise = torch.rand(sequences.shape, generator=generator).masked_fill(sequences < 0, 2.0)
    drawn = (noise < share) | (noise == noise.amin(dim=1, keepdim=True))
    newest = torch.rand(len(sequences), 1, generator=generator) < newest_share
    masked = newest_masks(sequences)
    return torch.where(newest, masked, drawn & masked[:, -1:])


def newest_masks(sequences: Tensor) -> Tensor:
    """The newest item of each window, (w, L) bool; none in windows of one item."""
    masked = torch.zeros_like(sequences, dtype=torch.bool)
    masked[:, -1] = (sequences >= 0).sum(dim=1) > 1
    return masked


def cloze_batch(batch: SequenceBatch, masked: Tensor, draw: Draw | None = None) -> ClozeBatch:
    """``batch`` with masked items.

    Args:
        batch: windows.
        masked: shape ``(w, L)``, bool.
        draw: what draws negatives of users and items; none without it.
    """
    window = masked.nonzero()[:, 0]
    owners = torch.searchsorted(batch.newest, window)  # a user's windows end with the newest
    drawn = None if draw is None else draw(batch.users[owners], batch.sequences[masked])
    same = {part.name: getattr(batch, part.name) for part in fields(SequenceBatch)}
    same["shared"] = drawn if isinstance(drawn, SharedNegatives) else None
    return ClozeBatch(**same, masked=masked, masked_negatives=drawn if isinstance(drawn, Tensor) else None)
