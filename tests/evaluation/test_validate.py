"""The metric that training selects by."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.errors import DataError, OptionError
from recdistill.evaluation.candidates import Negatives
from recdistill.evaluation.validate import validator
from recdistill.models.bpr import BPR


def built(train: Interactions) -> BPR:
    model = BPR(dim=3)
    model.build(train, torch.Generator().manual_seed(1))
    return model


def test_equals_the_metric_worked_by_hand() -> None:
    train = Interactions.from_events([0, 1, 2], [4, 0, 1], 3, 5)
    valid = Interactions.from_events([0, 1], [2, 2], 3, 5)
    model = built(train)
    with torch.no_grad():
        model.user_table.fill_(1.0)
        model.item_table.copy_(torch.arange(5.0)[:, None].expand(5, 3))
    # user 0 sees 3 2 1 0 (4 is masked), user 1 sees 4 3 2 1: item 2 at ranks 2 and 3; user 2 has no target
    assert validator(valid, (train,), "mrr@10")(model) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert validator(valid, (train,), "recall@2")(model) == pytest.approx(1 / 2)
    assert validator(valid, (), "mrr@10")(model) == pytest.approx(1 / 3)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_mode_and_the_gradients_alone(training: bool) -> None:
    train = Interactions.from_events([0, 1], [0, 1], 2, 4)
    model = built(train).train(training)
    validator(Interactions.from_events([0], [2], 2, 4), (train,))(model)
    assert model.training is training
    assert model.user_table.grad is None


def test_nothing_to_validate_on() -> None:
    with pytest.raises(DataError, match="users with a valid row, found none"):
        validator(Interactions.from_events([], [], 2, 4), ())


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@0", "map@10", "recall@x", "coverage@10"])
def test_unknown_metric(metric: str) -> None:
    with pytest.raises(OptionError, match=f"validate_metric: expected one of recall.*found '{metric}'"):
        validator(Interactions.from_events([0], [1], 1, 2), (), metric)


def test_sampled_candidates_rank_the_target_among_them_alone() -> None:
    train = Interactions.from_events([0, 1], [0, 1], 2, 6)
    valid = Interactions.from_events([0, 1], [2, 2], 2, 6)
    negatives = Negatives(train.union(valid), 3, torch.arange(2), seed=4)
    drawn = torch.cat([items for _, items in negatives.blocks(torch.arange(2))])
    assert not bool((drawn == 2).any())
    assert not bool((drawn == torch.arange(2)[:, None]).any())
    model = BPR(dim=1)
    model.build(train, torch.Generator())
    with torch.no_grad():
        model.user_table.fill_(1.0)
        model.item_table.copy_(torch.tensor([0.0, 1.0, 2.5, 2.0, 3.0, 4.0])[:, None])
    ranks = 1 + (drawn > 3).sum(1)  # items 4 and 5 alone score above the target
    expected = float((1 / ranks).mean())
    assert validator(valid, (train,), "mrr@10", negatives)(model) == pytest.approx(expected)
    assert validator(valid, (train,), "hit@1", negatives)(model) == float((ranks == 1).float().mean())
