"""User-item interactions as arrays: who took what, in which order, without anything of size users x items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from recdistill import ops
from recdistill.data.sorting import is_sorted, stable_order
from recdistill.errors import DataError
from recdistill.ops import Rows


@dataclass(frozen=True, eq=False)
class Interactions:
    """Frozen interactions of ``num_users`` users (U) with ``num_items`` items (I).

    Two views share one object. The *pairs* are the P distinct (user, item) pairs, sorted by user, then item.
    The *events* are all E rows, sorted by user, then in the order in which they happened, repeats kept. Where
    the data has neither order nor repeats both views are the same storage.

    Make one with :meth:`from_events`, which sorts and checks; the constructor trusts its arguments.

    Attributes:
        num_users, num_items: sizes of the two vocabularies.
        indptr: ``(U + 1,)`` int64, where each user's pairs start.
        items: ``(P,)`` int32, ascending within a user.
        event_indptr: ``(U + 1,)`` int64, where each user's events start.
        event_items: ``(E,)`` int32, in the order of the events.
        event_times: ``(E,)`` float64 seconds, or None.
        event_positions: ``(E,)`` int64, or None.
    """

    num_users: int
    num_items: int
    indptr: Tensor
    items: Tensor
    event_indptr: Tensor
    event_items: Tensor
    event_times: Tensor | None = None
    event_positions: Tensor | None = None

    @classmethod
    def from_events(
        cls,
        users: ArrayLike | Tensor,
        items: ArrayLike | Tensor,
        num_users: int,
        num_items: int,
        times: ArrayLike | Tensor | None = None,
        positions: ArrayLike | Tensor | None = None,
    ) -> Interactions:
        """Sort events by user, then position, else time (equal ones keep the order given), else item.

        Args:
            users, items: ``(E,)`` integers in ``[0, num_users)`` and ``[0, num_items)``.
            num_users, num_items: sizes of the vocabularies, at least 0.
            times: ``(E,)`` finite seconds, or None.
            positions: ``(E,)`` integers, or None.

        Raises:
            DataError: if the lengths differ, an index is out of range, or a time is not finite.
        """
        user = _indices("user", users, num_users)
        item = _indices("item", items, num_items)
        time = None if times is None else _array(times).astype(np.float64, copy=False)
        position = None if positions is None else _array(positions).astype(np.int64, copy=False)
        for name, column in (("items", item), ("times", time), ("positions", position)):
            if column is not None and len(column) != len(user):
                raise DataError(f"expected {len(user)} {name}, one a user, found {len(column)}")
        if time is not None and not np.isfinite(time).all():
            raise DataError(f"times must be finite, found {int((~np.isfinite(time)).sum())} that are not")

        first = position if position is not None else time
        by = (user, item if first is None else first)
        if not is_sorted(*by):
            order = stable_order(*by)
            user, item = user[order], item[order]
            time = None if time is None else time[order]
            position = None if position is None else position[order]
        event_indptr = _indptr(np.bincount(user, minlength=num_users))
        pair_user, pair_item = _distinct_pairs(user, item)
        shared = time is None and position is None and len(pair_user) == len(user)
        pair_items = torch.from_numpy(np.array(pair_item))
        indptr = event_indptr if shared else _indptr(np.bincount(pair_user, minlength=num_users))
        return cls(
            num_users,
            num_items,
            indptr,
            pair_items,
            event_indptr,
            pair_items if shared else torch.from_numpy(np.array(item, dtype=np.int32)),
            None if time is None else torch.from_numpy(np.array(time)),
            None if position is None else torch.from_numpy(np.array(position)),
        )

    @property
    def num_pairs(self) -> int:
        """P: how many distinct (user, item) pairs there are."""
        return len(self.items)

    @property
    def num_events(self) -> int:
        """E: how many rows there are, repeats counted."""
        return len(self.event_items)

    @property
    def has_order(self) -> bool:
        """Whether the events carry a time or a position."""
        return self.event_times is not None or self.event_positions is not None

    @property
    def has_repeats(self) -> bool:
        """Whether some user took some item more than once."""
        return self.num_events > self.num_pairs

    @cached_property
    def unlisted(self) -> Interactions:
        """The pairs that rankings leave out: all of them, or none where users take items again."""
        if not self.has_repeats:
            return self
        indptr, items = torch.zeros(self.num_users + 1, dtype=torch.int64), self.items[:0]
        return Interactions(self.num_users, self.num_items, indptr, items, indptr, items)

    @cached_property
    def users(self) -> Tensor:
        """``(P,)`` int32: the user of each pair."""
        return _owners(self.indptr)

    @cached_property
    def event_users(self) -> Tensor:
        """``(E,)`` int32: the user of each event."""
        return self.users if self.event_indptr is self.indptr else _owners(self.event_indptr)

    @cached_property
    def user_counts(self) -> Tensor:
        """``(U,)`` int64: distinct items of each user."""
        return self.indptr.diff()

    @cached_property
    def item_counts(self) -> Tensor:
        """``(I,)`` int64: distinct users of each item."""
        return torch.bincount(self.items, minlength=self.num_items)

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each (user, item) is an observed pair.

        Args:
            users: ``(b,)`` user indices.
            items: ``(b,)`` or ``(b, n)`` item indices; -1 is never observed.

        Returns:
            bool, the shape of ``items``.
        """
        return ops.contains(self.indptr, self.items, users.long(), items.long())

    def rows(self, users: Tensor) -> Rows:
        """The pairs of some users as a CSR of ``b`` rows.

        Args:
            users: ``(b,)`` user indices, repeats allowed.

        Returns:
            ``indptr (b + 1,)`` int64 and ``items`` int32, ascending within a row.
        """
        indptr, index = _gather(self.indptr, users)
        return Rows(indptr, self.items[index])

    def event_rows(self, users: Tensor) -> Rows:
        """The events of some users in their order, as a CSR of ``b`` rows (items may repeat in a row)."""
        indptr, index = _gather(self.event_indptr, users)
        return Rows(indptr, self.event_items[index])

    def transpose(self) -> Interactions:
        """The pairs seen from the items: users and items change places; the order of events is left out."""
        order = torch.argsort(self.items, stable=True)
        indptr = torch.zeros(self.num_items + 1, dtype=torch.int64)
        torch.cumsum(self.item_counts, 0, out=indptr[1:])
        users = self.users[order]
        return Interactions(self.num_items, self.num_users, indptr, users, indptr, users)

    def union(self, *others: Interactions) -> Interactions:
        """All interactions of this and the others, which share its vocabularies.

        Events are ordered by position where all parts that have events have positions, else by time where all
        have times, else they have no order.

        Raises:
            DataError: if the sizes of the vocabularies differ.
        """
        parts = (self, *others)
        for other in others:
            if (other.num_users, other.num_items) != (self.num_users, self.num_items):
                raise DataError(
                    f"cannot join interactions of {self.num_users} users x {self.num_items} items "
                    f"with {other.num_users} x {other.num_items}: they do not share a vocabulary"
                )
        # An empty part without times (a split nobody fell into) must not cost the others their order.
        kept = [part for part in parts if part.num_events] or [self]
        if len(kept) == 1:
            return kept[0]
        return Interactions.from_events(
            torch.cat([part.event_users for part in kept]),
            torch.cat([part.event_items for part in kept]),
            self.num_users,
            self.num_items,
            times=_joined([part.event_times for part in kept]),
            positions=_joined([part.event_positions for part in kept]),
        )

    def sample_unobserved(
        self, users: Tensor, n: int, generator: torch.Generator, replace: bool = True
    ) -> Tensor:
        """Draw items that the users have not taken, uniformly, without rejection and without a mask.

        Args:
            users: ``(b,)`` user indices, repeats allowed.
            n: draws a user, at least 0.
            generator: source of randomness.
            replace: whether an item may be drawn twice in a row.

        Returns:
            ``(b, n)`` int64; -1 where a user has no unobserved item, or fewer than ``n`` without replacement.
        """
        return ops.draw_unobserved(
            self.indptr, self.items, self.num_items, users.long(), n, generator, replace
        )


