"""Full ranking and sampled candidates: what is masked, what is counted, what must change nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.interactions import Interactions
from recdistill.errors import DataError, OptionError
from recdistill.evaluation import candidates, rankers
from recdistill.evaluation.candidates import evaluation_negatives
from recdistill.evaluation.protocol import Outcome, make_task, rank_all, rank_sampled
from recdistill.evaluation.rankers import StateRanker
from recdistill.models.base import EmbeddingState


def split_data(
    train: list[tuple[int, int]],
    valid: list[tuple[int, int]],
    test: list[tuple[int, int]],
    num_users: int,
    num_items: int,
    seed: int = 0,
) -> Any:
    parts = {
        name: Interactions.from_events(
            torch.tensor([u for u, _ in rows], dtype=torch.int64),
            torch.tensor([i for _, i in rows], dtype=torch.int64),
            num_users,
            num_items,
        )
        for name, rows in (("train", train), ("valid", valid), ("test", test))
    }
    return SimpleNamespace(
        **parts,
        split=parts.__getitem__,
        has_repeats=any(part.has_repeats for part in parts.values()),
        manifest=SimpleNamespace(seed=seed),
        path="data",
    )


def random_data(seed: int, num_users: int = 30, num_items: int = 40) -> Any:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randperm(num_users * num_items, generator=generator)[: num_users * 8]
    rows = [(int(key) // num_items, int(key) % num_items) for key in keys]
    a, b = int(len(rows) * 0.6), int(len(rows) * 0.8)
    return split_data(rows[:a], rows[a:b], rows[b:], num_users, num_items, seed)


def random_state(seed: int, data: Any, dim: int = 4) -> EmbeddingState:
    generator = torch.Generator().manual_seed(seed)
    return EmbeddingState(
        torch.randint(-2, 3, (data.train.num_users, dim), generator=generator).float(),
        torch.randint(-2, 3, (data.train.num_items, dim), generator=generator).float(),
    )


def same(a: Outcome, b: Outcome) -> None:
    assert a.values.keys() == b.values.keys()
    for name, value in a.values.items():
        assert torch.equal(value.nan_to_num(-1), b.values[name].nan_to_num(-1)), name
    assert a.totals == b.totals
    for k, recall in a.group_recall.items():
        assert torch.equal(recall.nan_to_num(-1), b.group_recall[k].nan_to_num(-1)), k


def test_masks_by_split() -> None:
    data = split_data([(0, 0), (1, 1)], [(0, 2)], [(0, 3), (1, 0)], 2, 5)
    assert make_task(data, "test", "default", (1,)).masked_splits == ("train", "valid")
    assert make_task(data, "valid", "default", (1,)).masked_splits == ("train",)
    assert make_task(data, "test", "none", (1,)).masked_splits == ()
    # the model scores items by index, so the list of user 0 is what is left of 4 3 2 1 0
    state = EmbeddingState(torch.ones(2, 1), torch.arange(5.0)[:, None])
    for mask, split, expected in (
        ("default", "test", [[4, 3, 1], [4, 3, 2]]),
        ("none", "test", [[4, 3, 2], [4, 3, 2]]),
        ("seen", "valid", [[4, 3, 2]]),
    ):
        task = make_task(data, split, mask, (3,))
        outcome = rank_all(StateRanker(state), task, keep_lists=True)
        assert outcome.lists is not None
        assert outcome.lists.tolist() == expected


def test_data_with_repeats_is_not_masked_by_default() -> None:
    data = split_data([(0, 1), (0, 1), (0, 2)], [], [(0, 1), (0, 3)], 1, 4)
    task = make_task(data, "test", "default", (1,))
    assert (task.masked_splits, task.num_masked_targets, task.targets.num_pairs) == ((), 0, 2)
    seen = make_task(data, "test", "seen", (1,))
    # item 1 can never be found once train is masked, so it is no target
    assert (seen.num_masked_targets, seen.targets.items.tolist()) == (1, [3])


def test_users_without_targets_and_cold_users_are_counted() -> None:
    data = split_data([(0, 0), (1, 1)], [], [(0, 2), (2, 3)], 4, 5)
    task = make_task(data, "test", "default", (1,))
    assert task.users.tolist() == [0, 2]
    assert task.num_cold == 1


@pytest.mark.parametrize(
    ("test", "words"), [([], "no rows in the test split.*prepare"), ([(0, 0)], "1 rows, all of them masked")]
)
def test_no_targets(test: list[tuple[int, int]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_task(split_data([(0, 0)], [], test, 1, 2), "test", "seen", (1,))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.sampled_from([1, 3, 7, 4096]), threads=st.sampled_from([1, 2]))
def test_blocks_and_threads_change_nothing(seed: int, block: int, threads: int) -> None:
    data = random_data(seed, num_users=20)
    task = make_task(data, "test", "default", (1, 5, 10))
    teacher = rank_all(StateRanker(random_state(seed + 1, data)), task, keep_lists=True).lists
    ranker = StateRanker(random_state(seed, data))
    expected = rank_all(ranker, task, teacher_lists=teacher)
    before, threads_before = rankers.BLOCK, torch.get_num_threads()
    rankers.BLOCK = block
    torch.set_num_threads(threads)
    try:
        same(rank_all(ranker, task, teacher_lists=teacher), expected)
    finally:
        rankers.BLOCK = before
        torch.set_num_threads(threads_before)


@pytest.mark.parametrize("seed", range(3))
def test_user_order_changes_nothing(seed: int) -> None:
    data = random_data(seed)
    state = random_state(seed, data)
    users = data.train.num_users
    order = torch.randperm(users, generator=torch.Generator().manual_seed(seed))
    place = order.argsort()  # new index of each user

    def moved(part: Interactions) -> list[tuple[int, int]]:
        return list(zip(place[part.users.long()].tolist(), part.items.tolist(), strict=True))

    shuffled = split_data(moved(data.train), moved(data.valid), moved(data.test), users, data.train.num_items)
    task, other = (make_task(each, "test", "default", (5,)) for each in (data, shuffled))
    found = rank_all(StateRanker(state), task)
    again = rank_all(StateRanker(EmbeddingState(state.users[order], state.items)), other)
    at = torch.searchsorted(other.users, place[task.users])
    assert torch.equal(other.users[at], place[task.users])
    for name, value in found.values.items():
        assert torch.equal(value.nan_to_num(-1), again.values[name][at].nan_to_num(-1)), name
    assert found.totals == again.totals


def test_a_constant_scorer_scores_as_chance() -> None:
    # 4,000 users with one target drawn anywhere: the share found in the top 10 of 100 is a tenth
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(100, (4000,), generator=generator).tolist()
    data = split_data([], [], list(enumerate(items)), 4000, 100)
    constant = StateRanker(EmbeddingState(torch.ones(4000, 1), torch.zeros(100, 1)))
    task = make_task(data, "test", "default", (10,))
    chance, spread = 0.1, (0.1 * 0.9 / 4000) ** 0.5
    assert rank_all(constant, task).values["recall@10"].mean().item() == pytest.approx(chance, abs=4 * spread)
    sampled = (
        rank_sampled(constant, task, evaluation_negatives(data, 49, task.users))
        .values["recall@10"]
        .mean()
        .item()
    )
    # the target is one of 50 candidates, the first 10 by index of which are listed
    assert sampled == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 4000) ** 0.5)


def test_popularity_lift_is_the_ratio_of_the_averages() -> None:
    # train counts 3 1 1 0; profiles (3 + 1) / 2, (3 + 1) / 2 and 3; the lists hold item 3, item 0 and item 3
    data = split_data([(0, 0), (0, 1), (1, 0), (1, 2), (2, 0)], [], [(0, 3), (1, 3), (2, 3)], 3, 4)
    task = make_task(data, "test", "none", (1,))
    state = EmbeddingState(torch.tensor([[1.0], [-1.0], [1.0]]), torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    lift = rank_all(StateRanker(state), task).values["popularity_lift"]
    profile = (2 + 2 + 3) / 3
    assert lift.tolist() == pytest.approx([0.0, 3 / profile, 0.0])


def test_tail_recall_counts_targets_of_the_least_popular_group() -> None:
    popular = [(user, item) for user in range(8) for item in (0, 1)]
    data = split_data(popular, [], [(0, 2), (1, 2), (1, 1), (5, 1)], 8, 4)
    task = make_task(data, "test", "none", (1,))
    assert task.groups.tolist() == [1, 3, 0, 0]
    state = EmbeddingState(torch.ones(8, 1), torch.tensor([[0.0], [1.0], [2.0], [0.0]]))
    found = rank_all(StateRanker(state), task).values["tail_recall@1"]
    assert found[:2].tolist() == [1.0, 1.0]
    assert found[2].isnan()


def test_a_store_that_covers_some_users_is_averaged_over_them() -> None:
    data = split_data([(0, 0), (1, 0)], [], [(0, 1), (1, 1)], 2, 3)
    task = make_task(data, "test", "default", (1,))
    ranker = rankers.ListRanker("store", torch.tensor([[1, 2], [-1, -1]]), data.train)
    outcome = rank_all(ranker, task)
    assert outcome.values["recall@1"][0] == 1
    assert all(value[1].isnan() for value in outcome.values.values())
    assert outcome.group_recall[1][1].isnan().all()


def test_sampled_ranks_by_brute_force() -> None:
    data = random_data(3)
    state = random_state(4, data)
    task = make_task(data, "test", "default", (1, 3, 10))
    negatives = evaluation_negatives(data, 12, task.users)
    found = rank_sampled(StateRanker(state), task, negatives).values
    drawn = torch.cat([block for _, block in negatives.blocks(task.users)])
    scores = state.users @ state.items.T
    for place, user in enumerate(task.users.tolist()):
        hits = []
        for target in task.targets.rows(torch.tensor([user])).items.tolist():
            order = sorted(
                [target, *drawn[place].tolist()], key=lambda item: (-float(scores[user, item]), item)
            )
            hits.append(order.index(target) < 3)
        assert found["hit@3"][place].item() == pytest.approx(sum(hits) / len(hits))
    assert "coverage@3" not in found


def test_negatives_are_distinct_unseen_and_the_same_for_every_model_and_split() -> None:
    data = random_data(5, num_users=2500)
    everything = data.train.union(data.valid, data.test)
    both = [make_task(data, split, "default", (1,)).users for split in ("valid", "test")]
    drawn = []
    for users in both:
        blocks = list(evaluation_negatives(data, 9, users).blocks(users))
        assert len(blocks) == 3
        assert torch.equal(torch.cat([chosen for chosen, _ in blocks]), users)
        drawn.append(torch.cat([items for _, items in blocks]))
        assert not everything.contains(users, drawn[-1]).any()
        assert all(len(set(row)) == 9 for row in drawn[-1].tolist())
    shared = both[0][torch.isin(both[0], both[1])]
    rows = [items[torch.searchsorted(users, shared)] for users, items in zip(both, drawn, strict=True)]
    assert torch.equal(rows[0], rows[1])
    other = SimpleNamespace(**{**vars(data), "manifest": SimpleNamespace(seed=6)})
    again = torch.cat([items for _, items in evaluation_negatives(other, 9, both[0]).blocks(both[0])])
    assert not torch.equal(again, drawn[0])


def test_more_negatives_than_unobserved_items() -> None:
    data = split_data([(0, 0), (1, 1)], [], [(0, 1), (1, 2)], 2, 5)
    task = make_task(data, "test", "default", (1,))
    assert rank_sampled(
        StateRanker(random_state(0, data)), task, evaluation_negatives(data, 3, task.users)
    ).values
    with pytest.raises(OptionError, match=r"4 a user.*2 users have fewer.*fewest: 3.*--negatives 3"):
        evaluation_negatives(data, 4, task.users)


def test_blocks_of_users_have_draws_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_DRAW_BLOCK", 4)
    users = torch.arange(8)
    nothing = Interactions.from_events(users[:0], users[:0], 8, 200)
    (_, first), (_, second) = candidates.Negatives(nothing, 5, users, 0).blocks(users)
    assert not torch.equal(first, second)


def test_histories_at_test_hold_valid_rows() -> None:
    data = split_data([(0, 0), (1, 1)], [(0, 2)], [(0, 3), (1, 0)], 2, 5)
    assert make_task(data, "test", "default", (1,)).histories.num_pairs == 3
    assert make_task(data, "valid", "default", (1,)).histories.num_pairs == 2


def test_the_history_of_a_newcomer_is_masked() -> None:
    def rows(users: list[int], items: list[int]) -> Interactions:
        return Interactions.from_events(users, items, 2, 5, positions=list(range(len(users))))

    parts = {"train": rows([0], [0]), "valid": rows([0], [1]), "test": rows([0, 1, 1, 1], [2, 0, 3, 4])}
    data: Any = SimpleNamespace(**parts, split=parts.__getitem__, has_repeats=False, path="data")
    task = make_task(data, "test", "default", (1,))
    assert task.num_newcomers == 1
    assert task.targets.rows(torch.tensor([1])).items.tolist() == [4]
    assert task.masked is not None
    assert task.masked.rows(torch.tensor([1])).items.tolist() == [0, 3]
