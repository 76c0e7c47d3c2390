"""User by user."""

from __future__ import annotations

import copy
from pathlib import Path

import polars as pl
import pytest

from recdistill.errors import ArtifactError
from recdistill.reporting.cells import Grid
from recdistill.reporting.numbers import Missing
from recdistill.reporting.reading import read_evaluation
from recdistill.reporting.story import cast
from recdistill.reporting.users import users_table
from report_helpers import line_metrics

HASHES = dict.fromkeys(("teacher", "alone", "student", "popularity"), "f" * 16)


def table(path: Path, student_members: list[str] | None = None) -> Grid | Missing:
    tree = line_metrics(Path("runs"), "d" * 16, HASHES)
    if student_members:
        for name in student_members:
            tree["models"].setdefault(name, tree["models"]["student"])
        tree["groups"]["student"]["members"] = student_members
    evaluation = read_evaluation("evaluation", Path("metrics.json"), tree)
    return users_table(path, evaluation, cast(evaluation))


def write(path: Path, values: dict[str, list[float | None]]) -> Path:
    rows = [(name, user, value) for name, each in values.items() for user, value in enumerate(each)]
    pl.DataFrame(rows, schema=["model", "user_id", "ndcg@10"], orient="row").write_parquet(path)
    return path


def shares(found: Grid | Missing) -> dict[str, list[str]]:
    assert isinstance(found, Grid)
    return {row.name: [cell.text.replace("\u202f", " ") for cell in row.cells] for row in found.rows}


def test_users_are_counted_by_who_serves_them_better(tmp_path: Path) -> None:
    path = write(
        tmp_path / "per_user.parquet",
        {"teacher": [0.5, 0.5, 0.5, None], "alone": [0, 0.1, 0.2, 0.3], "student": [0.6, 0.5, 0.1, 0.3]},
    )
    assert shares(table(path)) == {
        "student against teacher": ["3", "33 %", "33 %", "33 %"],
        "student against alone": ["4", "50 %", "25 %", "25 %"],
    }


def test_each_student_is_compared_with_its_own(tmp_path: Path) -> None:
    tree = line_metrics(Path("runs"), "d" * 16, HASHES)
    for name in ("student", "alone"):
        small = copy.deepcopy(tree["models"][name])
        small["options"]["model"]["dim"] = 8
        tree["models"][f"{name}-small"] = small
        tree["groups"][f"{name}-small"] = tree["groups"][name] | {"members": [f"{name}-small"]}
    tree["models"]["student-small"]["teacher"] = "popularity"
    evaluation = read_evaluation("evaluation", Path("metrics.json"), tree)
    path = write(tmp_path / "per_user.parquet", {name: [0.5, 0.1] for name in tree["models"]})
    assert set(shares(users_table(path, evaluation, cast(evaluation)))) == {
        "student against teacher", "student against alone",
        "student-small against popularity", "student-small against alone-small",
    }  # fmt: skip


def test_a_user_s_values_are_averaged_over_seeds(tmp_path: Path) -> None:
    path = write(
        tmp_path / "per_user.parquet",
        {"teacher": [0.5, 0.5], "alone": [0.5, 0.5], "student": [0.9, 0.2], "second": [0.3, 0.7]},
    )
    assert shares(table(path, ["student", "second"]))["student against teacher"] == [
        "2",
        "50 %",
        "0 %",
        "50 %",
    ]


def test_a_missing_file_is_said_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "per_user.parquet"
    assert table(path) == Missing("per_user.parquet is not in the evaluation's directory")
    path.write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        table(path)
    assert "\n" not in str(caught.value)
    pl.DataFrame({"model": ["student"], "user_id": [1]}).write_parquet(path)
    with pytest.raises(ArtifactError, match=r"lacks model, user_id, ndcg@10"):
        table(path)
