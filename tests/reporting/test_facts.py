"""How it was measured, options, lineage, environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recdistill.reporting import facts
from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.runs import Collection, collect
from report_helpers import line_metrics, make_line

HASHES = dict.fromkeys(("teacher", "alone", "student", "popularity"), "f" * 16)


def told(tree: dict[str, Any], collection: Collection | None = None) -> dict[str, str]:
    evaluation = read_evaluation("evaluation", Path("metrics.json"), tree)
    data = None if collection is None else collection.find(evaluation.data)
    return {fact.term: fact.text for fact in facts.protocol(evaluation, data)}


@pytest.fixture
def tree() -> dict[str, Any]:
    return line_metrics(Path("runs"), "d" * 16, HASHES)


def test_the_protocol_says_what_was_ranked_masked_and_counted(tree: dict[str, Any]) -> None:
    found = told(tree)
    assert found["Split"] == "test"
    assert found["Ranking"] == "full: all 2,400 items of the catalogue compete for every user"
    assert found["Left out of the lists"] == "what the user took in train and valid"
    assert found["Users"].startswith(
        "900 with a target, each counted once; 100 without a target, not counted;"
    )
    assert "its directory is not at hand" in found["Data"]
    assert "NDCG" in found
    assert "Popularity lift" not in found


def test_sampled_candidates_are_called_not_comparable(tree: dict[str, Any]) -> None:
    found = told(tree | {"protocol": "sampled", "negatives": 499, "masked": []})
    assert found["Ranking"] == (
        "sampled: each target competes with 499 sampled items of 2,400; not comparable with full ranking"
    )
    assert found["Left out of the lists"] == "nothing"


def test_counts_that_were_not_recorded_are_named(tree: dict[str, Any]) -> None:
    del tree["users"]["without_targets"]
    tree["users"]["masked_targets"] = 12
    users = told(tree)["Users"]
    assert "not recorded: how many without a target, not counted" in users
    assert "12 rows of the split are left out of the lists and so no targets" in users


def test_the_data_are_described_where_they_are_at_hand(tmp_path: Path) -> None:
    root = make_line(tmp_path, epochs=2)
    tree = json.loads((root / "evaluation" / "metrics.json").read_text())
    text = told(tree, collect([root]))["Data"]
    assert text.startswith("interactions.parquet (")
    assert text.endswith("; 1,000 users × 2,400 items; train 80,000, valid 9,800, test 10,100")


def test_every_step_stands_after_what_it_was_made_from(tmp_path: Path) -> None:
    steps = facts.steps(collect([make_line(tmp_path, epochs=2)]))
    order = [step.name for step in steps]
    assert order.index("data") < order.index("teacher") < order.index("knowledge") < order.index("student")
    assert order[-1] == "evaluation"
    student = steps[order.index("student")]
    assert {fact.term for fact in student.inputs} == {"data", "knowledge"}
    knowledge = steps[order.index("knowledge")]
    assert f"{knowledge.hash} (knowledge)" in [fact.text for fact in student.inputs]
    assert 'distill.2.method = "rrd"' in student.options
    assert {fact.term: fact.text for fact in student.facts}["seed"] == "0"


def test_inputs_that_are_gone_are_said(tmp_path: Path) -> None:
    import shutil

    root = make_line(tmp_path, epochs=2)
    shutil.rmtree(root / "data")
    steps = facts.steps(collect([root]))
    student = next(step for step in steps if step.name == "student")
    assert next(fact.text for fact in student.inputs if fact.term == "data").endswith("(not at hand)")


def test_options_are_flattened() -> None:
    options = {"a": {"b": 1, "c": {}}, "d": [{"e": 2}, {"e": 3}], "f": [1, 2], "g": None}
    assert facts.flat(options) == {"a.b": 1, "a.c": {}, "d.1.e": 2, "d.2.e": 3, "f": [1, 2], "g": None}


def test_the_environment_names_versions_and_cores() -> None:
    found = {fact.term: fact.text for fact in facts.environment()}
    assert found["recdistill"]
    assert found["torch"]
    assert found["Cores"][0].isdigit()
    assert found["Processor"]
