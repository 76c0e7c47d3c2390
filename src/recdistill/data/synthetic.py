"""Interactions out of nothing, with what real ones have: a long tail, many tastes, an order in time."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from recdistill.config import validated

GENERATOR = 1
"""Version of the generator: a change of what it draws is a change of the data."""

_TASTES_PER_USER = 5
_SECONDS = 365 * 24 * 3600
_ROUNDS = 12


@validated
def synthetic(
    *,
    num_users: Annotated[int, Field(ge=2, le=2**31 - 1)] = 3000,
    num_items: Annotated[int, Field(ge=2, le=2**31 - 1)] = 4000,
    num_interactions: Annotated[int, Field(ge=4)] = 120_000,
    num_groups: Annotated[int, Field(ge=1)] = 12,
    dim: Annotated[int, Field(ge=1)] = 128,
    noise: Annotated[float, Field(ge=0, le=1)] = 0.1,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> pl.DataFrame:
    """Draw interactions of users who have a few tastes each.

    Every item belongs to one of ``dim`` tastes, every taste to one of ``num_groups`` groups. A user has a few
    tastes, most of them from one group. An interaction is drawn by taste, then by popularity (Zipf) within
    the taste; a share of ``noise`` is drawn by popularity alone. A model of fewer than ``dim`` dimensions can
    tell the groups apart but not the tastes: a large model has something to teach to a small one.
    A user's tastes come and go: what they take in a row is mostly of one taste.

    Args:
        num_users: users, each with at least one interaction.
        num_items: items; those that nobody takes do not appear.
        num_interactions: distinct pairs; fewer where users run out of items they could like.
        num_groups: groups of tastes.
        dim: tastes: the rank of the probabilities from which interactions are drawn.
        noise: share of interactions that have nothing to do with taste.
        seed: of everything.

    Returns:
        ``user_id`` (Int64), ``item_id`` (String), ``timestamp`` (Int64 seconds), by user and time.
    """
    generator = np.random.default_rng(seed)
    catalogue = _Catalogue(num_items, dim, generator)
    tastes, shares = _user_tastes(num_users, min(num_groups, dim), dim, generator)
    wanted = _activity(num_users, num_items, num_interactions, generator)
    users, items = _draw(catalogue, tastes, shares, wanted, noise, generator)
    times = _times(users, catalogue.taste_of[items], num_users, generator)
    order = np.lexsort((times, users))
    names = pl.Series(np.arange(num_items)).cast(pl.String).str.zfill(len(str(num_items - 1)))
    return pl.DataFrame(
        {
            "user_id": users[order],
            "item_id": ("item-" + names).gather(items[order]),
            "timestamp": times[order],
        }
    )


class _Catalogue:
    """Items by taste and popularity.

    Attributes:
        taste_of: ``(I,)`` taste of each item.
    """

    def __init__(self, num_items: int, dim: int, generator: np.random.Generator) -> None:
        popularity = (np.arange(num_items) + 10.0) ** -1.2
        self.taste_of = generator.integers(0, dim, num_items)
        self.taste_of[: min(dim, num_items)] = np.arange(dim)[:num_items]
        self._by_popularity = np.cumsum(popularity)
        self._items = np.argsort(self.taste_of, kind="stable")
        self._cumulated = np.concatenate([[0.0], np.cumsum(popularity[self._items])])
        ends = np.searchsorted(self.taste_of[self._items], np.arange(dim + 1))
        self._bounds = self._cumulated[ends]

    def draw(
        self, tastes: NDArray[np.int64], noise: float, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """An item of each taste by popularity, or, with probability ``noise``, any item by popularity."""
        low, high = self._bounds[tastes], self._bounds[tastes + 1]
        at = low + (high - low) * generator.random(len(tastes))
        place = np.searchsorted(self._cumulated, at, side="right") - 1
        items = self._items[np.clip(place, 0, len(self._items) - 1)]
        off = generator.random(len(tastes)) < noise
        off |= high <= low
        anything = generator.random(int(off.sum())) * self._by_popularity[-1]
        place = np.searchsorted(self._by_popularity, anything, side="right")
        items[off] = np.minimum(place, len(self._items) - 1)
        return items


def _user_tastes(
    num_users: int, num_groups: int, dim: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each user's tastes ``(U, n)`` and how their shares add up ``(U, n)``."""
    shape = (num_users, _TASTES_PER_USER)
    group = generator.integers(0, num_groups, (num_users, 1))
    elsewhere = generator.random(shape) < 0.25
    groups = np.where(elsewhere, generator.integers(0, num_groups, shape), group)
    # Taste t belongs to group t mod G, which therefore has one taste more where t < dim mod G.
    sizes = dim // num_groups + (groups < dim % num_groups)
    tastes = groups + num_groups * np.floor(generator.random(shape) * sizes).astype(np.int64)
    shares = np.cumsum(generator.standard_gamma(1.0, shape) + 1e-9, axis=1)
    return tastes, shares / shares[:, -1:]


def _activity(
    num_users: int, num_items: int, num_interactions: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """How many items each user takes: log-normal, at least one, at most a quarter of the catalogue."""
    weights = generator.lognormal(0.0, 0.7, num_users) + 0.3
    wanted = np.maximum(np.round(weights * (num_interactions / weights.sum())), 1)
    return np.minimum(wanted, max(num_items // 4, 1)).astype(np.int64)


def _draw(
    catalogue: _Catalogue,
    tastes: NDArray[np.int64],
    shares: NDArray[np.float64],
    wanted: NDArray[np.int64],
    noise: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct pairs: rounds of draws for the users who still lack some, repeats thrown away."""
    num_items = len(catalogue.taste_of)
    keys = np.zeros(0, dtype=np.int64)
    for _ in range(_ROUNDS):
        lacking = wanted - np.bincount(keys // num_items, minlength=len(wanted))
        users = np.repeat(np.arange(len(wanted)), lacking)
        if not len(users):
            break
        place = (shares[users] < generator.random((len(users), 1))).sum(axis=1)
        items = catalogue.draw(tastes[users, place], noise, generator)
        keys = np.sort(np.concatenate([keys, users * num_items + items]))
        keys = keys[np.diff(keys, prepend=-1) > 0]  # numpy's unique hashes: 20 times slower here
    return keys // num_items, keys % num_items


def _times(
    users: NDArray[np.int64], tastes: NDArray[np.int64], num_users: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Seconds within a year: a user's rows lie in one stretch of it, taste after taste with some overlap."""
    start = generator.random(num_users) * 0.5
    length = 0.1 + 0.4 * generator.random(num_users)
    turn = generator.integers(1, 1 << 30, num_users)
    # A different order of the tastes for every user, without a table of users x tastes.
    phase = ((tastes + 1) * turn[users]) % 10_007 / 10_007
    within = (phase + 0.3 * generator.random(len(users))) / 1.3
    return 1_700_000_000 + np.floor((start[users] + length[users] * within) * _SECONDS).astype(np.int64)
