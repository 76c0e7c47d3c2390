"""The flow between layers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from recdistill.reporting.curves import Course
from recdistill.reporting.flows import flow_charts
from recdistill.reporting.runs import Epoch, collect, read_history
from recdistill.reporting.searches import groups_of
from report_helpers import flow_facts, make_search


def run(epochs: int, student: int, method: str = "bert-emd") -> tuple[Epoch, ...]:
    return tuple(
        Epoch(epoch, 1.0, {}, {}, None, None, {method: flow_facts(student, 2)})
        for epoch in range(1, epochs + 1)
    )


def test_plans_of_search_and_training_are_drawn(tmp_path: Path) -> None:
    make_search(tmp_path / "searched", {"data": "0" * 16})
    collection = collect([tmp_path / "searched"])
    course = Course(
        "searched", (read_history(tmp_path / "searched"),), 2, (collection.models[0].manifest.hash,)
    )
    (chart,) = flow_charts("flow", [course], groups_of(collection, [course], {}))
    assert chart.title == "Flow between layers: searched"
    assert len(chart.table.rows) == 3 * 2 + 2 * 2  # 3 cells in the supernet, 2 in the student
    assert chart.table.rows[0] == ("search", "4", "1", "0.333", "1", "0.500", "0.500")
    assert chart.table.rows[-1] == ("training", "2", "2", "0.500", "2", "0.500", "0.000")
    assert any(note.startswith("Rows without flow") for note in chart.notes)
    if chart.svg is None:
        pytest.skip("charts need the extra 'plots'")
    found = [str(text.text) for text in ET.fromstring(str(chart.svg)).iter("text")]
    assert {"search, epoch 4", "training, epoch 2", "student's layers", "teacher's layers"} <= set(found)
    assert found.count("0.50") == 4


def test_any_method_that_tells_a_plan_has_one() -> None:
    courses = [
        Course("hand", (run(3, 2), run(3, 2)), None),
        Course("plain", ((Epoch(1, 1.0, {}, {}, None, None, {"adarec": {"student 1": 1.0}}),),), None),
        Course("bare", (), None),
    ]
    (chart,) = flow_charts("flow", courses, [])
    assert chart.title == "Flow between layers: hand"
    assert "Of the first of 2 seeds." in chart.notes
    assert {row[1] for row in chart.table.rows} == {"3"}


def test_many_layers_are_drawn_without_numbers() -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    (chart,) = flow_charts("flow", [Course("deep", (run(2, 16),), None)], [])
    assert "0.50" not in [str(text.text) for text in ET.fromstring(str(chart.svg)).iter("text")]
    assert len(chart.table.rows) == 32
