"""What is read from a ``metrics.json``, and what is said of a damaged one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recdistill.errors import ArtifactError
from recdistill.reporting.numbers import Missing
from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.results import Estimate, Evaluation
from report_helpers import header, line_metrics

HASHES = dict.fromkeys(("teacher", "alone", "student", "popularity"), "f" * 16)


@pytest.fixture
def tree() -> dict[str, Any]:
    return copy.deepcopy(line_metrics(Path("runs"), "d" * 16, HASHES))


def read(tree: dict[str, Any]) -> Evaluation:
    return read_evaluation("evaluation", Path("metrics.json"), tree)


def test_everything_is_typed(tree: dict[str, Any]) -> None:
    evaluation = read(tree)
    student = evaluation.entry("student")
    assert student is not None
    assert student.value("ndcg@10") == Estimate(0.2801, 0.2801 - 0.0079, 0.2801 + 0.0077, 900)
    assert student.gap("ndcg@10") == Estimate(0.6239, 0.512, 0.734)
    assert student.first.teacher == "teacher"
    assert student.first.distilled
    assert (student.first.parameters, student.first.bytes) == (66_000, 264_344)
    assert [group.label for group in evaluation.popularity] == [
        "tail",
        "group 2",
        "group 3",
        "group 4",
        "head",
    ]
    assert sum(group.targets or 0 for group in evaluation.popularity) == pytest.approx(1)
    assert student.group_recall("recall@20")[-1] == pytest.approx(0.2801 * 1.9)
    test = evaluation.test("student", "teacher", "ndcg@10")
    assert test is not None
    assert test.significant
    assert (evaluation.primary, evaluation.secondary, evaluation.overlap) == (
        "ndcg@10",
        "recall@20",
        "overlap@10",
    )


def test_the_least_that_the_contract_asks_for_is_enough() -> None:
    model = {
        "path": "runs/student", "hash": "a" * 16, "num_users": 90,
        "metrics": {"recall@5": {"mean": 0.25, "stderr": 0.01, "n": 90}},
        "parameters": 10, "bytes": 40, "latency_ms": {"batch": 1, "p50": 1.5, "p99": 2.5},
    }  # fmt: skip
    tree = {
        "format": 1, "data": "d", "split": "test", "protocol": "full", "masked": [], "num_items": 7,
        "models": {"student": model}, "gap_closed": {"student": {"recall@5": None}}, "tests": [],
    }  # fmt: skip
    evaluation = read(tree)
    entry = evaluation.entries[0]
    value = entry.value("recall@5")
    assert isinstance(value, Estimate)
    assert (value.low, value.high) == pytest.approx((0.25 - 0.0196, 0.25 + 0.0196))
    latency = entry.latency(1)
    assert not isinstance(latency, Missing)
    assert (latency.p50, latency.p99) == (1.5, 2.5)
    assert entry.gap("recall@5") == Missing("the evaluation recorded no value and no reason")
    assert evaluation.users["evaluated"] == 90


def test_whatever_is_null_has_a_reason(tree: dict[str, Any]) -> None:
    tree["models"]["alone"] |= {"kind": "knowledge", "parameters": None, "bytes": None, "latency_ms": None}
    tree["models"]["teacher"]["latency_ms"] = None
    reason = "teacher does not beat alone significantly"
    tree["groups"]["student"]["gap_closed"]["ndcg@10"] = {"value": None, "interval": None, "reason": reason}
    tree["groups"]["teacher"]["metrics"]["ndcg@10"] = {"mean": None, "stderr": None, "n": 0, "interval": None}
    tree["popularity_groups"]["models"]["student"]["recall@20"][0] = {"mean": None, "n": 0}
    evaluation = read(tree)
    teacher, alone, student = (evaluation.entry(name) for name in ("teacher", "alone", "student"))
    assert teacher is not None
    assert alone is not None
    assert student is not None
    assert student.gap("ndcg@10") == Missing(reason)
    assert alone.first.parameters == Missing("stored knowledge has no weights")
    assert alone.latency(1) == Missing("stored knowledge serves no requests")
    assert teacher.latency(1) == Missing("latency was not measured")
    assert teacher.value("ndcg@10") == Missing("no user has a value")
    assert teacher.value("overlap@10") == Missing("it has no teacher among the models evaluated")
    assert teacher.gap("ndcg@10") == Missing("the gap is a distilled model's: this one is not distilled")
    assert student.group_recall("recall@20")[0] == Missing("no user has a target in this group")


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for key in path[:-1]:
            tree = tree[key]
        del tree[path[-1]]

    return change


@pytest.mark.parametrize(
    "damage",
    [
        without("models"),
        without("split"),
        without("models", "student"),
        without("models", "student", "metrics"),
        lambda tree: tree.update(models={}),
        lambda tree: tree.update(models=[]),
        lambda tree: tree.update(header("d"), models={}, groups={}),
        lambda tree: tree["tests"].append({"a": "student"}),
        lambda tree: tree["models"]["student"]["latency_ms"][0].update(p50="fast"),
    ],
)
def test_a_damaged_file_is_one_line(tree: dict[str, Any], damage: Callable[[dict[str, Any]], None]) -> None:
    damage(tree)
    with pytest.raises(ArtifactError, match=r"metrics\.json is damaged or not ours") as caught:
        read(tree)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="has format 2; expected at most 1"):
        read(tree | {"format": 2})
