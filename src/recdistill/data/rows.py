"""Interactions by index while they are being prepared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data.filters import occurrences
from recdistill.data.sorting import stable_order
from recdistill.data.splits import LABELS, Labels
from recdistill.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Rows:
    """Interactions by index, sorted by user, then position or time, then item.

    Attributes:
        user, item: ``(n,)`` int32.
        time: ``(n,)`` float64 seconds, or None.
        position: ``(n,)`` int64, or None.
        given: ``(n,)`` the source's own split, or None.
        source: ``(n,)`` place of each row in the source.
        repeat: ``(n,)`` how many earlier rows hold the same pair; None where no pair repeats.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.float64] | None
    position: NDArray[np.int64] | None
    given: Labels | None
    source: NDArray[np.int64]
    repeat: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user)

    @property
    def has_order(self) -> bool:
        return self.time is not None or self.position is not None

    def take(self, chosen: NDArray[Any]) -> Rows:
        """The rows of a mask or of places."""
        return Rows(
            self.user[chosen],
            self.item[chosen],
            None if self.time is None else self.time[chosen],
            None if self.position is None else self.position[chosen],
            None if self.given is None else self.given[chosen],
            self.source[chosen],
            None if self.repeat is None else self.repeat[chosen],
        )


def ordered(table: pl.DataFrame, user: NDArray[np.int32], item: NDArray[np.int32]) -> Rows:
    """The rows of a table whose ids are encoded already, put in order."""
    time = table["time"].to_numpy() if "time" in table.columns else None
    position = table["position"].to_numpy() if "position" in table.columns else None
    given = None
    if "split" in table.columns:
        given = table["split"].replace_strict(LABELS, return_dtype=pl.UInt8).to_numpy()
    first = position if position is not None else time
    order = stable_order(*([user, item] if first is None else [user, first, item]))
    return Rows(user, item, time, position, given, np.arange(len(user))).take(order)


def with_repeats(rows: Rows) -> Rows:
    """Count the repeats; of a pair in several given splits, the row in train comes first, then valid, then test."""
    if rows.given is None:
        repeat = occurrences(rows.user, rows.item)
    else:
        order = stable_order(rows.given)
        repeat = np.empty(len(rows), dtype=np.int64)
        repeat[order] = occurrences(rows.user[order], rows.item[order])
    return replace(rows, repeat=repeat if bool(repeat.any()) else None)


def compact(indices: NDArray[np.int32], vocabulary: Vocabulary) -> tuple[NDArray[np.int32], Vocabulary]:
    """Leave out ids that no row has; the others keep their order."""
    used = np.bincount(indices, minlength=len(vocabulary)) > 0
    if bool(used.all()):
        return indices, vocabulary
    renumbered = (np.cumsum(used) - 1).astype(np.int32)
    return renumbered[indices], vocabulary.keep(used)
