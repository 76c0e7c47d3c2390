"""Ranking metrics: values worked by hand, trec_eval's on random data, and what must not change them."""

from __future__ import annotations

from math import log2

import ir_measures
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, P, R, Success, nDCG
from torch import Tensor

from recdistill.evaluation.metrics import (
    Coverage,
    find_hits,
    group_recall,
    list_metrics,
    overlap,
    rank_metrics,
)
from recdistill.ops import Rows


def rows(*lists: list[int]) -> Rows:
    indptr = torch.tensor([0, *(len(row) for row in lists)]).cumsum(0)
    items = torch.tensor([item for row in lists for item in sorted(row)], dtype=torch.int32)
    return Rows(indptr, items)


def test_values_worked_by_hand() -> None:
    # hits at ranks 1 and 3 of 3 targets
    ids = torch.tensor([[7, 0, 3, 1, 2]])
    values = list_metrics(ids, rows([3, 7, 9]), (1, 2, 5))
    ideal = 1 + 1 / log2(3) + 1 / log2(4)
    expected = {
        "recall@1": 1 / 3,
        "recall@2": 1 / 3,
        "recall@5": 2 / 3,
        "precision@2": 1 / 2,
        "precision@5": 2 / 5,
        "hit@1": 1.0,
        "mrr@5": 1.0,
        "ndcg@1": 1.0,
        "ndcg@2": 1 / (1 + 1 / log2(3)),
        "ndcg@5": (1 + 1 / log2(4)) / ideal,
    }
    for name, value in expected.items():
        assert values[name].item() == pytest.approx(value, abs=1e-15), name
    assert values["ndcg@5"].item() == pytest.approx(0.70391809, abs=1e-8)


def test_first_hit_after_the_cut_counts_nothing() -> None:
    values = list_metrics(torch.tensor([[5, 6, 1]]), rows([1]), (2, 3))
    assert [values[f"{name}@2"].item() for name in ("recall", "ndcg", "mrr", "hit", "precision")] == [0.0] * 5
    assert values["mrr@3"].item() == pytest.approx(1 / 3)
    assert values["ndcg@3"].item() == pytest.approx(1 / log2(4))


def test_a_perfect_list_is_exactly_one() -> None:
    ids = torch.arange(50)[None]
    values = list_metrics(ids, rows(list(range(50))), (5, 20, 50))
    assert values["ndcg@5"].item() == values["ndcg@20"].item() == values["ndcg@50"].item() == 1.0


def test_users_without_targets_have_no_value_and_pads_hit_nothing() -> None:
    values = list_metrics(torch.tensor([[0, 1], [1, -1]]), rows([], [0]), (2,))
    for name, value in values.items():
        assert value[0].isnan(), name
        assert value[1].item() == 0.0, name


def test_no_users() -> None:
    values = list_metrics(torch.empty(0, 3, dtype=torch.int64), rows(), (3,))
    assert all(value.shape == (0,) for value in values.values())


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_trec_eval(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_users, num_items, depth = 60, 80, 30
    scores = torch.rand(num_users, num_items, generator=generator)
    relevant = torch.rand(num_users, num_items, generator=generator) < 0.1
    relevant[:, 0] |= ~relevant.any(1)
    ids = scores.argsort(dim=1, descending=True)[:, :depth]
    values = list_metrics(ids, rows(*(row.nonzero().squeeze(1).tolist() for row in relevant)), (5, 20))

    qrels = [ir_measures.Qrel(str(user), str(item), 1) for user, item in relevant.nonzero().tolist()]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), float(scores[user, item]))
        for user in range(num_users)
        for item in ids[user].tolist()
    ]
    for k in (5, 20):
        named = {"recall": R @ k, "ndcg": nDCG @ k, "mrr": RR @ k, "hit": Success @ k, "precision": P @ k}
        for name, measure in named.items():
            theirs = torch.zeros(num_users, dtype=torch.float64)
            for row in ir_measures.iter_calc([measure], qrels, run):
                theirs[int(row.query_id)] = row.value
            torch.testing.assert_close(values[f"{name}@{k}"], theirs, rtol=0, atol=1e-12, msg=name)


