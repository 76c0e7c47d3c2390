"""Users' events as windows of bounded length, padded on the left, without a loop over users.

A window holds the items of one user up to some event, the newest last. The target of each of its places is the
item that came next. The newest window of a user ends with the newest event, which has no next item: what a model
answers there is what it recommends.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.ops import owners_of

Samples = Literal["shift-all", "windows", "prefix"]
"""How histories become windows.

``shift-all``: the newest ``length`` items of a user, each place but the last with a target. ``windows``: the older
items too, ``length`` at a time from the end, so that each item is a target once. ``prefix``: one window for every
event, a target at its last place alone.
"""


class Windows(NamedTuple):
    """Windows of some users, those of one user together, the newest last.

    Attributes:
        items: (w, length) int64, padded with −1 on the left.
        targets: (w, length) int64, the next item of each place, −1 where there is none or another window has it.
        owners: (w,) int64, whose window it is: a place among the users asked for.
        newest: (b,) int64, the newest window of each user.
    """

    items: Tensor
    targets: Tensor
    owners: Tensor
    newest: Tensor


def last_items(interactions: Interactions, users: Tensor, length: int) -> Tensor:
    """The newest items of some users, (b, length) int64, padded with −1 on the left.

    Args:
        interactions: where the events are.
        users: (b,) indices.
        length: items a user at most, at least 1.
    """
    indptr, users = interactions.event_indptr, users.long()
    return _placed(interactions.event_items, indptr[users], indptr[users + 1], indptr[users + 1], length)


def windows_of(interactions: Interactions, users: Tensor, length: int, samples: Samples) -> Windows:
    """Cut the histories of some users into windows, no wider than the longest needs.

    Args:
        interactions: where the events are.
        users: (b,) indices, each with at least one event.
        length: items a window at most, at least 2.
        samples: how to cut.
    """
    indptr, users = interactions.event_indptr, users.long()
    starts, ends = indptr[users], indptr[users + 1]
    counts = ends - starts
    width = min(length, int(counts.max())) if len(users) else length
    number = windows_a_user(counts, length, samples)
    stride = {"shift-all": 0, "windows": length, "prefix": 1}[samples]
    owners = owners_of(number)
    newest = number.cumsum(0) - 1
    back = newest[owners] - torch.arange(len(owners))  # windows between this one and the newest
    cut = ends[owners] - stride * back
    items = _placed(interactions.event_items, starts[owners], ends[owners], cut, width)
    targets = _placed(interactions.event_items, starts[owners] + 1, ends[owners], cut + 1, width)
    if samples == "prefix":
        targets[:, :-1] = -1
    return Windows(items, targets, owners, newest)


def newcomers(held_out: Interactions, train: Interactions) -> tuple[Interactions, Interactions | None]:
    """Cut the sequences of users without train rows into a target, the last row, and a history, the others.

    Args:
        held_out: a split's rows.
        train: the train rows.

    Returns:
        The split's targets, and the histories of such users among its rows; these are None where there are none,
        or where the rows have no order.
    """
    indptr = held_out.event_indptr
    owners = held_out.event_users.long()
    place = torch.arange(held_out.num_events)
    earlier = (train.event_indptr.diff()[owners] == 0) & (place < indptr[owners + 1] - 1)
    if not held_out.has_order or not bool(earlier.any()):
        return held_out, None
    return _events(held_out, ~earlier), _events(held_out, earlier)


def _events(interactions: Interactions, chosen: Tensor) -> Interactions:
    times, positions = interactions.event_times, interactions.event_positions
    return Interactions.from_events(
        interactions.event_users[chosen],
        interactions.event_items[chosen],
        interactions.num_users,
        interactions.num_items,
        times=None if times is None else times[chosen],
        positions=None if positions is None else positions[chosen],
    )


def windows_a_user(counts: Tensor, length: int, samples: Samples) -> Tensor:
    """How many windows users with ``counts`` (b,) events have, (b,) int64."""
    if samples == "shift-all":
        return torch.ones_like(counts)
    if samples == "prefix":
        return counts
    return ((counts + length - 1) // length).clamp(min=1)


def targets_a_user(counts: Tensor, length: int, samples: Samples) -> Tensor:
    """How many targets the windows of users with ``counts`` (b,) events have, (b,) int64."""
    seen = counts.clamp(max=length) if samples == "shift-all" else counts
    return (seen - 1).clamp(min=0)


def _placed(items: Tensor, starts: Tensor, limits: Tensor, ends: Tensor, width: int) -> Tensor:
    """``items[end − width : end]`` of each window, −1 before its start and from its limit on."""
    place = ends[:, None] + torch.arange(-width, 0)
    inside = (place >= starts[:, None]) & (place < limits[:, None])
    if not len(items):
        return torch.full(place.shape, -1)
    return torch.where(inside, items[place.clamp(0, len(items) - 1)].long(), -1)
