"""The tables of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recdistill.reporting import comparison
from recdistill.reporting.cells import Grid
from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.results import Evaluation
from recdistill.reporting.story import cast
from report_helpers import line_metrics, make_seeds

HASHES = dict.fromkeys(("teacher", "alone", "student", "popularity"), "f" * 16)


@pytest.fixture
def tree() -> dict[str, Any]:
    return line_metrics(Path("runs"), "d" * 16, HASHES)


def read(tree: dict[str, Any]) -> Evaluation:
    return read_evaluation("evaluation", Path("metrics.json"), tree)


def main_table(tree: dict[str, Any]) -> Grid:
    evaluation = read(tree)
    return comparison.comparison(evaluation, cast(evaluation))


def column(grid: Grid, name: str) -> dict[str, tuple[str, ...]]:
    place = list(grid.columns).index(name)
    return {row.name: (row.cells[place].text, *row.cells[place].detail) for row in grid.rows}


def test_models_stand_best_first_with_intervals_and_parts(tree: dict[str, Any]) -> None:
    grid = main_table(tree)
    assert [(row.name, row.role) for row in grid.rows] == [
        ("teacher", "teacher"), ("student", "student"), ("alone", "trained alone"), ("popularity", ""),
    ]  # fmt: skip
    assert column(grid, "NDCG@10")["student"] == ("0.2801", "± 0.0078", "0.2722 to 0.2878")
    assert column(grid, "Recall@20")["student"][0] == "0.3921"
    assert column(grid, "Gap closed")["student"] == ("62\u202f%", "51\u202f% to 73\u202f%")
    assert column(grid, "Overlap@10 with teacher")["student"][0] == "0.5500"
    assert column(grid, "Parameters")["teacher"] == ("1.32\u202fM",)
    assert column(grid, "Weights file")["alone"] == ("264\u202fkB",)
    assert column(grid, "ms, 1 user")["student"] == ("0.430", "p99 0.903")
    assert column(grid, "ms, 256 users")["teacher"] == ("25.7", "p99 54.0")
    assert {row.name: row.description for row in grid.rows}[
        "student"
    ] == "bpr, dim 20; distilled with de, rrd"


def test_letters_say_who_differs(tree: dict[str, Any]) -> None:
    for test in tree["tests"]:
        if {test["a"], test["b"]} == {"student", "teacher"}:
            test["p_holm"] = 0.4
    letters = {name: text for name, (text,) in column(main_table(tree), "Differs").items()}
    assert letters == {"teacher": "a", "student": "a", "alone": "b", "popularity": "c"}
    assert any("share a letter" in remark for remark in main_table(tree).remarks)


def test_with_tests_against_the_best_alone_each_is_compared_with_it(tree: dict[str, Any]) -> None:
    tree["tests"] = [test for test in tree["tests"] if "teacher" in (test["a"], test["b"])]
    tree["tests"][0]["p_holm"] = 0.4
    verdicts = {name: text for name, (text,) in column(main_table(tree), "Differs").items()}
    assert verdicts == {
        "teacher": "best", "alone": "as the best", "student": "below the best", "popularity": "below the best",
    }  # fmt: skip
    assert not any("share a letter" in remark for remark in main_table(tree).remarks)


def test_letters_that_would_mislead_are_left_out(tree: dict[str, Any]) -> None:
    tree["tests"] = tree["tests"][:1]
    grid = main_table(tree)
    assert set(column(grid, "Differs").values()) == {("n/a",)}
    assert "5 of 6 pairs were not tested by NDCG@10, so letters would mislead" in grid.notes


def test_every_gap_in_the_table_refers_to_its_reason(tree: dict[str, Any]) -> None:
    tree["models"]["teacher"] |= {"kind": "knowledge", "parameters": None, "bytes": None, "latency_ms": None}
    grid = main_table(tree)
    cells = [cell for row in grid.rows for cell in row.cells]
    absent = [cell for cell in cells if cell.text == "n/a"]
    assert absent
    assert all(cell.note is not None and 1 <= cell.note <= len(grid.notes) for cell in absent)
    assert {cell.note for cell in cells if cell.note} == set(range(1, len(grid.notes) + 1))
    teacher = next(row for row in grid.rows if row.name == "teacher")
    place = list(grid.columns).index("Parameters")
    assert grid.notes[(teacher.cells[place].note or 0) - 1] == "stored knowledge has no weights"


def test_all_metrics_and_the_parts_of_latency(tree: dict[str, Any]) -> None:
    evaluation = read(tree)
    grid = comparison.all_metrics(evaluation)
    assert [row.name for row in grid.rows] == [
        "Recall@10", "Recall@20", "NDCG@10", "MRR@10", "Tail recall@20", "Coverage@10", "Overlap@10",
    ]  # fmt: skip
    assert column(grid, "student")["MRR@10"] == ("0.3361", "± 0.0078")
    parts = comparison.latency_table(evaluation)
    assert parts is not None
    assert column(parts, "Scoring all items")["student, 1 user"] == ("0.172", "p99 0.215")
    assert "Threads: 2." in parts.remarks
    tree["models"]["student"]["latency_ms"][0].update(scoring=None)
    parts = comparison.latency_table(read(tree))
    assert parts is not None
    assert parts.notes == ["scoring and listing were not timed apart"]


def test_paired_tests_name_the_better_one(tree: dict[str, Any]) -> None:
    tree["tests"][0]["p_holm"] = 0.051
    grid = comparison.tests_table(read(tree), ["ndcg@10"])
    assert grid is not None
    assert len(grid.rows) == 6
    verdicts = {row.name: row.cells[-1].text for row in grid.rows}
    assert verdicts["teacher − alone"] == "no difference shown"
    assert verdicts["alone − student"] == "student is better"
    assert comparison.tests_table(read(tree), ["mrr@10"]) is None


def test_seeds_have_a_spread_and_each_its_row(tmp_path: Path) -> None:

    root = make_seeds(tmp_path)
    evaluation = read(json.loads((root / "evaluation" / "metrics.json").read_text()))
    grid = comparison.seeds_table(evaluation)
    assert grid is not None
    assert column(grid, "Seeds") == {
        "student": ("3",), "student-0": ("seed 0",), "student-1": ("seed 1",), "student-2": ("seed 2",),
    }  # fmt: skip
    assert column(grid, "NDCG@10")["student"] == ("0.2820", "± 0.0021")
    assert column(grid, "NDCG@10")["student-2"] == ("0.2840", "± 0.0078")
    assert comparison.comparison(evaluation, cast(evaluation)).rows[0].description.endswith("; 3 seeds")


def test_single_models_have_no_seeds_table(tree: dict[str, Any]) -> None:
    assert comparison.seeds_table(read(tree)) is None


def test_encoding_and_parameters_in_layers_where_there_are_any(tree: dict[str, Any]) -> None:
    for name, layers in (("teacher", 3_216), ("student", 130_000), ("popularity", 0)):
        tree["models"][name]["layer_parameters"] = layers
    tree["models"]["student"]["latency_ms"][0].update(encoding=0.123, encoding_p99=0.2)
    assert column(main_table(tree), "Parameters") == {
        "teacher": ("1.32\u202fM", "3,216 in layers"),
        "student": ("66,000", "130\u202fk in layers"),
        "alone": ("66,000",),
        "popularity": ("2,400",),
    }
    assert any(remark.startswith("In layers:") for remark in main_table(tree).remarks)
    parts = comparison.latency_table(read(tree))
    assert parts is not None
    assert column(parts, "Encoding histories")["student, 1 user"] == ("0.123", "p99 0.200")
    assert column(parts, "Encoding histories")["teacher, 1 user"] == ("n/a",)
    assert any("read" in note and "histories" in note for note in parts.notes)


def test_sizes_are_means_over_seeds(tmp_path: Path) -> None:
    path = make_seeds(tmp_path) / "evaluation" / "metrics.json"
    tree = json.loads(path.read_text())
    for place, model in enumerate(tree["models"].values()):
        model |= {"parameters": 1000 + 10 * place, "layer_parameters": 100 * place, "bytes": 4000}
    (row,) = main_table(tree).rows
    assert row.cells[[*main_table(tree).columns].index("Parameters")].text == "1,010"
    assert row.cells[[*main_table(tree).columns].index("Parameters")].detail == ("100 in layers",)


def test_searched_students_say_so(tree: dict[str, Any]) -> None:
    model = {"name": "cellnet", "dim": 4}
    options = {"model": model, "search": {}, "variant": "random", "distill": [{"method": "adarec"}]}
    tree["models"]["student"]["options"] = options
    told = {row.name: row.description for row in main_table(tree).rows}
    assert told["student"] == "cellnet, dim 4, random; distilled with adarec"
