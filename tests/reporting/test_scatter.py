"""Accuracy against size and latency."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.scatter import accuracy_charts
from report_helpers import line_metrics

HASHES = dict.fromkeys(("teacher", "alone", "student", "popularity"), "f" * 16)


@pytest.fixture
def tree() -> dict[str, Any]:
    return line_metrics(Path("runs"), "d" * 16, HASHES)


def charts_of(tree: dict[str, Any]):
    return accuracy_charts("one", read_evaluation("evaluation", Path("metrics.json"), tree))


def texts(svg: object) -> dict[str, tuple[float, float]]:
    return {
        str(text.text): (float(text.attrib["x"]), float(text.attrib["y"]))
        for text in ET.fromstring(str(svg)).iter("text")
        if "x" in text.attrib
    }


def test_every_model_is_a_point_with_its_name(tree: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    size, speed = charts_of(tree)
    for chart in (size, speed):
        assert {"teacher", "alone", "student", "popularity"} <= texts(chart.svg).keys()
        assert not chart.notes
    assert size.table.rows[2] == ("student", "66,000", "0.2801", "0.2722 to 0.2878")
    assert speed.table.rows[2][1] == "0.430"


def test_names_do_not_cover_each_other(tree: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    for model in tree["models"].values():
        model["parameters"] = 66_000
    for group in tree["groups"].values():
        group["metrics"]["ndcg@10"]["mean"] = 0.25
    places = texts(charts_of(tree)[0].svg)
    named = [places[name] for name in ("teacher", "alone", "student", "popularity")]
    for index, (x, y) in enumerate(named):
        assert all(abs(y - other_y) > 8 or abs(x - other_x) > 8 for other_x, other_y in named[:index])


def test_what_has_no_place_is_named_with_its_reason(tree: dict[str, Any]) -> None:
    tree["models"]["popularity"]["parameters"] = 0
    tree["models"]["teacher"] |= {"kind": "knowledge", "parameters": None, "latency_ms": None}
    size, speed = charts_of(tree)
    assert size.notes == [
        "teacher is not shown: stored knowledge has no weights.",
        "popularity is not shown: a logarithmic axis has no place for 0 parameters.",
    ]
    assert speed.notes == ["teacher is not shown: stored knowledge serves no requests."]
    assert [row[0] for row in size.table.rows] == ["alone", "student"]


def test_nothing_to_draw_is_no_error(tree: dict[str, Any]) -> None:
    for model in tree["models"].values():
        model["latency_ms"] = None
    speed = charts_of(tree)[1]
    assert speed.svg is None
    assert len(speed.notes) == 1
    assert speed.notes[0].startswith("teacher, alone, student and popularity are not shown: ")


def test_parameters_without_embeddings_have_a_chart_where_half_have_any(tree: dict[str, Any]) -> None:
    tree["models"]["teacher"]["layer_parameters"] = 3_216
    assert len(charts_of(tree)) == 2
    tree["models"]["student"]["layer_parameters"] = 35
    tree["models"]["popularity"]["layer_parameters"] = 0
    _, layers, _ = charts_of(tree)
    assert layers.title == "NDCG@10 against parameters without embeddings"
    assert [row[:2] for row in layers.table.rows] == [("teacher", "3,216"), ("student", "35")]
    assert "alone is not shown: its parameters without embeddings are not known." in layers.notes
    assert any(note.startswith("popularity is not shown: a logarithmic axis") for note in layers.notes)
