"""Learning curves."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from recdistill.reporting.curves import Course, curve_charts, without_curve
from recdistill.reporting.runs import Epoch


def run(epochs: int, terms: dict[str, float], best: float = 0.3, validated: bool = True) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(
            epoch=epoch,
            loss=sum(terms.values()),
            losses={term: scale / epoch for term, scale in terms.items()},
            metric={"ndcg@10": best * epoch / epochs} if validated else {},
            rows_per_second=None,
            seconds=0.2,
        )
        for epoch in range(1, epochs + 1)
    )


def texts(svg: object) -> list[str]:
    return [str(text.text) for text in ET.fromstring(str(svg)).iter("text")]


def test_each_model_has_its_terms_and_its_best_epoch() -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    courses = [
        Course("teacher", (run(20, {"bpr": 0.7}),), 20),
        Course("student", (run(20, {"bpr": 0.7, "de": 6, "rrd": 200}, 0.25),), 19),
    ]
    teacher, student = curve_charts("curve", courses)
    assert {"bpr", "epoch", "NDCG@10", "0.3000 at epoch 20"} <= set(texts(teacher.svg))
    assert {"bpr", "de", "rrd", "0.2375 at epoch 19"} <= set(texts(student.svg))
    assert "de" not in texts(teacher.svg)
    assert teacher.slug != student.slug
    assert "20 epochs; loss terms bpr, de, rrd" in str(student.svg)


def test_the_table_thins_long_histories() -> None:
    (chart,) = curve_charts("curve", [Course("student", (run(1000, {"bpr": 0.7}),), None)])
    assert len(chart.table.rows) == 12
    assert [chart.table.rows[place][0] for place in (0, -1)] == ["1", "1000"]
    assert "12 of 1000 epochs" in chart.table.caption
    assert chart.notes == ["400 of 1,000 epochs are drawn."]


def test_seeds_share_a_chart() -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    (chart,) = curve_charts("curve", [Course("student", (run(9, {"bpr": 1}), run(7, {"bpr": 1})), None)])
    assert "2 seeds" in str(chart.svg)
    assert not any("at epoch" in text for text in texts(chart.svg))


def test_data_sets_have_axes_of_their_own() -> None:
    pytest.importorskip("matplotlib", reason="charts need the extra 'plots'")
    courses = [
        Course(name, (run(4, {"bpr": 1}, best),), 4, scene=scene)
        for name, scene, best in (("a", "films", 0.3), ("b", "shops", 0.003), ("c", "films", 0.1))
    ]
    films, shops, more = (texts(chart.svg) for chart in curve_charts("curve", courses))
    assert ("0.3" in films, "0.3" in shops, "0.3" in more) == (True, False, True)
    assert ("0.003" in films, "0.003" in shops) == (False, True)


def test_a_run_without_validation_or_terms_says_so() -> None:
    (chart,) = curve_charts("curve", [Course("student", (run(3, {}, validated=False),), None)])
    assert chart.notes == [
        "No validation metric: nothing was validated on.",
        "No loss terms: the run recorded none.",
    ]
    assert chart.table.rows[0] == ("1", "not validated", "0.2\u202fs")


def test_models_without_a_curve_are_named() -> None:
    courses = [
        Course("popularity", (run(1, {}),), 1),
        Course("old", ((),), None),
        Course("x", (run(2, {}),), 1),
    ]
    assert without_curve(courses) == [
        "popularity has no curve: it was trained in a single epoch.",
        "old has no curve: its directory holds no history.jsonl.",
    ]
    assert [chart.title for chart in curve_charts("curve", courses)] == ["x"]


def test_losses_of_zero_or_below_are_drawn() -> None:
    epochs = tuple(Epoch(one, 0.0, {"a": 0.0, "b": -3.0 * one}, {}, None, None) for one in (1, 2, 3))
    (chart,) = curve_charts("curve", [Course("student", (epochs,), None)])
    assert chart.table.rows[2][1:3] == ("0", "-9")
