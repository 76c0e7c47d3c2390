"""The outcome in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recdistill.reporting.numbers import Missing
from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.story import Story, cast, tell
from report_helpers import estimate, line_metrics

HASHES = dict.fromkeys(("teacher", "alone", "student", "popularity"), "f" * 16)


@pytest.fixture
def tree() -> dict[str, Any]:
    return line_metrics(Path("runs"), "d" * 16, HASHES)


def story(tree: dict[str, Any], named_alone: str | None = None) -> Story:
    evaluation = read_evaluation("evaluation", Path("metrics.json"), tree)
    return tell(evaluation, cast(evaluation, named_alone))


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def gap(tree: dict[str, Any], value: float | None, reason: str = "") -> None:
    entry = {"value": value, "interval": None, "reason": reason}
    tree["groups"]["student"]["gap_closed"] = {"ndcg@10": entry}


def test_the_outcome_is_one_sentence(tree: dict[str, Any]) -> None:
    told = story(tree)
    assert plain(told.headline) == (
        "The student keeps 93 % of the teacher's NDCG@10 with 5 % of its parameters; "
        "distillation closed 62 % of the gap."
    )
    assert [plain(detail) for detail in told.details] == [
        "The difference to the same model trained alone, +0.0350 NDCG@10, is statistically significant "
        "(p < 0.001, corrected for all comparisons)."
    ]
    assert [plain(tile.figure) for tile in told.tiles] == ["93 %", "62 %", "5 %", "1.9×"]
    assert plain(told.tiles[1].detail) == "95 % interval 51 % to 73 %"
    assert told.tiles[2].detail == "66,000 against 1.32\u202fM"
    assert told.tiles[3].detail == "0.430 against 0.830 ms (median)"


def test_a_gap_around_zero_is_not_claimed(tree: dict[str, Any]) -> None:
    entry = {"value": 0.016, "interval": [-0.092, 0.11], "reason": ""}
    tree["groups"]["student"]["gap_closed"] = {"ndcg@10": entry}
    assert plain(story(tree).headline).endswith(
        "; distillation closed no measurable part of the gap (1.6 %, an interval around zero)."
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.24, "; distillation closed the whole gap to the teacher and more (124 %)."),
        (-0.081, "; distillation widened the gap to the teacher (−8.1 % closed)."),
    ],
)
def test_unusual_gaps_are_put_in_words(tree: dict[str, Any], value: float, words: str) -> None:
    gap(tree, value)
    assert plain(story(tree).headline).endswith(words)


def test_a_student_above_its_teacher_reaches_more(tree: dict[str, Any]) -> None:
    tree["groups"]["student"]["metrics"]["ndcg@10"] = estimate(0.3132)
    assert plain(story(tree).headline).startswith(
        "The student reaches 104 % of the teacher's NDCG@10 with 5 %"
    )


def test_a_lead_over_the_teacher_that_is_not_proven_is_called_so(tree: dict[str, Any]) -> None:
    tree["groups"]["student"]["metrics"]["ndcg@10"] = estimate(0.3132)
    for test in tree["tests"]:
        test["p_holm"] = 0.4
    start = "The student reaches 104 % of the teacher's NDCG@10 "
    assert plain(story(tree).headline).startswith(
        start + "(not significantly more: p = 0.400, corrected) with 5 %"
    )
    tree["tests"] = []
    assert plain(story(tree).headline).startswith(start + "(the difference was not tested) with 5 %")


def test_the_undistilled_model_of_any_student_is_called_so(tree: dict[str, Any]) -> None:
    """The best student has none of its options here, the other one has."""
    searched: dict[str, Any] = dict(tree["models"]["student"])
    searched["options"] = {**searched["options"], "model": {"name": "bpr", "dim": 7}}
    tree["models"]["searched"] = searched
    group = {**tree["groups"]["student"], "members": ["searched"]}
    group["metrics"] = {**group["metrics"], "ndcg@10": estimate(0.29)}
    tree["groups"]["searched"] = group
    evaluation = read_evaluation("evaluation", Path("metrics.json"), tree)
    roles = cast(evaluation)
    assert (roles.students[0].name, isinstance(roles.alone, Missing)) == ("searched", True)
    assert {entry.name: roles.role(entry) for entry in evaluation.entries} == {
        "teacher": "teacher", "alone": "trained alone", "student": "student", "searched": "student", "popularity": ""
    }  # fmt: skip


def test_an_unproven_gain_is_called_so(tree: dict[str, Any]) -> None:
    for test in tree["tests"]:
        test["p_holm"] = 0.2134
    (detail,) = story(tree).details
    assert "is statistically not significant (p = 0.213" in plain(detail)


def test_a_missing_gap_has_its_reason(tree: dict[str, Any]) -> None:
    gap(tree, None, "teacher does not beat alone significantly")
    told = story(tree)
    assert plain(told.headline).endswith(
        "with 5 % of its parameters; with 0.2801 it is 0.0350 above alone (0.2451), "
        "significantly (p < 0.001, corrected)."
    )
    assert told.details == []
    tile = told.tiles[1]
    assert (tile.figure, tile.detail) == ("–", "teacher does not beat alone significantly")


def test_a_missing_teacher_is_said(tree: dict[str, Any]) -> None:
    tree["models"]["student"]["teacher"] = None
    gap(tree, None, "its teacher (0123) is not among the models")
    told = story(tree)
    assert plain(told.headline) == (
        "The student reaches NDCG@10 0.2801, 0.0350 above alone (0.2451), significantly (p < 0.001, corrected); "
        "its teacher was not evaluated with it."
    )
    assert all(tile.figure == "–" for tile in told.tiles)


def test_unknown_sizes_and_speeds_are_said(tree: dict[str, Any]) -> None:
    tree["models"]["teacher"] |= {"kind": "knowledge", "parameters": None, "latency_ms": None}
    told = story(tree)
    assert "parameters" not in told.headline
    details = {tile.label: tile.detail for tile in told.tiles}
    assert details["of the teacher's parameters"] == "of the teacher: stored knowledge has no weights"
    assert details["the teacher's speed, one user at a time"].startswith(
        "of the teacher: stored knowledge serves"
    )


def test_the_best_of_several_students_leads(tree: dict[str, Any]) -> None:
    other = {**tree["groups"]["student"], "members": ["student"], "metrics": {"ndcg@10": estimate(0.29)}}
    tree["groups"]["second"] = other
    assert story(tree).headline.startswith("The best of 2 students, second,")


def test_without_a_student_the_best_model_leads(tree: dict[str, Any]) -> None:
    for name in ("student", "alone"):
        del tree["groups"][name]
    told = story(tree)
    assert told.headline == "teacher ranks best of 2 models, with NDCG@10 0.3012."
    assert told.details == ["No distilled model was evaluated, so no share of a gap is given."]
    del tree["groups"]["popularity"]
    assert story(tree).headline == "teacher reaches NDCG@10 0.3012."


def test_the_model_trained_alone_is_found_as_the_evaluation_finds_it(tree: dict[str, Any]) -> None:
    def alone(named: str | None = None) -> object:
        found = cast(read_evaluation("evaluation", Path("metrics.json"), tree), named).alone
        return found.reason if isinstance(found, Missing) else found.name

    assert alone() == "alone"
    assert alone("popularity") == "popularity"
    tree["models"]["popularity"]["options"] = tree["models"]["alone"]["options"]
    assert alone() == "several undistilled models fit"
    tree["models"]["popularity"]["options"] = {
        **tree["models"]["alone"]["options"],
        "training": {"epochs": 3},
    }
    assert alone() == "alone"
    for name in ("popularity", "alone"):
        tree["models"][name]["options"] = {"model": {"name": "bpr", "dim": 7}}
    assert alone() == "no undistilled model of its class was evaluated"
