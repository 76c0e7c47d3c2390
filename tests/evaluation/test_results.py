"""From per-user values to `metrics.json`: means, seeds, tests, the gap closed, rows to print."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.artifacts import Manifest
from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.evaluation.comparison import Gap, beats, gaps_closed, mean_values, paired_tests, pairs
from recdistill.evaluation.lineage import Member, teacher_of
from recdistill.evaluation.protocol import Outcome, Task
from recdistill.evaluation.results import Evaluated, Lineage, metric_summaries, per_user_table, summarise
from recdistill.evaluation.significance import Bootstrap
from recdistill.evaluation.tables import gap_notes, no_gap_closed, table

NUM_USERS = 200
MEANS = {"teacher": 0.6, "student": 0.5, "alone": 0.3}


def manifest(role: str, seed: int = 0) -> Manifest:
    options: dict[str, Any] = {"model": {"name": "bpr", "dim": 100 if role == "teacher" else 10}}
    if role == "student":
        options["distill"] = [{"method": "rrd"}]
    return Manifest(
        kind="model",
        format=1,
        options=options,
        seed=seed,
        inputs={"data": "d"} | ({"knowledge": f"k{seed}"} if role == "student" else {}),
        hash=f"{role}{seed}",
        version="0",
        seconds=0,
        created="",
        summary={"teacher": f"teacher{seed}"} if role == "student" else {},
    )


def values(mean: float, seed: int) -> dict[str, Tensor]:
    """Values about a mean that share the users' own difficulty."""
    users = torch.rand(NUM_USERS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.rand(NUM_USERS, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    found = mean + 0.3 * (users - 0.5) + 0.1 * (noise - 0.5)
    return {
        "recall@20": found * 0.9,
        "ndcg@10": found,
        "recall@10": found / 2,
        "hit@10": (found > 0.5).double(),
    }


def evaluated(role: str, seed: int = 0, name: str | None = None, shift: float = 0.0) -> Evaluated:
    name = name or role
    outcome = Outcome(
        values(MEANS[role] + shift, 10 * list(MEANS).index(role) + seed),
        totals={"coverage@10": 0.5},
        group_recall={10: torch.rand(NUM_USERS, 5, dtype=torch.float64)},
    )
    latency: Any = [{"batch": 1, "p50": 0.25, "p99": 0.5}]
    return Evaluated(
        Member(name, Path("runs") / name, manifest(role, seed)), outcome, "teacher", 1000, 4096, latency
    )


def task() -> Task:
    targets = Interactions.from_events(
        torch.arange(NUM_USERS), torch.zeros(NUM_USERS, dtype=torch.int64), NUM_USERS, 3
    )
    return Task("test", torch.arange(NUM_USERS), targets, ("train",), targets, targets, (10, 20))


def summary(models: list[Evaluated], teacher: str | None = None, alone: str | None = None) -> dict[str, Any]:
    members = {model.member.name: model.member for model in models}
    teachers = {
        name: teacher_of(each, list(members.values())) if teacher is None else members[teacher]
        for name, each in members.items()
    }
    if teacher is not None:
        teachers[teacher] = None
    lineage = Lineage(teachers, members.get(teacher or ""), members.get(alone or ""))
    result = {"k": [10, 20], **summarise(models, task(), lineage, seed=0)}
    return json.loads(json.dumps(result, allow_nan=False))


TRIO = ("teacher", "alone", "student")


def test_means_with_errors_and_intervals() -> None:
    column = torch.tensor([1.0, 2.0, 3.0, torch.nan], dtype=torch.float64)
    missing = torch.full((4,), torch.nan, dtype=torch.float64)
    bootstrap = Bootstrap(4, torch.Generator().manual_seed(0))
    found = metric_summaries(
        {"a": column, "none": missing, "one": torch.tensor([5.0, *[torch.nan] * 3]).double()}, bootstrap
    )
    assert found["a"]["mean"] == 2.0
    assert found["a"]["n"] == 3
    assert found["a"]["stderr"] == pytest.approx(1 / math.sqrt(3))
    low, high = found["a"]["interval"]
    assert 1.0 <= low < 2.0 < high <= 3.0
    assert found["none"] == {"mean": None, "stderr": None, "n": 0, "interval": None}
    assert found["one"] == {"mean": 5.0, "stderr": None, "n": 1, "interval": None}


def test_one_model() -> None:
    found = summary([evaluated("alone")])
    assert found["tests"] == []
    assert found["gap_closed"] == {}
    assert found["models"]["alone"]["num_users"] == NUM_USERS
    assert found["models"]["alone"]["metrics"]["coverage@10"] == {
        "mean": 0.5, "stderr": None, "n": NUM_USERS, "interval": None
    }  # fmt: skip
    assert found["groups"]["alone"]["metrics"]["ndcg@10"]["seeds"] == 1
    assert found["groups"]["alone"]["metrics"]["ndcg@10"]["spread"] is None


def test_gap_closed_by_lineage() -> None:
    found = summary([evaluated(role) for role in TRIO])
    means = {name: found["models"][name]["metrics"]["ndcg@10"]["mean"] for name in TRIO}
    expected = (means["student"] - means["alone"]) / (means["teacher"] - means["alone"])
    assert found["gap_closed"]["student"]["ndcg@10"] == pytest.approx(expected)
    assert set(found["gap_closed"]["student"]) == {"ndcg@10", "recall@10", "recall@20"}
    assert found["gap_closed_reasons"]["student"] == {}
    assert set(found["gap_closed"]) == {"student"}
    low, high = found["groups"]["student"]["gap_closed"]["ndcg@10"]["interval"]
    assert low < expected < high
    assert high - low < 0.1
    assert found["models"]["student"]["teacher"] == "teacher"


def test_no_gap_without_a_teacher_or_an_undistilled_model() -> None:
    no_teacher = summary([evaluated("alone"), evaluated("student")])
    assert no_teacher["gap_closed"]["student"]["ndcg@10"] is None
    assert "teacher0) is not among the models" in no_teacher["gap_closed_reasons"]["student"]["ndcg@10"]
    no_alone = summary([evaluated("teacher"), evaluated("student")])
    assert "no undistilled model" in no_alone["gap_closed_reasons"]["student"]["ndcg@10"]


def test_no_gap_if_the_teacher_does_not_beat_the_undistilled_model() -> None:
    weak = [evaluated("teacher", shift=-0.3), evaluated("alone"), evaluated("student")]
    found = summary(weak)
    assert found["gap_closed"]["student"]["ndcg@10"] is None
    assert "does not beat alone significantly" in found["gap_closed_reasons"]["student"]["ndcg@10"]
    assert found["groups"]["student"]["gap_closed"]["ndcg@10"]["reason"].startswith("teacher does not")


def test_teacher_and_alone_can_be_named() -> None:
    models = [
        evaluated("teacher", name="big"),
        evaluated("alone", name="other", shift=0.05),
        evaluated("alone"),
    ]
    found = summary(models, teacher="big", alone="alone")
    assert set(found["gap_closed"]) == {"other"}
    assert found["gap_closed"]["other"]["ndcg@10"] == pytest.approx(0.05 / 0.3, abs=0.05)


def test_seeds_are_averaged_before_tests() -> None:
    models = [evaluated(role, seed, f"{role}-{seed}") for role in TRIO for seed in range(3)]
    found = summary(models)
    assert list(found["groups"]) == ["teacher", "alone", "student"]
    group = found["groups"]["student"]
    means = [found["models"][f"student-{seed}"]["metrics"]["ndcg@10"]["mean"] for seed in range(3)]
    assert group["members"] == ["student-0", "student-1", "student-2"]
    assert group["seeds"] == [0, 1, 2]
    assert group["metrics"]["ndcg@10"]["mean"] == pytest.approx(sum(means) / 3)
    assert group["metrics"]["ndcg@10"]["spread"] == pytest.approx(torch.tensor(means).std().item(), rel=1e-4)
    assert group["metrics"]["coverage@10"]["mean"] == 0.5
    assert len(found["tests"]) == 3 * 3  # three pairs of groups, three metrics
    assert {test["a"] for test in found["tests"]} | {test["b"] for test in found["tests"]} == set(
        found["groups"]
    )
    assert set(found["gap_closed"]) == {f"student-{seed}" for seed in range(3)}
    # each seed's own teacher and undistilled model: the mean of the three is near the group's
    each = [found["gap_closed"][f"student-{seed}"]["ndcg@10"] for seed in range(3)]
    assert group["gap_closed"]["ndcg@10"]["value"] == pytest.approx(sum(each) / 3, abs=0.01)


def test_pairs_are_all_up_to_six_groups_and_then_against_the_best() -> None:
    def groups(count: int) -> dict[str, dict[str, Tensor]]:
        return {
            f"m{n}": {"ndcg@10": torch.full((3,), float(n % 5), dtype=torch.float64)} for n in range(count)
        }

    assert len(pairs(groups(6), "ndcg@10")) == 15
    found = pairs(groups(7), "ndcg@10", also=[("m0", "m1"), ("m1", "m4")])
    assert found[:6] == [("m4", f"m{n}") for n in (0, 1, 2, 3, 5, 6)]
    assert found[6:] == [("m0", "m1")]


def test_tests_use_the_shared_users() -> None:
    a = torch.tensor([1.0] * 20 + [torch.nan] * 5 + [9.0] * 5).double()
    b = torch.tensor([0.5] * 20 + [9.0] * 5 + [torch.nan] * 5).double()
    (test,) = paired_tests({"a": {"ndcg@10": a}, "b": {"ndcg@10": b}}, ["ndcg@10"], [("a", "b")], 0)
    assert (test["n"], test["difference"]) == (20, 0.5)
    assert test["p"] == test["p_holm"] < 0.01


def test_gap_by_hand() -> None:
    student, teacher, alone = (torch.full((10,), value).double() for value in (0.4, 0.5, 0.3))
    student[0] = torch.nan  # and so this user counts for none of the three
    teacher[0] = 9.0

    def gap(*values: Tensor) -> Gap:
        three = ({"a": value, "b": value * 2} for value in values)
        found = gaps_closed(*three, ["a", "b"], Bootstrap(10, torch.Generator().manual_seed(0)))
        assert found["a"].value == found["b"].value
        return found["a"]

    assert gap(student, teacher, alone).value == pytest.approx(0.5)
    assert gap(student, teacher, alone).interval == pytest.approx((0.5, 0.5))
    assert gap(student, alone, teacher) == (None, None, "the teacher does not beat the undistilled model")
    assert gap(student * torch.nan, teacher, alone).reason == "no user has all three"


def test_mean_values_keep_what_all_have() -> None:
    one = {"a": torch.tensor([1.0, torch.nan]), "b": torch.zeros(2)}
    assert mean_values([one, {"a": torch.tensor([3.0, 4.0])}])["a"].tolist() == [2.0, 4.0]
    assert list(mean_values([one, {"a": torch.zeros(2)}])) == ["a"]


def test_popularity_groups() -> None:
    found = summary([evaluated("alone")])["popularity_groups"]
    assert sum(found["items"]) == 3
    assert sum(found["interactions"]) == sum(found["targets"]) == NUM_USERS
    assert len(found["models"]["alone"]["recall@10"]) == 5
    assert found["models"]["alone"]["recall@10"][0]["n"] == NUM_USERS


def test_per_user_table() -> None:
    models = [evaluated("alone"), evaluated("student")]
    models[1].outcome.values["overlap@10"] = torch.full((NUM_USERS,), torch.nan, dtype=torch.float64)
    models[1].outcome.values["overlap@10"][0] = 0.5
    users = Vocabulary.from_ids([f"u{n}" for n in range(NUM_USERS)], "user_id")
    found = per_user_table(models, task(), users)
    assert found.columns[:3] == ["model", "user_id", "num_targets"]
    assert found.height == 2 * NUM_USERS
    assert found["user_id"].to_list()[:NUM_USERS] == users.ids().to_list()
    assert found["overlap@10"].null_count() == 2 * NUM_USERS - 1
    mean = found.filter(model="student")["ndcg@10"].mean()
    assert mean == pytest.approx(models[1].outcome.values["ndcg@10"].mean().item())


def test_table_rows() -> None:
    result = summary([evaluated(role, seed, f"{role}-{seed}") for role in TRIO for seed in range(2)])
    rows = table(result, ("ndcg@10", "recall@20", "ndcg@99"))
    assert rows[0] == ["model", "NDCG@10", "Recall@20", "gap closed", "parameters", "bytes", "ms a user"]
    assert all(len(row) == len(rows[0]) for row in rows)
    assert rows[3][0] == "student (2 seeds)"
    assert "±" in rows[3][1]
    assert rows[3][3].endswith(" %")
    assert rows[1][3] == "–"
    assert rows[1][4:] == ["1,000", "4,096", "0.25"]


def test_table_at_other_cut_offs() -> None:
    result = summary([evaluated(role, 0, role) for role in TRIO])
    assert table(result)[0][1:4] == ["NDCG@10", "Recall@20", "gap closed"]
    for group in result["groups"].values():
        group["metrics"] = {name.split("@")[0] + "@5": one for name, one in group["metrics"].items()}
    rows = table({**result, "k": [5]})
    assert rows[0][1:3] == ["NDCG@5", "Recall@5"]


def test_a_gap_without_a_value_says_why() -> None:
    result = summary([evaluated(role, 0, role) for role in TRIO])
    assert gap_notes(result) == []
    result["groups"]["student"]["gap_closed"]["ndcg@10"] = {
        "value": None, "interval": None, "reason": "the teacher is not ahead"
    }  # fmt: skip
    assert gap_notes(result) == ["no gap closed for student: the teacher is not ahead"]
    shares = {
        "alone": None,
        "a": {"mean": None},
        "b": {"mean": 0.4},
        "c": {"mean": None, "reason": "no value"},
    }
    assert no_gap_closed(shares, "mean") == ["no gap closed for a, c: no value"]


def test_a_row_beats_another_by_the_sign_and_the_corrected_p() -> None:
    def said(difference: float, p: float, p_holm: float, a: str = "x", b: str = "y") -> bool:
        test: Any = {"a": a, "b": b, "metric": "m", "difference": difference, "p": p, "p_holm": p_holm}
        return beats([test], "x", "y", "m")[0]

    assert said(0.1, 0.01, 0.04)
    assert not said(-0.1, 0.01, 0.04)
    assert not said(0.1, 0.01, 0.06)
    assert said(-0.1, 0.01, 0.04, "y", "x")
    assert not said(0.1, 0.01, 0.04, "y", "x")


def test_a_student_is_measured_by_the_undistilled_model_of_its_seed() -> None:
    given = [
        evaluated(role, seed, f"{role}-{seed}", 0.05 * seed if role == "alone" else 0.0)
        for role in TRIO
        for seed in range(2)
    ]
    found = summary(given)
    mean = {name: one["metrics"]["ndcg@10"]["mean"] for name, one in found["models"].items()}
    for seed in range(2):
        teacher, alone, student = (mean[f"{role}-{seed}"] for role in TRIO)
        assert found["gap_closed"][f"student-{seed}"]["ndcg@10"] == pytest.approx(
            (student - alone) / (teacher - alone)
        )
