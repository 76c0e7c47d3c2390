"""Several evaluations as one: means, tests over users and over splits, and what may not be put together."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from recdistill.errors import ArtifactError
from recdistill.evaluation import across
from recdistill.evaluation.across import SPLITS, USERS, SplitResult, check_comparable, combine, different

USERS_IDS = [f"u{n}" for n in range(200)]


def split_of(seed: int, values: dict[str, np.ndarray[Any, Any]], **changed: Any) -> SplitResult:
    """One split; models are ``row-0``, ``row-1`` for the model seeds of ``row``."""
    rows: dict[str, list[str]] = {}
    for name in values:
        rows.setdefault(name.rpartition("-")[0], []).append(name)
    groups = {
        row: {
            "members": members,
            "metrics": {
                "ndcg@10": {"mean": float(np.mean([values[m].mean() for m in members])), "spread": None}
            },
            "gap_closed": {"ndcg@10": {"value": 0.1 * seed, "interval": None}} if row == "good" else {},
        }
        for row, members in rows.items()
    }
    table = pl.concat(
        pl.DataFrame({"model": [name] * 200, "user_id": USERS_IDS, "ndcg@10": column})
        for name, column in values.items()
    )
    result = {"data": f"data-{seed}", "split": "test", "protocol": "full", "k": [10], "groups": groups}
    result |= {"models": {name: {"num_users": 200} for name in values}, "users": {"evaluated": 200}}
    result |= {"gap_closed": {}, "gap_closed_reasons": {}}
    result |= changed.pop("result", {})
    fields: dict[str, Any] = {"source": {"options": 1}, "test_ratio": 0.125, **changed}
    return SplitResult(seed, result, table, rows, **fields)


def draws(seed: int, seeds: int = 2) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    base = rng.random(200)
    return {
        f"{row}-{number}": base + shift + 0.05 * rng.normal(size=200)
        for row, shift in (("good", 0.1), ("same", 0.0), ("poor", 0.0))
        for number in range(seeds)
    }


def test_one_split_is_tested_over_users_averaged_over_seeds() -> None:
    values = draws(1)
    found = combine([split_of(0, values)], ["ndcg@10"])
    assert found["how"] == USERS
    assert [(t["a"], t["b"]) for t in found["tests"]] == list(combinations(["good", "same", "poor"], 2))
    mean = {row: (values[f"{row}-0"] + values[f"{row}-1"]) / 2 for row in ("good", "same")}
    assert found["tests"][0]["difference"] == pytest.approx(float((mean["good"] - mean["same"]).mean()))
    assert set(different(found["tests"], "ndcg@10")) == {
        frozenset({"good", "same"}), frozenset({"good", "poor"})
    }  # fmt: skip


@pytest.mark.parametrize("num_splits", [1, 2])
def test_a_row_that_is_no_group_of_its_evaluation_is_put_together_from_its_models(num_splits: int) -> None:
    """Two teachers that differ in the seed alone leave their students without groups."""
    splits = [split_of(seed, draws(seed)) for seed in range(num_splits)]
    apart: list[SplitResult] = []
    for split in splits:
        models = {
            name: {"num_users": 200, "metrics": {"ndcg@10": {"mean": float(column.to_numpy().mean())}}}
            for (name,), frame in split.per_user.group_by("model", maintain_order=True)
            for column in [frame["ndcg@10"]]
        }
        result = {
            **split.result,
            "models": models,
            "groups": {name: {"members": [name], **models[name], "gap_closed": {}} for name in models},
            "gap_closed": {"good-0": {"ndcg@10": 0.2}, "good-1": {"ndcg@10": 0.4}},
            "gap_closed_reasons": {"good-0": {}, "good-1": {}},
        }
        apart.append(SplitResult(split.seed, result, split.per_user, split.rows, split.source, 0.125))
    found, grouped = combine(apart, ["ndcg@10"]), combine(splits, ["ndcg@10"])
    for row in ("good", "same", "poor"):
        own = found["rows"][row]["metrics"]["ndcg@10"]
        assert own["mean"] == pytest.approx(grouped["rows"][row]["metrics"]["ndcg@10"]["mean"])
        assert own["spread"] is not None
    assert found["rows"]["good"]["gap_closed"]["ndcg@10"]["mean"] == pytest.approx(0.3)
    assert [t["p"] for t in found["tests"]] == pytest.approx([t["p"] for t in grouped["tests"]])


def test_many_rows_can_still_differ_after_the_correction() -> None:
    rng = np.random.default_rng(0)
    values = {f"r{n}-0": rng.random(200) + 0.5 * n for n in range(30)}
    found = combine([split_of(0, values)], ["ndcg@10"])
    assert len(found["tests"]) == 435
    assert len(different(found["tests"], "ndcg@10")) == 435


def test_splits_are_compared_by_their_means() -> None:
    splits = [split_of(seed, draws(seed)) for seed in (1, 2, 3)]
    found = combine(splits, ["ndcg@10"])
    assert found["how"] == SPLITS
    each = {
        row: np.array([split.result["groups"][row]["metrics"]["ndcg@10"]["mean"] for split in splits])
        for row in ("good", "same")
    }
    entry = found["rows"]["good"]["metrics"]["ndcg@10"]
    assert entry["mean"] == pytest.approx(each["good"].mean())
    assert entry["spread"] == pytest.approx(each["good"].std(ddof=1))
    assert found["rows"]["good"]["gap_closed"]["ndcg@10"]["mean"] == pytest.approx(0.2)
    differences = each["good"] - each["same"]
    scale = np.sqrt(differences.var(ddof=1) * (1 / 3 + 0.125))
    assert found["tests"][0]["p"] == pytest.approx(2 * stats.t.sf(abs(differences.mean()) / scale, 2))


def test_rows_that_an_evaluation_pools_keep_their_own_numbers() -> None:
    values = draws(1)
    whole = split_of(1, values)
    means = {name: {"ndcg@10": {"mean": float(column.mean())}} for name, column in values.items()}
    result = {
        **whole.result,
        "models": {name: {"metrics": found, "num_users": 200} for name, found in means.items()},
    }
    rows = {name: [name] for name in values}
    splits = [SplitResult(seed, {**result, "data": seed}, whole.per_user, rows, {}, 0.125) for seed in (1, 2)]
    for found in (combine(splits[:1], ["ndcg@10"]), combine(splits, ["ndcg@10"])):
        for name in ("good-0", "good-1"):
            assert found["rows"][name]["metrics"]["ndcg@10"]["mean"] == pytest.approx(values[name].mean())


LINEAGE = {"good": ("teacher", "alone")}


def taught(teacher: float, entry: dict[str, Any]) -> SplitResult:
    """A split whose teacher is above ``alone`` by so much, with what its evaluation says of the gap."""
    rng = np.random.default_rng(3)
    base = rng.random(200)
    values = {
        f"{row}-{number}": base + shift + 0.05 * rng.normal(size=200)
        for row, shift in (("teacher", teacher), ("alone", 0.0), ("good", 0.05))
        for number in range(2)
    }
    split = split_of(0, values)
    split.result["groups"]["good"]["gap_closed"] = {"ndcg@10": entry, "recall@10": entry}
    return split


def test_with_one_split_the_rows_tests_decide_on_the_gap() -> None:
    unproven = {"value": None, "interval": None, "reason": "corrected for more tests"}
    found = combine([taught(0.1, unproven)], ["ndcg@10"], lineage=LINEAGE)
    assert frozenset({"teacher", "alone"}) in different(found["tests"], "ndcg@10")
    rows = found["rows"]
    mean = {name: row["metrics"]["ndcg@10"]["mean"] for name, row in rows.items()}
    share = rows["good"]["gap_closed"]["ndcg@10"]
    assert share["mean"] == pytest.approx((mean["good"] - mean["alone"]) / (mean["teacher"] - mean["alone"]))
    low, high = share["interval"]
    assert low < share["mean"] < high
    assert "reason" not in share
    # by a metric that the rows are not tested by the evaluation's word stands
    assert rows["good"]["gap_closed"]["recall@10"]["reason"] == unproven["reason"]
    assert rows["alone"]["gap_closed"] == {}


def test_no_gap_where_the_rows_tests_show_none() -> None:
    found = combine([taught(0.0, {"value": 0.4, "interval": None})], ["ndcg@10"], lineage=LINEAGE)
    test = next(test for test in found["tests"] if {test["a"], test["b"]} == {"teacher", "alone"})
    share = found["rows"]["good"]["gap_closed"]["ndcg@10"]
    assert share["mean"] is None
    assert share["reason"].startswith("teacher does not beat alone significantly")
    assert f"p {test['p_holm']:.3f} corrected for 3 tests" in share["reason"]


def test_a_share_that_one_split_lacks_is_null_with_the_reason() -> None:
    splits = [split_of(seed, draws(seed)) for seed in (1, 2)]
    splits[1].result["groups"]["good"]["gap_closed"]["ndcg@10"] = {"value": None, "reason": "no teacher"}
    found = combine(splits, ["ndcg@10"])["rows"]["good"]["gap_closed"]["ndcg@10"]
    assert found["mean"] is None
    assert found["reason"] == "in 1 of 2 splits: no teacher"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": {"options": 2}}, "not of the same data"),
        ({"result": {"data": "data-0"}}, "the same split"),
        ({"result": {"protocol": "sampled"}}, "protocol full and sampled"),
        ({"result": {"k": [20]}}, r"k \[10\] and \[20\]"),
    ],
)
def test_other_data_splits_and_protocols_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        check_comparable([split_of(0, draws(0)), split_of(1, draws(1), **changed)])


def test_p_values_can_fall_below_5_percent_after_the_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(across, "PERMUTATIONS", 100)
    values: Any = {f"r{n}": {"m": torch.full((40,), float(n), dtype=torch.float64)} for n in range(8)}
    tests = across._over_users(values, "m", 0)
    assert len(tests) == 28
    assert all(test["p_holm"] < 0.05 for test in tests)


def test_different_reads_the_corrected_p() -> None:
    test = {"a": "x", "b": "y", "metric": "m", "difference": 0.1, "p": 0.01}
    assert different([{**test, "p_holm": 0.04}, {**test, "p_holm": 0.06}], "m") == [frozenset("xy")]
    assert different([{**test, "p_holm": 0.06}], "m") == []


def test_a_difference_that_never_varies_is_certain() -> None:
    splits: Any = [SimpleNamespace(test_ratio=0.125)] * 3
    rows = {
        name: {"metrics": {"m": {"each": each}}}
        for name, each in (("a", [0.5, 0.25, 0.75]), ("b", [0.25, 0.0, 0.5]), ("c", [0.5, 0.25, 0.75]))
    }
    found = {(t["a"], t["b"]): t["p"] for t in across._over_splits(splits, rows, "m")}
    assert found == {("a", "b"): 0.0, ("a", "c"): 1.0, ("b", "c"): 0.0}