def random_case(seed: int) -> tuple[Tensor, list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    num_users = int(torch.randint(1, 40, (1,), generator=generator))
    num_items = int(torch.randint(1, 30, (1,), generator=generator))
    scores = torch.randint(0, 4, (num_users, num_items), generator=generator)
    keys = scores * num_items - torch.arange(num_items)  # equal scores by smaller id
    ids = keys.argsort(dim=1, descending=True)
    relevant = torch.rand(num_users, num_items, generator=generator) < 0.2
    targets = [row.nonzero().squeeze(1).tolist() for row in relevant]
    return ids, targets


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.integers(1, 7), threads=st.sampled_from([1, 2]))
def test_values_do_not_depend_on_order_blocks_or_threads(seed: int, block: int, threads: int) -> None:
    ids, targets = random_case(seed)
    ks = (1, 3, 10)
    whole = list_metrics(ids, rows(*targets), ks)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed + 1))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = [
            list_metrics(ids[part], rows(*(targets[user] for user in part.tolist())), ks)
            for part in order.split(block)
        ]
    finally:
        torch.set_num_threads(before)
    for name, value in whole.items():
        joined = torch.cat([part[name] for part in parts])
        assert torch.equal(joined.nan_to_num(-1), value[order].nan_to_num(-1)), name


def test_metrics_of_ranks() -> None:
    # ranks 3 and 12, rank 1, no targets; alone, rank 3 has the golden values .5 (ndcg) and 1/3 (mrr)
    values = rank_metrics(torch.tensor([3, 12, 1]), torch.tensor([0, 2, 3, 3]), (5, 20))
    assert values["hit@5"][:2].tolist() == [0.5, 1.0]
    assert values["recall@20"][:2].tolist() == [1.0, 1.0]
    assert values["ndcg@5"][0].item() == pytest.approx(0.5 / 2)
    assert values["ndcg@20"][0].item() == pytest.approx((0.5 + 1 / log2(13)) / 2)
    assert values["mrr@20"][0].item() == pytest.approx((1 / 3 + 1 / 12) / 2)
    assert values["precision@5"][:2].tolist() == [0.1, 0.2]
    assert all(value[2].isnan() for value in values.values())


def test_ranks_of_one_target_agree_with_lists() -> None:
    # one target a user: ranking it among candidates and ranking a list are the same thing
    ids = torch.stack(
        [torch.randperm(12, generator=torch.Generator().manual_seed(user)) for user in range(8)]
    )
    targets = rows(*([user] for user in range(8)))
    ranks = (ids == torch.arange(8)[:, None]).nonzero()[:, 1] + 1
    by_rank = rank_metrics(ranks, targets.indptr, (3, 12))
    for name, value in list_metrics(ids, targets, (3, 12)).items():
        torch.testing.assert_close(by_rank[name], value, rtol=0, atol=1e-15, msg=name)


def test_group_recall_splits_recall() -> None:
    ids = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    targets = rows([0, 3, 4], [2])
    groups = torch.tensor([0, 1, 1, 1, 0])
    found = group_recall(find_hits(ids, targets), targets, groups, 2, 2)
    assert found[0].tolist() == [0.5, 0.0]
    assert found[1, 0].isnan()
    assert found[1, 1].item() == 1.0


def test_overlap() -> None:
    teacher = torch.tensor([[4, 2, 9, 1], [7, 3, -1, -1], [-1, -1, -1, -1]])
    student = torch.tensor([[2, 4, 1, 8], [3, 5, 7, -1], [1, 2, 3, 4]])
    found = overlap(student, teacher, (1, 2, 4), 10)
    assert found["overlap@1"][:2].tolist() == [0.0, 0.0]
    assert found["overlap@2"][:2].tolist() == [1.0, 0.5]
    assert found["overlap@4"][:2].tolist() == [0.75, 1.0]
    assert all(value[2].isnan() for value in found.values())


def test_overlap_with_itself_is_one() -> None:
    ids = torch.stack([torch.randperm(20)[:10] for _ in range(5)])
    assert torch.equal(overlap(ids, ids, (10,), 20)["overlap@10"], torch.ones(5, dtype=torch.float64))


def test_coverage_counts_distinct_items_over_blocks() -> None:
    coverage = Coverage(10, (1, 3))
    coverage.add(torch.tensor([[0, 1, 2], [0, 2, -1]]))
    coverage.add(torch.tensor([[5, 1, 0]]))
    assert coverage.value() == {"coverage@1": 0.2, "coverage@3": 0.4}
