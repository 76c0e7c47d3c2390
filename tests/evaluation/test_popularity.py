"""Popularity groups and the popularity of lists."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.evaluation.popularity import list_popularity, popularity_groups, profile_popularity


def test_groups_hold_equal_shares() -> None:
    counts = torch.tensor([4, 0, 1, 1, 1, 1, 2, 2, 4, 4])  # 20 in all, so 4 a group
    groups = popularity_groups(counts)
    assert groups.tolist() == [2, 0, 0, 0, 0, 0, 1, 1, 3, 4]
    shares = torch.zeros(5, dtype=torch.int64).index_add_(0, groups, counts)
    assert shares.tolist() == [4, 4, 4, 4, 4]


def test_one_item_with_nearly_everything() -> None:
    assert popularity_groups(torch.tensor([97, 1, 1, 1])).tolist() == [2, 0, 0, 0]
    assert popularity_groups(torch.tensor([60, 20, 20])).tolist() == [3, 0, 1]


def test_nothing_in_train_is_all_tail() -> None:
    assert popularity_groups(torch.zeros(4, dtype=torch.int64)).tolist() == [0, 0, 0, 0]
    assert popularity_groups(torch.empty(0, dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_groups_rise_with_popularity(seed: int) -> None:
    counts = (torch.rand(500, generator=torch.Generator().manual_seed(seed)) ** -1.5).long()
    groups = popularity_groups(counts)
    order = counts.argsort(stable=True)
    assert (groups[order].diff() >= 0).all()
    assert groups[order[0]] == 0


def test_list_popularity_leaves_pads_out() -> None:
    counts = torch.tensor([10, 2, 0])
    found = list_popularity(torch.tensor([[0, 1], [1, -1], [-1, -1]]), counts)
    assert found[:2].tolist() == [6.0, 2.0]
    assert found[2].isnan()


def test_profile_is_the_mean_of_the_users_means() -> None:
    # item counts 2, 1, 1; user 0 has items 0 and 1, user 1 items 0 and 2, user 2 nothing
    train = Interactions.from_events([0, 0, 1, 1], [0, 1, 0, 2], 3, 3)
    assert profile_popularity(train, torch.tensor([0, 1, 2])) == 1.5
    assert profile_popularity(train, torch.tensor([2])) != profile_popularity(train, torch.tensor([2]))  # NaN


def test_users_with_many_items_weigh_no_more_in_the_profile() -> None:
    # item counts 2, 1, 1, 1; user 0 has item 0 alone: 2; user 1 has 0, 1, 2 and 3: 5/4
    train = Interactions.from_events([0, 1, 1, 1, 1], [0, 0, 1, 2, 3], 2, 4)
    assert profile_popularity(train, torch.tensor([0, 1])) == pytest.approx((2 + 5 / 4) / 2)
