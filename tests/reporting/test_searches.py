"""Searched students: what is read of them, the table, their graphs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from recdistill.errors import ArtifactError
from recdistill.reporting.charts import INK, MUTED, SERIES
from recdistill.reporting.curves import Course
from recdistill.reporting.graphs import graph_charts, look
from recdistill.reporting.runs import collect
from recdistill.reporting.searches import Edge, Group, found_table, groups_of
from report_helpers import make_data, make_model, make_search

SCENES = {"0" * 16: "films", "1" * 16: "shops"}
FILMS, SHOPS = ({"data": digest} for digest in SCENES)


def groups(*names: tuple[Path, ...]) -> list[Group]:
    """A group for each tuple of directories, called by the first of them."""
    collection = collect([path for paths in names for path in paths])
    by_path = {one.path: one.manifest.hash for one in collection.models}
    courses = [
        Course(paths[0].name, ((),) * len(paths), None, tuple(by_path[path] for path in paths))
        for paths in names
    ]
    return groups_of(collection, courses, SCENES)


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    make_search(tmp_path / "searched", FILMS, budget=True)
    return tmp_path / "searched"


def test_a_search_is_read(searched: Path) -> None:
    ((search,),) = [group.searches for group in groups((searched,))]
    assert str(search.architecture) == "conv3; skip, max3"
    assert (search.cells, search.most_cells, search.scene, search.variant) == (2, 3, "films", "searched")
    assert search.reads == 2 * 4 + 1
    assert search.seconds == 10.0
    sure = 0.25 + 0.68 * 3 / 4  # of the epoch that was kept, the last but one
    assert search.shares[Edge(1, 2)]["max3"] == pytest.approx(sure)
    assert search.depth == {"1": 0.2, "2": 0.6, "3": 0.2}


def test_models_that_were_not_searched_are_left_out(searched: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "plain", FILMS)
    assert [group.course.name for group in groups((tmp_path / "plain",), (searched,))] == ["searched"]
    assert found_table(groups((tmp_path / "plain",))) is None


def test_a_damaged_architecture_is_one_line(searched: Path) -> None:
    (searched / "search" / "architecture.json").write_text(
        '{"architecture": {"nodes": [["conv4"]]}, "cells": 1}'
    )
    with pytest.raises(ArtifactError, match=r"architecture.json is damaged or not ours .*conv4"):
        groups((searched,))


def rows(grid: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    return {
        row.name: {
            column: (cell.text, *cell.detail) for column, cell in zip(grid.columns, row.cells, strict=True)
        }
        for row in grid.rows
    }


def test_the_table_of_what_was_found(searched: Path, tmp_path: Path) -> None:
    make_search(tmp_path / "random", SHOPS, variant="random", cells=1, nodes=(("skip",),))
    grid = found_table(groups((tmp_path / "random",), (searched,)))
    assert grid is not None
    assert [(row.name, row.role, row.description) for row in grid.rows] == [
        ("searched", "films", "searched: conv3; skip, max3"),
        ("random", "shops", "drawn at random: skip"),
    ]
    found = rows(grid)
    assert found["searched"] == {
        "Cells": ("2", "of at most 3"),
        "Items read": ("9",),
        "Parameters": ("1,050",),
        "Megabytes": ("0.0042", "at most 0.5"),
        "Encoder, ms": ("0.310", "1 user"),
        "Certainty": ("76\u202f%",),
        "Candidates": ("3", "0.3000 on valid rows, the least 0.1000"),
        "Search": ("10\u202fs", "5 epochs"),
    }
    assert found["random"]["Items read"] == ("1",)
    for column in ("Encoder, ms", "Certainty", "Candidates", "Search"):
        assert found["random"][column] == ("n/a",)
    assert "nothing was searched" in grid.notes


def test_seeds_have_a_row_each_and_one_graph(searched: Path, tmp_path: Path) -> None:
    make_search(tmp_path / "other", FILMS, seed=1, cells=1)
    (group,) = groups((searched, tmp_path / "other"))
    grid = found_table([group])
    assert grid is not None
    assert [row.name for row in grid.rows] == ["searched, seed 0", "searched, seed 1"]
    (chart,) = graph_charts("cell", [group])
    assert chart.notes[1] == "Of seed 0, the first of 2 seeds; 2 different ones were found."


def test_the_graph_has_nodes_operations_and_depth(searched: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    (chart,) = graph_charts("cell", groups((searched,)))
    found = [str(text.text) for text in ET.fromstring(str(chart.svg)).iter("text")]
    assert {"in", "1", "2", "out", "conv3", "skip", "max3", "cell 1", "cell 2", "cell 3"} <= set(found)
    assert found.count("76\u202f%") == 3
    assert "2 cells in a row; 1 = conv3(input); 2 = skip(input) + max3(1); output = " in str(chart.svg)


def test_the_table_of_the_graph_says_what_came_next(searched: Path) -> None:
    (chart,) = graph_charts("cell", groups((searched,)))
    assert chart.title == "Cell of searched"
    assert chart.table.columns == ("edge", "operation", "share", "largest other")
    assert [row[:2] for row in chart.table.rows] == [
        ("input → 1", "conv3"), ("input → 2", "skip"), ("1 → 2", "max3"), ("cells", "2"),
    ]  # fmt: skip
    assert chart.table.rows[0][2:] == ("76\u202f%", "max3 8\u202f%")
    assert chart.table.rows[3][2:] == ("60\u202f%", "1 20\u202f%")
    assert chart.notes == [
        "Searched: 2 cells in a row, of at most 3; an output depends on the newest 9 items."
    ]


def test_graphs_of_random_cells_and_of_none(tmp_path: Path) -> None:
    make_search(tmp_path / "random", FILMS, variant="random", nodes=(("none",), ("conv3", "none")), cells=1)
    (chart,) = graph_charts("cell", groups((tmp_path / "random",)))
    assert chart.notes == [
        "Drawn at random: one cell, of at most 3; an output depends on the newest 3 items.",
        "Edges without an operation are left out.",
    ]
    assert {row[2:] for row in chart.table.rows} == {("–", "–")}


def test_variants_stand_side_by_side(tmp_path: Path) -> None:
    paths: list[tuple[Path, ...]] = []
    for inputs, scene in ((FILMS, "films"), (SHOPS, "shops")):
        for variant in ("random", "searched"):
            paths.append((tmp_path / f"{variant}-{scene}",))
            make_search(paths[-1][0], inputs, variant=variant)
    make_data(tmp_path / "data")
    names = [group.course.name for group in groups(*paths)]
    assert names == ["searched-films", "searched-shops", "random-films", "random-shops"]


def test_operations_look_different() -> None:
    looks = [look(name) for name in ("conv3", "conv3d2", "conv5", "conv5d2", "max3", "avg3", "skip", "none")]
    assert len(set(map(str, looks))) == len(looks)
    assert look("around3") == (SERIES[0], (0, (5, 1.5)))
    assert look("aroundavg3")[0] == look("avg3")[0]
    assert (look("skip")[0], look("new")[0]) == (INK, MUTED)


def test_history_lines_of_other_kinds_are_no_choices(searched: Path) -> None:
    path = searched / "search" / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["facts"] = {"adarec": {"student 1": 1.0}}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ((search,),) = [group.searches for group in groups((searched,))]
    assert not search.shares
    assert graph_charts("cell", groups((searched,)))[0].table.rows[0][2] == "–"
