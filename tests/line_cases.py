"""A small log whose users have a taste, and a progress display that keeps its notes, for the tests of steps."""

from __future__ import annotations

import numpy as np
import polars as pl

from recdistill.progress import Silent


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def log_of_tastes() -> pl.DataFrame:
    """60 users with the 12 of 50 items that they like best, columns ``user_id`` and ``item_id``."""
    rng = np.random.default_rng(0)
    taste, item = rng.normal(size=(60, 3)), rng.normal(size=(50, 3))
    best = np.argsort(-(taste @ item.T + rng.gumbel(size=(60, 50))), axis=1)[:, :12]
    users = np.repeat([f"u{n}" for n in range(60)], 12)
    return pl.DataFrame({"user_id": users, "item_id": [f"i{n}" for n in best.reshape(-1)]})
