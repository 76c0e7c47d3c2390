"""Recall by popularity group."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from recdistill.reporting.popularity import popularity_chart
from recdistill.reporting.reading import read_evaluation
from report_helpers import line_metrics

HASHES = dict.fromkeys(("teacher", "alone", "student", "popularity"), "f" * 16)


@pytest.fixture
def tree() -> dict[str, Any]:
    return line_metrics(Path("runs"), "d" * 16, HASHES)


def chart_of(tree: dict[str, Any]):
    return popularity_chart("one", read_evaluation("evaluation", Path("metrics.json"), tree))


def test_groups_run_from_tail_to_head_with_their_shares(tree: dict[str, Any]) -> None:
    chart = chart_of(tree)
    assert chart is not None
    assert chart.table.columns == (
        "group", "items", "share of train rows", "share of targets", "teacher", "alone", "student", "popularity",
    )  # fmt: skip
    assert chart.table.rows[0] == (
        "tail",
        "1,900",
        "20\u202f%",
        "12\u202f%",
        "0.1054",
        "0.0858",
        "0.0980",
        "0.0305",
    )
    assert [row[0] for row in chart.table.rows] == ["tail", "group 2", "group 3", "group 4", "head"]


def test_the_chart_names_models_groups_and_shares(tree: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    chart = chart_of(tree)
    assert chart is not None
    texts = [text.text for text in ET.fromstring(str(chart.svg)).iter("text")]
    assert {"teacher", "student", "tail", "head", "12\u202f%", "1,900"} <= set(texts)
    assert "student 0.0980 in the tail, 0.5322 in the head" in str(chart.svg)


def test_unrecorded_shares_and_values_are_said(tree: dict[str, Any]) -> None:
    groups = tree["popularity_groups"]
    del groups["targets"]
    del groups["models"]["alone"]
    groups["models"]["student"]["recall@20"][0] = {"mean": None, "n": 0}
    chart = chart_of(tree)
    assert chart is not None
    assert chart.table.rows[0][3:] == ("not recorded", "0.1054", "–", "0.0305")
    assert chart.notes == [
        "alone is not shown: recall by group was not measured.",
        "No value in tail: no user has a target in this group.",
    ]


def test_an_evaluation_without_groups_has_no_chart(tree: dict[str, Any]) -> None:
    del tree["popularity_groups"]
    assert chart_of(tree) is None
