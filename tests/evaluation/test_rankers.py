"""Models and stored lists behind the same two reads."""

from __future__ import annotations

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.errors import OptionError
from recdistill.evaluation.rankers import ListRanker, StateRanker, model_ranker
from recdistill.models.base import EmbeddingState
from recdistill.models.bpr import BPR
from recdistill.models.ranking import top_items


def pairs(*rows: list[int], num_items: int) -> Interactions:
    users = [user for user, row in enumerate(rows) for _ in row]
    items = [item for row in rows for item in row]
    return Interactions.from_events(users, items, len(rows), num_items)


def state(num_users: int, num_items: int, seed: int = 0) -> EmbeddingState:
    generator = torch.Generator().manual_seed(seed)
    users = torch.randint(-3, 4, (num_users, 4), generator=generator).float()
    return EmbeddingState(users, torch.randint(-3, 4, (num_items, 4), generator=generator).float())


def test_lists_rank_as_the_model_that_they_were_made_from() -> None:
    generator = torch.Generator().manual_seed(1)
    train = Interactions.from_events(
        torch.randint(20, (60,), generator=generator), torch.randint(40, (60,), generator=generator), 20, 40
    )
    valid = Interactions.from_events(
        torch.randint(20, (30,), generator=generator), torch.randint(40, (30,), generator=generator), 20, 40
    )
    scores = state(20, 40)
    everyone = torch.arange(20)
    stored = top_items(scores, everyone, 20, exclude=[train])[0].int()
    lists = ListRanker("store", stored, train)
    masked = train.union(valid)
    lists.check(everyone, 8, masked)
    users = torch.tensor([3, 0, 17])
    assert torch.equal(lists.top(users, 8, masked), StateRanker(scores).top(users, 8, masked))


def test_a_list_that_ends_before_its_depth_holds_all_there_is() -> None:
    train = pairs([0, 1], num_items=4)
    ranker = ListRanker("store", torch.tensor([[3, 2, -1, -1]]), train)
    user = torch.tensor([0])
    ranker.check(user, 3, train)
    assert ranker.top(user, 3, train).tolist() == [[3, 2, -1]]
    assert ranker.top(user, 6, train).tolist() == [[3, 2, -1, -1, -1, -1]]


def test_lists_too_short_name_the_depth_that_would_do() -> None:
    # user 0 loses items 5 and 7 of a list of depth 4, and may have one more masked item further down
    train = pairs([0], [1], num_items=20)
    valid = pairs([5, 7, 12], [], num_items=20)
    masked = train.union(valid)
    ranker = ListRanker("the store", torch.tensor([[5, 3, 7, 4], [2, 3, 4, 5]]), train)
    users = torch.tensor([0, 1])
    ranker.check(users, 2, masked)
    with pytest.raises(OptionError, match=r"depth 4: .* top 3 of 1 users; extract with --depth 6"):
        ranker.check(users, 3, masked)
    deeper = ListRanker("the store", torch.tensor([[5, 3, 7, 4, 12, 6], [2, 3, 4, 5, 6, 7]]), train)
    deeper.check(users, 3, masked)
    assert deeper.top(users, 3, masked).tolist() == [[3, 4, 6], [2, 3, 4]]


def test_lists_without_train_items_do_not_rank_unmasked() -> None:
    ranker = ListRanker("the store", torch.tensor([[1, 2]]), pairs([0], num_items=3))
    with pytest.raises(OptionError, match=r"made without the train items.*--mask seen"):
        ranker.check(torch.tensor([0]), 1, None)


def test_lists_score_no_candidates() -> None:
    ranker = ListRanker("the store", torch.tensor([[1, 2]]), pairs([0], num_items=3))
    with pytest.raises(OptionError, match=r"lists alone.*--protocol full"):
        ranker.scores(torch.tensor([0]), torch.tensor([[1]]))


def test_a_model_is_ranked_in_eval_mode_without_gradient() -> None:
    model = BPR(dim=3)
    model.build(pairs([0], [1], num_items=5), torch.Generator().manual_seed(0))
    model.train()
    ranker = model_ranker(model)
    scores = ranker.scores(torch.tensor([1, 0]), torch.tensor([[2, 4], [0, 1]]))
    assert not model.training
    assert not scores.requires_grad
    expected = (model.user_table[[1, 0]] @ model.item_table.T).gather(1, torch.tensor([[2, 4], [0, 1]]))
    torch.testing.assert_close(scores, expected.detach())
    best = ranker.top(torch.tensor([0]), 5, None)[0]
    assert best.tolist() == (model.user_table[0] @ model.item_table.T).argsort(descending=True).tolist()


def test_lists_that_end_although_there_is_more_are_too_short() -> None:
    train = pairs([0], num_items=5)  # the user has 4 unobserved items
    short = ListRanker("mine", torch.tensor([[1, 2, -1, -1, -1]]), train, "ensemble")
    with pytest.raises(
        OptionError,
        match=r"too short for the top 3 of 1 users; ensemble with --depth 3 \(of stores as deep\)",
    ):
        short.check(torch.tensor([0]), 3, train)
    short.check(torch.tensor([0]), 2, train)
    whole = ListRanker("mine", torch.tensor([[1, 2, 4, 3, -1]]), train)
    whole.check(torch.tensor([0]), 5, train)
    two = pairs([0], [1], num_items=5)  # one of them without a list
    ListRanker("mine", torch.tensor([[1, 2], [-1, -1]]), two).check(torch.tensor([0, 1]), 2, two)
    with pytest.raises(OptionError, match="mine has an empty list for each of the 1 users"):
        ListRanker("mine", torch.tensor([[-1, -1]]), train).check(torch.tensor([0]), 2, train)
