"""Windows by hand, ties and gaps, and the cut of newcomers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.data.sequences import last_items, newcomers, targets_a_user, windows_of
from recdistill.testing import tiny_sequences


def events(rows: list[list[int]], **order: Any) -> Interactions:
    users = [user for user, row in enumerate(rows) for _ in row]
    items = [item for row in rows for item in row]
    order = order or {"positions": range(len(items))}
    return Interactions.from_events(users, items, len(rows), 10, **{k: list(v) for k, v in order.items()})


def test_last_items_are_padded_on_the_left_and_keep_repeats() -> None:
    interactions = events([[1, 2, 2, 3, 1], [], [7]])
    found = last_items(interactions, torch.tensor([2, 0, 1]), 4)
    assert found.tolist() == [[-1, -1, -1, 7], [2, 2, 3, 1], [-1, -1, -1, -1]]
    assert last_items(events([[]]), torch.tensor([0]), 2).tolist() == [[-1, -1]]


def test_shift_all_has_the_next_item_everywhere_but_at_the_end() -> None:
    found = windows_of(events([[1, 2, 3, 4, 5], [8, 9]]), torch.tensor([0, 1]), 3, "shift-all")
    assert found.items.tolist() == [[3, 4, 5], [-1, 8, 9]]
    assert found.targets.tolist() == [[4, 5, -1], [-1, 9, -1]]
    assert (found.owners.tolist(), found.newest.tolist()) == ([0, 1], [0, 1])


def test_windows_cover_older_items_too() -> None:
    found = windows_of(events([[1, 2, 3, 4, 5], [8, 9]]), torch.tensor([0, 1]), 3, "windows")
    assert found.items.tolist() == [[-1, 1, 2], [3, 4, 5], [-1, 8, 9]]
    assert found.targets.tolist() == [[-1, 2, 3], [4, 5, -1], [-1, 9, -1]]
    assert (found.owners.tolist(), found.newest.tolist()) == ([0, 0, 1], [1, 2])


def test_prefixes_have_a_target_at_their_end() -> None:
    found = windows_of(events([[1, 2, 3, 4]]), torch.tensor([0]), 3, "prefix")
    assert found.items.tolist() == [[-1, -1, 1], [-1, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert found.targets.tolist() == [[-1, -1, 2], [-1, -1, 3], [-1, -1, 4], [-1, -1, -1]]
    assert found.newest.tolist() == [3]


@pytest.mark.parametrize("length", [2, 3, 7, 50])
@pytest.mark.parametrize("samples", ["windows", "prefix"])
def test_every_item_but_the_first_is_a_target_once(length: int, samples: Any) -> None:
    interactions = tiny_sequences()
    users = (interactions.event_indptr.diff() > 0).nonzero().squeeze(1)
    found = windows_of(interactions, users, length, samples)
    counts = interactions.event_indptr.diff()[users]
    present = found.targets >= 0
    rows = torch.zeros(len(users), dtype=torch.int64).index_add_(0, found.owners, present.sum(1))
    assert rows.tolist() == (counts - 1).tolist() == targets_a_user(counts, length, samples).tolist()
    for place, user in enumerate(users.tolist()):
        own = interactions.event_rows(torch.tensor([user])).items.tolist()
        targets = found.targets[found.owners == place]
        assert targets[targets >= 0].tolist() == own[1:]
        assert found.items[found.newest[place]][-min(length, len(own)) :].tolist() == own[-length:]


def test_gaps_between_positions_change_nothing() -> None:
    plain = events([[1, 2, 3]], positions=[0, 1, 2])
    gaps = events([[1, 2, 3]], positions=[-5, 70, 9000])
    assert torch.equal(plain.event_items, gaps.event_items)
    mixed = events([[3, 1, 2]], positions=[9000, -5, 70])
    assert torch.equal(plain.event_items, mixed.event_items)


def test_ties_keep_the_order_given() -> None:
    tied = events([[4, 2, 9, 2]], times=[1.0, 1.0, 0.5, 1.0])
    assert tied.event_items.tolist() == [9, 4, 2, 2]


def test_newcomers_are_cut_into_history_and_target() -> None:
    train = events([[1], [], [], []])
    held_out = events([[5, 6], [7, 8, 7], [3], []])
    targets, earlier = newcomers(held_out, train)
    assert targets.event_rows(torch.arange(4)).items.tolist() == [5, 6, 7, 3]
    assert targets.event_indptr.tolist() == [0, 2, 3, 4, 4]
    assert earlier is not None
    assert earlier.event_items.tolist() == [7, 8]
    assert earlier.event_indptr.tolist() == [0, 0, 2, 2, 2]
    joined = train.union(earlier)
    assert joined.event_rows(torch.tensor([1])).items.tolist() == [7, 8]


def test_without_an_order_nothing_is_cut() -> None:
    held_out = Interactions.from_events([1, 1], [2, 3], 2, 10)
    train = Interactions.from_events([0], [1], 2, 10)
    assert newcomers(held_out, train) == (held_out, None)