def _array(values: ArrayLike | Tensor) -> NDArray[np.generic]:
    return values.numpy() if isinstance(values, Tensor) else np.asarray(values)


def _indices(name: str, values: ArrayLike | Tensor, bound: int) -> NDArray[np.int32]:
    array = _array(values)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise DataError(
            f"{name} indices must be a list of integers, found {array.dtype} of shape {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() >= bound):
        raise DataError(
            f"{name} indices must lie in [0, {bound}), found {int(array.min())} to {int(array.max())}"
        )
    return array.astype(np.int32, copy=False)


def _distinct_pairs(
    user: NDArray[np.int32], item: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The distinct pairs in order; ``user`` is ascending."""
    if not is_sorted(user, item):
        order = stable_order(user, item)
        user, item = user[order], item[order]
    new = np.ones(len(user), dtype=bool)
    new[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    return (user, item) if bool(new.all()) else (user[new], item[new])


def _indptr(counts: NDArray[np.integer]) -> Tensor:
    indptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return torch.from_numpy(indptr)


def _owners(indptr: Tensor) -> Tensor:
    rows = torch.arange(len(indptr) - 1, dtype=torch.int32)
    return torch.repeat_interleave(rows, indptr.diff())


def _gather(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Row pointers of the chosen rows laid end to end, and where each of their entries lies."""
    rows = rows.long()
    starts = indptr[rows]
    lengths = indptr[rows + 1] - starts
    ends = torch.zeros(len(rows) + 1, dtype=torch.int64, device=indptr.device)
    torch.cumsum(lengths, 0, out=ends[1:])
    shift = torch.repeat_interleave(starts - ends[:-1], lengths)
    return ends, torch.arange(len(shift), device=shift.device) + shift


def _joined(columns: Sequence[Tensor | None]) -> Tensor | None:
    present = [column for column in columns if column is not None]
    return torch.cat(present) if len(present) == len(columns) else None
