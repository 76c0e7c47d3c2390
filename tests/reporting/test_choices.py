"""Shares, entropy, temperature, cells and prices over epochs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from recdistill.reporting.charts import Chart
from recdistill.reporting.choices import choice_charts
from recdistill.reporting.curves import Course
from recdistill.reporting.runs import collect
from recdistill.reporting.searches import groups_of
from report_helpers import make_search

DATA = {"data": "0" * 16}


def charts(*paths: Path) -> list[Chart]:
    collection = collect(list(paths))
    hashes = tuple(one.manifest.hash for one in collection.models)
    course = Course("searched", ((),) * len(paths), None, hashes)
    return choice_charts("choice", groups_of(collection, [course], {}))


def texts(chart: Chart) -> list[str]:
    return [str(text.text) for text in ET.fromstring(str(chart.svg)).iter("text")]


def test_every_edge_has_a_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    make_search(tmp_path / "searched", DATA)
    shares, _ = charts(tmp_path / "searched")
    found = texts(shares)
    assert {"input → 1", "input → 2", "1 → 2", "conv3", "max3", "skip", "none", "epoch"} <= set(found)
    assert found.count("conv3") == 2  # its edge and the legend
    assert "at the end: input → 1 conv3 93\u202f%;" in str(shares.svg)


def test_panels_are_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    make_search(tmp_path / "searched", DATA)
    found = texts(charts(tmp_path / "searched")[1])
    assert {"entropy", "temperature", "even shares", "1 cell", "3 cells"} <= set(found)
    assert "price" not in found
    make_search(tmp_path / "budget", DATA, budget=True)
    assert {"price", "bytes"} <= set(texts(charts(tmp_path / "budget")[1]))


def test_the_tables_have_the_epochs(tmp_path: Path) -> None:
    make_search(tmp_path / "searched", DATA, budget=True, epochs=30)
    shares, course = charts(tmp_path / "searched")
    assert shares.table.columns == ("epoch", "input → 1", "input → 2", "1 → 2")
    assert shares.table.rows[-1] == ("30", "conv3 93\u202f%", "skip 93\u202f%", "max3 93\u202f%")
    assert course.table.caption == "The search of searched, 12 of 30 epochs"
    assert course.table.columns == (
        "epoch", "entropy", "temperature", "1 cell", "2 cells", "3 cells", "price of bytes",
    )  # fmt: skip
    assert course.table.rows[0] == ("1", "1.39", "0.9", "0.2", "0.6", "0.2", "0.1")
    assert not course.notes


def test_of_several_seeds_the_first_is_shown(tmp_path: Path) -> None:
    make_search(tmp_path / "one", DATA, seed=3)
    make_search(tmp_path / "two", DATA, seed=4)
    shares, course = charts(tmp_path / "one", tmp_path / "two")
    assert shares.notes == course.notes == ["Of seed 3, the first of 2 seeds."]


def test_without_a_history_of_two_epochs_there_is_nothing(tmp_path: Path) -> None:
    make_search(tmp_path / "random", DATA, variant="random")
    make_search(tmp_path / "short", DATA, epochs=1)
    assert charts(tmp_path / "random") == charts(tmp_path / "short") == []


def test_a_fixed_number_of_cells_has_no_panel(tmp_path: Path) -> None:
    make_search(tmp_path / "fixed", DATA)
    path = tmp_path / "fixed" / "search" / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        facts = line["facts"]["cost-term"]
        line["facts"]["cost-term"] = {name: v for name, v in facts.items() if not name.startswith("cells")}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert charts(tmp_path / "fixed")[1].table.columns == ("epoch", "entropy", "temperature")
