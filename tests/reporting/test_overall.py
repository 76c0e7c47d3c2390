"""The sentence on a comparison: how the best distilled row stands to the student trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

from recdistill.reporting.overall import comparison_lines, overall

VALUES = {"teacher": 0.1227, "alone": 0.107, "rrd": 0.0993, "de": 0.0892}
ROLES = {"teacher": "teacher", "alone": "trained alone", "alone-wide": "trained alone"}


def comparison(
    values: dict[str, float], same: Sequence[set[str]] = (), p_holm: float = 0.291, **shares: Any
) -> dict[str, Any]:
    """The content of ``comparison.json``; the pairs in ``same`` do not differ, all others do."""
    rows: dict[str, Any] = {
        name: {
            "seeds": 2,
            "metrics": {"ndcg@10": {"mean": mean, "spread": None}},
            "gap_closed": {} if name in ROLES else {"ndcg@10": shares.get(name, {"mean": None})},
        }
        for name, mean in values.items()
    }
    tests = [
        {
            "a": a, "b": b, "metric": "ndcg@10", "difference": values[a] - values[b],
            "p": 0.0001, "p_holm": p_holm if {a, b} in same else 0.0004,
        }
        for a, b in combinations(values, 2)
    ]  # fmt: skip
    costs = ("seconds_per_epoch", "epochs", "best_epoch", "seconds", "validation_seconds", "parameters")
    return {
        "seeds": [0, 1],
        "evaluations": {
            "full": {
                "metrics": ["ndcg@10"],
                "split_seeds": [0],
                "rows": rows,
                "how": "a test",
                "tests": tests,
            }
        },
        "roles": {name: ROLES.get(name, "student") for name in values},
        "lineage": {name: {"teacher": "teacher", "alone": "alone"} for name in values if name not in ROLES},
        "costs": {name: {key: {"mean": 1.0} for key in costs} for name in values},
        "failed": [],
    }


def headline(tree: dict[str, Any]) -> str:
    return overall(tree).story.headline.replace("\u202f", " ").replace("\u00a0", " ")


def test_rows_that_lost_to_the_student_alone_are_not_praised() -> None:
    assert headline(comparison(VALUES, same=[{"alone", "rrd"}])) == (
        "The best of 2 distilled rows, rrd, reaches NDCG@10 0.0993, 0.0077 below alone (0.1070), "
        "not significantly (p = 0.291, corrected)."
    )
    assert "0.0077 below alone (0.1070), significantly (p < 0.001, corrected)" in headline(comparison(VALUES))


def test_a_gain_stands_before_the_gap() -> None:
    share = {"mean": 0.62, "spread": None, "interval": [0.5, 0.7]}
    assert headline(comparison(VALUES | {"rrd": 0.117}, rrd=share)).endswith(
        "0.1170, 0.0100 above alone (0.1070), significantly (p < 0.001, corrected); "
        "distillation closed 62 % of the gap."
    )
    lost = {"mean": -0.49, "spread": None, "interval": [-1.9, -0.1]}
    assert headline(comparison(VALUES, rrd=lost)).endswith(
        "; distillation widened the gap to the teacher (−49 % closed)."
    )


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        ({"rrd": {"teacher": "teacher", "alone": "alone"}}, "0.0077 below alone (0.1070)"),
        ({}, "0.0207 below alone-wide (0.1200)"),  # a file from before: the best of those trained alone
    ],
)
def test_each_student_is_held_against_its_own_row_alone(lineage: dict[str, Any], words: str) -> None:
    tree = comparison(VALUES | {"alone-wide": 0.12})
    tree["lineage"] = lineage
    assert words in headline(tree)


def test_what_is_level_or_untested_or_has_no_row_alone_is_said_so() -> None:
    level = comparison(VALUES | {"rrd": 0.10701}, same=[{"alone", "rrd"}], p_holm=1.0)
    assert "0.1070, level with alone (0.1070), not significantly different (p = 1.000" in headline(level)
    untested = comparison(VALUES)
    untested["evaluations"]["full"]["tests"] = []
    assert "below alone (0.1070), which was not tested." in headline(untested)
    none = comparison({name: mean for name, mean in VALUES.items() if name != "alone"})
    assert headline(none) == "The best of 2 distilled rows, rrd, reaches NDCG@10 0.0993."


def test_tail_recall_is_shown_at_the_deepest_cut_off_asked_for() -> None:
    found = comparison(VALUES)
    full = found["evaluations"]["full"]
    full["metrics"] = ["recall@50", "ndcg@10"]
    for row in full["rows"].values():
        row["metrics"] |= {f"tail_recall@{k}": {"mean": 0.01 * k, "spread": None} for k in (10, 50, 100)}
    (table,) = comparison_lines(found)
    assert "Tail recall@50" in table[0]
    assert not {"Tail recall@10", "Tail recall@100"} & set(table[0])
