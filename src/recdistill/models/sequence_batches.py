"""What a step of a sequence model is made of: windows of users' histories, and where their items lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.data.sequences import Samples, last_items, targets_a_user, windows_of
from recdistill.errors import DataError
from recdistill.models.base import Batch
from recdistill.ops import owners_of

_SHORT = 8


class SharedNegatives(NamedTuple):
    """Items drawn once a step, for all its rows.

    Attributes:
        ids: shape ``(m,)``, int64, repeats allowed.
        log_chances: log of the chance of each to be drawn, shape ``(m,)``, float32.
    """

    ids: Tensor
    log_chances: Tensor


@dataclass(frozen=True)
class SequenceBatch(Batch):
    """The training rows of one step of a sequence model.

    The fields of :class:`Batch` mean what they mean for every model: ``users`` are unique, and a training row is
    a user with an item that came next somewhere in the user's windows. So what reads pairs, lists and users reads a
    sequence model at the end of each user's history.

    Attributes:
        sequences: windows of the users, the newest item last, padded with −1 on the left, shape ``(w, L)``, int64.
        targets: the item that came next at each place, −1 where there is none, shape ``(w, L)``, int64;
            ``positives`` are those that are no padding, row by row.
        newest: for each of ``users`` its newest window, shape ``(b,)``, int64.
        shared: negatives of all rows, or None.
    """

    sequences: Tensor
    targets: Tensor
    newest: Tensor
    shared: SharedNegatives | None = None

    @cached_property
    def places(self) -> Places:
        """Where the items of ``sequences`` lie."""
        return Places(self.sequences, self.targets[:, -1] >= 0)

    @cached_property
    def next_items(self) -> Tensor:
        """The target of each item of ``places``, −1 where there is none, shape ``(N,)``, int64."""
        return self.targets[self.places.mask]

    def to(self, device: torch.device) -> SequenceBatch:
        if self.users.device == device:
            return self
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        shared = self.shared and SharedNegatives(
            *(part.to(device, non_blocking=True) for part in self.shared)
        )
        return replace(self, **moved, shared=shared)


class Places:
    """Where the items of some windows lie, laid end to end without the padding: N of them.

    What is computed item by item is computed on these N rows; what looks along a sequence goes through a *grid*:
    ``(w, width, …)`` with each sequence at the start of its row and zeros after its end, so that the places
    before an item are the same however much padding there is, and causal layers need no mask.

    Args:
        sequences: shape ``(w, L)``, int64, padded with −1 on the left (only there).
        followed: windows after whose last item one is to be predicted, shape ``(w,)``, bool; of the others, none by
            default, the last item is itself the last to be predicted.

    Attributes:
        mask: True at items, shape ``(w, L)``, bool.
        lengths: items of each window, shape ``(w,)``, int64.
        items: the items, window by window, shape ``(N,)``, int64.
        width: the longest window's length, at least 1.
    """

    def __init__(self, sequences: Tensor, followed: Tensor | None = None) -> None:
        self.mask = sequences >= 0
        self._followed = followed
        self.lengths = self.mask.sum(dim=1)
        self.items = sequences[self.mask]
        self.windows = len(sequences)
        self.width = max(1, int(self.lengths.max())) if len(sequences) else 1

    @cached_property
    def owners(self) -> Tensor:
        """The window of each item, shape ``(N,)``, int64."""
        windows = torch.arange(self.windows, device=self.items.device)
        return torch.repeat_interleave(windows, self.lengths, output_size=len(self.items))

    @cached_property
    def slots(self) -> Tensor:
        """How many items precede each item in its window, shape ``(N,)``, int64."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.items), device=self.items.device) - starts[self.owners]

    @cached_property
    def from_end(self) -> Tensor:
        """How many items follow each item in its window, shape ``(N,)``, int64."""
        return self.lengths[self.owners] - 1 - self.slots

    @cached_property
    def before(self) -> Tensor:
        """How far each item lies before the last that is to be predicted, at least 1, shape ``(N,)``, int64.

        So the newest item that is read has 1, in training as when served. An item that is only predicted has 1 too.
        """
        if self._followed is None:
            return self.from_end.clamp(min=1)
        return (self.from_end + self._followed[self.owners]).clamp(min=1)

    @cached_property
    def _in_grid(self) -> Tensor:
        return self.owners * self.width + self.slots

    def to_grid(self, values: Tensor) -> Tensor:
        """Rows of items ``(N, …)`` as a grid ``(w, width, …)``, zeros where there is no item."""
        grid = values.new_zeros(self.windows * self.width, *values.shape[1:])
        return grid.index_copy(0, self._in_grid, values).unflatten(0, (self.windows, self.width))

    def from_grid(self, grid: Tensor) -> Tensor:
        """The rows of items ``(N, …)`` of a grid ``(w, width, …)``."""
        return grid.flatten(0, 1).index_select(0, self._in_grid)

    def at_end(self, values: Tensor) -> Tensor:
        """The row of the last item of each window, shape ``(w, …)``; zeros for an empty window."""
        last = self.lengths.cumsum(0) - 1
        full = (self.lengths > 0).nonzero().squeeze(1)
        if len(full) == self.windows:
            return values.index_select(0, last)
        rows = values.index_select(0, last[full])
        return values.new_zeros(self.windows, *values.shape[1:]).index_copy(0, full, rows)

    def up_to(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """For each of ``rows`` (n,) among the N, the items of its window from the first to itself.

        Returns:
            Which of the n, and the item, shape ``(m,)`` each, int64.
        """
        lengths = self.slots[rows] + 1
        ends = lengths.cumsum(0)
        index = torch.repeat_interleave(rows + 1 - ends, lengths)
        index = index + torch.arange(len(index), device=rows.device)
        return owners_of(lengths), self.items[index]

    @cached_property
    def alike(self) -> list[tuple[Tensor, Places]]:
        """The windows by length, those of 1 to 8 items, to 16, to 32 and so on: which of the N items, their places."""
        if self.width <= _SHORT:
            return []
        groups: list[tuple[Tensor, Places]] = []
        low, high = 0, _SHORT
        while low < self.width:
            chosen = (self.lengths > low) & (self.lengths <= high)
            if bool(chosen.any()):
                groups.append((chosen[self.owners].nonzero().squeeze(1), self._of(self.lengths[chosen])))
            low, high = high, 2 * high
        return groups if len(groups) > 1 else []

    def _of(self, lengths: Tensor) -> Places:
        width = int(lengths.max())
        columns = torch.arange(width, device=lengths.device)
        return Places(torch.where(columns >= width - lengths[:, None], 0, -1))

    def through(self, layer: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Run a layer that looks along sequences, windows of like length together so that little padding is computed.

        Args:
            layer: from a grid ``(w, width, n)`` to a grid ``(w, width, m)``; what it makes of an item may depend on the
                items before it alone.
            values: rows of items, ``(N, n)``.

        Returns:
            ``(N, m)``.
        """
        if not self.alike:
            return self.from_grid(layer(self.to_grid(values)))
        parts = [
            places.from_grid(layer(places.to_grid(values.index_select(0, rows))))
            for rows, places in self.alike
        ]
        order = torch.cat([rows for rows, _ in self.alike])
        return torch.cat(parts).index_select(0, order.argsort())

    def padded(self, values: Tensor) -> Tensor:
        """Rows of items ``(N, …)`` in the places of the sequences ``(w, L, …)``, zeros at padding."""
        full = values.new_zeros(*self.mask.shape, *values.shape[1:])
        return full.index_put((self.mask,), values)


Draw = Callable[[Tensor, Tensor], Tensor | SharedNegatives | None]
"""Negatives for rows of users and positives: a tensor ``(n, m)``, shared ones, or None."""


def sequence_batches(
    interactions: Interactions,
    max_length: int,
    samples: Samples,
    batch_size: int,
    generator: torch.Generator,
    draw: Draw | None = None,
) -> Iterator[SequenceBatch]:
    """One epoch over all users with at least two events, in random order.

    Args:
        interactions: the train interactions; they need an order.
        max_length: items a window at most.
        samples: how histories become windows.
        batch_size: training rows (targets) a step, about: a user's windows stay together.
        generator: a CPU generator; the same state gives the same epoch.
        draw: what draws negatives; none without it.

    Raises:
        DataError: there is no order, or no user has two events.
    """
    check_order(interactions)
    counts = interactions.event_indptr.diff()
    users = (counts >= 2).nonzero().squeeze(1)
    if not len(users):
        raise DataError(
            "no user has two train rows, so there is no next item to learn",
            "look at the filters and the split; sequences need at least 2 train rows",
        )
    users = users[torch.randperm(len(users), generator=generator)]
    rows = targets_a_user(counts[users], max_length, samples)
    steps = (rows.cumsum(0) - rows) // batch_size  # the step in which each user's first row falls
    sizes = torch.unique_consecutive(steps, return_counts=True)[1]
    for chosen in users.split(sizes.tolist()):
        yield make_sequence_batch(interactions, chosen.sort().values, max_length, samples, draw)


def make_sequence_batch(
    interactions: Interactions, users: Tensor, max_length: int, samples: Samples, draw: Draw | None = None
) -> SequenceBatch:
    """The windows of ``users`` (unique, ascending, each with an event) as a batch."""
    windows = windows_of(interactions, users, max_length, samples)
    present = windows.targets >= 0
    row = windows.owners[:, None].expand_as(present)[present]
    positives = windows.targets[present]
    drawn = None if draw is None else draw(users[row], positives)
    return SequenceBatch(
        users=users,
        row=row,
        positives=positives,
        negatives=drawn if isinstance(drawn, Tensor) else None,
        num_items=interactions.num_items,
        sequences=windows.items,
        targets=windows.targets,
        newest=windows.newest,
        shared=drawn if isinstance(drawn, SharedNegatives) else None,
    )


def history_windows(interactions: Interactions, users: Tensor, max_length: int) -> Tensor:
    """The newest items of ``users``, no wider than the longest needs: (b, L) int64, padded on the left."""
    indptr = interactions.event_indptr
    longest = int((indptr[users + 1] - indptr[users]).max()) if len(users) else 1
    return last_items(interactions, users, max(1, min(max_length, longest)))


def check_order(interactions: Interactions) -> None:
    """Refuse interactions without an order.

    Raises:
        DataError: there is neither a time nor a position.
    """
    if not interactions.has_order:
        raise DataError(
            "sequence models need an order: the data has neither a time nor a position column",
            "prepare it with --time-column or --position-column, or choose a model that needs none",
        )
