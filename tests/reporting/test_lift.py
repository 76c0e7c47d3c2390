"""Tail recall against popularity lift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recdistill.reporting.comparison import comparison, describe
from recdistill.reporting.lift import lift_chart
from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.results import Evaluation
from recdistill.reporting.story import cast, tell
from report_helpers import estimate, header, latency, metrics_of, model_entry


def tree(lifts: dict[str, float | None], sizes: bool = True) -> dict[str, Any]:
    """A student of an ensemble of two teachers."""
    options: dict[str, Any] = {
        "bpr": {"model": {"name": "bpr", "dim": 9}},
        "knn": {"model": {"name": "itemknn"}},
        "ensemble": {"ensemble": ["bpr", "knn"], "depth": 100},
        "alone": {"model": {"name": "bpr", "dim": 2}},
        "student": {"model": {"name": "bpr", "dim": 2}, "distill": [{"method": "hetcomp"}]},
    }
    models: dict[str, Any] = {}
    for place, (name, how) in enumerate(options.items()):
        size = (None, None, None) if name == "ensemble" and not sizes else (1000 + place, 4000, latency(0.5))
        models[name] = model_entry(
            Path(name),
            name[0],
            options=how,
            kind="knowledge" if name == "ensemble" else "model",
            metrics=metrics_of(0.2 + place / 100, None)
            | ({"popularity_lift": estimate(lifts[name])} if name in lifts else {}),
            parameters=size[0],
            bytes=size[1],
            latency_ms=size[2],
            teacher="ensemble" if name == "student" else None,
        )
    gap = {"student": {"ndcg@10": 0.6}}
    return header("d") | {"models": models, "tests": [], "gap_closed": gap}


LIFTS: dict[str, float | None] = {"bpr": 1.5, "knn": 2.5, "ensemble": 2.0, "alone": 1.25, "student": 1.75}


def read(lifts: dict[str, float | None] = LIFTS, sizes: bool = True) -> Evaluation:
    return read_evaluation("evaluation", Path("metrics.json"), tree(lifts, sizes))


def test_teachers_ensemble_and_students_are_in_one_table() -> None:
    found = read()
    chart = lift_chart("lift", found, cast(found, None, frozenset({"b", "k"})))
    assert chart is not None
    assert chart.title == "Tail recall@20 against popularity lift"
    assert [row[:3] for row in chart.table.rows] == [
        ("bpr", "teacher", "1.50"),
        ("knn", "teacher", "2.50"),
        ("ensemble", "ensemble", "2.00"),
        ("alone", "trained alone", "1.25"),
        ("student", "student", "1.75"),
    ]
    assert chart.table.columns[2::2] == ["popularity lift", "Tail recall@20", "Recall@20"]
    assert chart.table.rows[0][4] == "0.0800"
    assert "A lift of 1" in chart.notes[0]


def test_models_without_a_lift_are_named() -> None:
    found = read({"bpr": 1.5, "knn": None})
    chart = lift_chart("lift", found, cast(found))
    assert chart is not None
    assert "knn is not shown: no user has a value." in chart.notes
    assert chart.table.rows[1][2:4] == ("–", "–")
    none = read({})
    assert lift_chart("lift", none, cast(none)) is None


def test_an_ensemble_is_called_so_and_its_costs_are_explained() -> None:
    found = read()
    roles = cast(found, None, frozenset({"b", "k"}))
    assert roles.whose == "ensemble"
    assert [roles.role(entry) for entry in found.entries] == [
        "teacher",
        "teacher",
        "ensemble",
        "trained alone",
        "student",
    ]
    story = tell(found, roles)
    assert story.headline.startswith("The student reaches 109\u202f% of the ensemble's NDCG@10")
    assert [tile.label for tile in story.tiles][2:] == [
        "of the ensemble's parameters",
        "the ensemble's speed, one user at a time",
    ]
    table = comparison(found, roles)
    assert any("an ensemble are the sums of its teachers'" in remark for remark in table.remarks)
    (entry,) = [one for one in found.entries if one.name == "ensemble"]
    assert describe(entry.first) == "of bpr, knn"


def test_an_ensemble_without_costs_says_why() -> None:
    found = read(sizes=False)
    table = comparison(found, cast(found))
    assert "an ensemble's size is that of its teachers, and not all of theirs are known" in table.notes
    assert "an ensemble's latency is that of its teachers, and not all of theirs are known" in table.notes


@pytest.mark.parametrize("name", ["bpr", "student"])
def test_only_a_store_of_several_is_an_ensemble(name: str) -> None:
    found = read()
    (entry,) = [one for one in found.entries if one.name == name]
    assert entry.first.teachers == ()
