"""Pointers and discrepancies over epochs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from recdistill.reporting.curves import Course
from recdistill.reporting.lessons import lesson_charts
from recdistill.reporting.runs import Epoch

FINAL = {"bpr": 3, "knn": 0}


def run(epochs: int, fine: int | None, refresh: int = 5, method: str = "hetcomp") -> tuple[Epoch, ...]:
    """A curriculum over a teacher of four states and one of a single state; the fine loss from epoch ``fine``."""
    found: list[Epoch] = []
    for epoch in range(1, epochs + 1):
        step = (epoch - 1) // refresh
        facts = {
            "fine": float(fine is not None and epoch >= fine),
            "pointer bpr": min(step * 0.75, 3.0),
            "pointer knn": 0.0,
        }
        if step:
            facts |= {f"discrepancy {name}": 0.8 / step for name in ("bpr", "knn", "target")}
        found.append(Epoch(epoch, 1.0, {method: 1.0}, {}, None, 0.1, {method: facts}))
    return tuple(found)


def course(*runs: tuple[Epoch, ...], best: int | None = None) -> Course:
    return Course("student", runs, best, last_states=FINAL)


def texts(svg: object) -> list[str]:
    return [str(text.text) for text in ET.fromstring(str(svg)).iter("text")]


def test_pointers_discrepancies_and_the_loss_are_drawn() -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    (chart,) = lesson_charts("lessons", [course(run(40, 21), best=12)])
    found = texts(chart.svg)
    assert {"mean pointer", "mean discrepancy", "epoch", "overall loss", "fine loss", "all together"} <= set(
        found
    )
    assert (found.count("bpr"), found.count("knn")) == (2, 2)
    assert "mean pointers at the end bpr 3.00, knn 0.00; the fine loss begins at epoch 21" in str(chart.svg)


def test_pointers_that_never_move_are_not_called_easy_to_hard() -> None:
    (chart,) = lesson_charts("lessons", [course(run(5, 1))])
    assert chart.title == "Distance from the final states: student"


def test_a_random_order_is_not_called_easy_to_hard() -> None:
    (chart,) = lesson_charts("lessons", [replace(course(run(40, 21)), shuffled=True)])
    assert chart.title == "States in random order: student"
    assert any("an order of each user's own" in note for note in chart.notes)


def test_the_table_has_the_refreshes() -> None:
    (chart,) = lesson_charts("lessons", [course(run(40, 21), best=12)])
    assert chart.title == "From easy to hard: student"
    assert chart.table.columns == (
        "epoch",
        "loss",
        "bpr: mean pointer of 3",
        "knn: mean pointer of 0",
        "bpr: mean discrepancy",
        "knn: mean discrepancy",
        "all together: mean discrepancy",
    )
    assert [row[0] for row in chart.table.rows] == ["1", "6", "11", "16", "21", "26", "31", "36", "40"]
    assert chart.table.rows[0][1:] == ("overall", "0.00", "0.00", "–", "–", "–")
    assert chart.table.rows[4][1:5] == ("fine", "3.00", "0.00", "0.2000")
    assert chart.notes == [
        "The fine loss begins at epoch 21.",
        "With one state only, so that their pointers cannot move: knn.",
        "The epoch that was kept, 12, is of the overall loss.",
    ]


def test_seeds_are_averaged() -> None:
    (chart,) = lesson_charts("lessons", [course(run(30, 11), run(20, 16))])
    assert "The fine loss begins at epochs 11 to 16." in chart.notes
    assert "Means over 2 seeds, those of them that reached an epoch." in chart.notes
    phases = {row[0]: row[1] for row in chart.table.rows}
    assert (phases["6"], phases["11"], phases["16"]) == ("overall", "overall, fine", "fine")
    (partly,) = lesson_charts("lessons", [course(run(30, 11), run(20, None))])
    assert "The fine loss begins at epoch 11 in 1 of 2 seeds." in partly.notes


def test_one_loss_throughout_and_runs_before_the_first_look() -> None:
    (fine,) = lesson_charts("lessons", [course(run(20, 1))])
    assert fine.notes[0] == "The fine loss throughout."
    (overall,) = lesson_charts("lessons", [course(run(4, None))])
    assert overall.notes[0] == "The overall loss throughout."
    assert "No discrepancies: the run ended before the student's lists were first looked at." in overall.notes
    assert lesson_charts("lessons", [course(run(1, None))]) == []


def test_each_method_has_a_chart_and_other_facts_have_none() -> None:
    both = tuple(
        Epoch(one.epoch, 1.0, {}, {}, None, None, {**one.facts, **other.facts})
        for one, other in zip(run(9, 3), run(9, 3, method="hetcomp.2"), strict=True)
    )
    titles = [chart.title for chart in lesson_charts("lessons", [course(both)])]
    assert titles == ["From easy to hard: student, hetcomp", "From easy to hard: student, hetcomp.2"]
    plain = Epoch(1, 1.0, {}, {}, None, None, {"adarec": {"temperature": 0.5}})
    assert lesson_charts("lessons", [course((plain,)), Course("x", ((),), None)]) == []
