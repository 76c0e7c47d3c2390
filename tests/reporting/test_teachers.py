"""An ensemble with its teachers and students in one chart."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from recdistill.reporting.charts import Chart
from recdistill.reporting.curves import Course
from recdistill.reporting.runs import Epoch
from recdistill.reporting.teachers import Ensemble, teacher_charts

ENSEMBLE = Ensemble(
    name="ensemble",
    hash="e",
    models=("b", "c", "k"),
    names=("bpr", "cml", "knn"),
    epochs=((5, 10, 19), (10, 20), (1,)),
    validation={"ndcg@10": 0.5},
)


def run(epochs: int, best: float, metric: str = "ndcg@10") -> tuple[Epoch, ...]:
    """Validated at every second epoch, and at the last."""
    return tuple(
        Epoch(
            one,
            1.0,
            {},
            {metric: best * one / epochs} if one % 2 == 0 or one == epochs else {},
            None,
            None,
        )
        for one in range(1, epochs + 1)
    )


TEACHERS = [
    Course("teacher-bpr", (run(20, 0.4),), 20, ("b",)),
    Course("teacher-cml", (run(20, 0.3),), 20, ("c",)),
    Course("teacher-knn", (run(1, 0.35),), 1, ("k",)),
]
STUDENT = Course("student", (run(40, 0.45),), 40, ("s",), ("e",))
OTHER = Course("other", (run(40, 0.2),), 40, ("o",), ("x",))


def one(*courses: Course, ensemble: Ensemble = ENSEMBLE) -> Chart:
    (chart,) = teacher_charts("teachers", [ensemble], courses)
    return chart


def test_teachers_ensemble_and_students_are_in_one_chart() -> None:
    chart = one(*TEACHERS, STUDENT, OTHER)
    assert chart.title == "NDCG@10 of ensemble, its teachers and its students"
    assert chart.table.columns[4] == "best NDCG@10"
    assert chart.table.rows == [
        ("ensemble", "ensemble", "–", "–", "0.5000", "–"),
        ("teacher-bpr", "teacher", "20", "20", "0.4000", "5, 10, 19"),
        ("teacher-cml", "teacher", "20", "20", "0.3000", "10, 20"),
        ("teacher-knn", "teacher", "1", "1", "0.3500", "1"),
        ("student", "student", "40", "40", "0.4500", "–"),
    ]
    assert chart.notes == []


def test_all_are_named_in_the_drawing() -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    chart = one(*TEACHERS, STUDENT, OTHER)
    texts = {str(text.text) for text in ET.fromstring(str(chart.svg)).iter("text")}
    assert {"ensemble", "teacher-bpr", "teacher-cml", "teacher-knn", "student", "NDCG@10"} <= texts
    assert "other" not in texts
    assert "ensemble 0.5000; teacher-bpr 0.4000 at epoch 20" in str(chart.svg)
    uneven = one(*TEACHERS, replace(STUDENT, runs=(run(400, 0.4),)))
    ticks = {str(text.text) for text in ET.fromstring(str(uneven.svg)).iter("text")}
    assert {"10", "200"} <= ticks  # a logarithmic axis


def test_what_is_not_known_is_said() -> None:
    unknown = one(*TEACHERS[:2], STUDENT, ensemble=replace(ENSEMBLE, validation={"recall@50": 0.1}))
    assert unknown.notes == [
        "No line for the ensemble: its NDCG@10 on validation rows is not in its manifest.",
        "Not at hand: the training of knn.",
    ]
    assert unknown.table.rows[0][0] == "teacher-bpr"
    sampled = one(*TEACHERS, replace(STUDENT, sampled=True))
    assert "validated among sampled candidates" in sampled.notes[0]
    by_other = replace(TEACHERS[1], runs=(run(20, 0.3, "recall@50"),))
    assert one(TEACHERS[0], by_other, TEACHERS[2], STUDENT).notes == [
        "teacher-cml has no curve: it was not validated by NDCG@10."
    ]
    never = replace(STUDENT, runs=(run(1, 0.3, "recall@50"),))
    assert one(*TEACHERS, never).notes == ["Without a curve, for want of validations: student."]


def test_students_validated_by_another_metric_have_a_chart_of_their_own() -> None:
    ensemble = replace(ENSEMBLE, validation={"ndcg@10": 0.5, "recall@50": 0.6})
    deep = replace(STUDENT, name="deep", runs=(run(40, 0.3, "recall@50"),))
    first, second = teacher_charts("teachers", [ensemble], [*TEACHERS, deep])
    assert first.title == "NDCG@10 of ensemble and its teachers"
    assert second.title == "Recall@50 of ensemble and its students"
    assert second.table.rows == [
        ("ensemble", "ensemble", "–", "–", "0.6000", "–"),
        ("deep", "student", "40", "40", "0.3000", "–"),
    ]
    assert first.notes == second.notes == []
    assert first.slug != second.slug
    third, fourth = teacher_charts("teachers", [ensemble], [*TEACHERS, STUDENT, deep])
    assert third.title == "NDCG@10 of ensemble, its teachers and its students"
    assert [row[0] for row in fourth.table.rows] == ["ensemble", "deep"]


def test_the_best_of_many_students_are_drawn() -> None:
    students = [
        replace(STUDENT, name=f"s{place}", runs=(run(10, 0.1 + place / 100),), hashes=(f"s{place}",))
        for place in range(8)
    ]
    chart = one(*TEACHERS, *students)
    assert chart.notes == ["The best 6 students are drawn; in the table too: s0, s1."]
    assert [row[0] for row in chart.table.rows[4:]] == [f"s{place}" for place in range(8)]


def test_seeds_are_averaged() -> None:
    chart = one(*TEACHERS, replace(STUDENT, runs=(run(40, 0.4), run(20, 0.3))))
    assert chart.notes == ["Means over a model's seeds, those of them that reached an epoch."]
    assert chart.table.rows[-1][3:5] == ("40", "0.4000")


def test_teachers_are_in_the_order_of_the_ensemble() -> None:
    chart = one(STUDENT, *TEACHERS[::-1])
    assert [row[0] for row in chart.table.rows[1:4]] == ["teacher-bpr", "teacher-cml", "teacher-knn"]


def test_there_is_no_chart_without_a_teacher_that_learned() -> None:
    assert teacher_charts("teachers", [ENSEMBLE], [TEACHERS[2], STUDENT]) == []
    assert teacher_charts("teachers", [], [*TEACHERS, STUDENT]) == []
