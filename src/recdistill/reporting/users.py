"""User by user: for how many the student's list is better than the teacher's, or than without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recdistill.errors import ArtifactError
from recdistill.reporting import numbers
from recdistill.reporting.cells import Cell, Grid, Row
from recdistill.reporting.numbers import Missing
from recdistill.reporting.results import Entry, Evaluation
from recdistill.reporting.story import Cast

_TIE = 1e-12


def users_table(path: Path, evaluation: Evaluation, roles: Cast) -> Grid | Missing:
    """Shares of users by which of two models serves them better, by the leading metric.

    Args:
        path: the evaluation's ``per_user.parquet``: model, user_id and a column a metric.
        evaluation: the evaluation it belongs to.
        roles: the students, each compared with its teacher and with the same model trained alone.

    Returns:
        the table, or why there is none.

    Raises:
        ArtifactError: the file cannot be read.
    """
    pairs = [(student, other) for student in roles.students for other in roles.compared[student.name]]
    if not pairs:
        return Missing("there is no student to compare with a teacher or with a model trained alone")
    if not path.exists():
        return Missing(f"{path.name} is not in the evaluation's directory")
    name = numbers.metric_name(evaluation.primary)
    rows = [
        Row(f"{student.name} against {other.name}", "", "", _cells(path, student, other, evaluation.primary))
        for student, other in pairs
    ]
    return Grid(f"Users by {name}", ("Users", "Better", "Equal", "Worse"), rows, ())


def _cells(path: Path, student: Entry, other: Entry, metric: str) -> Sequence[Cell]:
    better, equal, worse = _count(path, student, other, metric)
    total = better + equal + worse
    shares = [numbers.percent(number / total) if total else "–" for number in (better, equal, worse)]
    return [Cell(f"{total:,}"), *[Cell(share) for share in shares]]


def _count(path: Path, student: Entry, other: Entry, metric: str) -> tuple[int, int, int]:
    """Users for whom the student is better, equal, worse; a user's values are averaged over seeds."""

    def mean(entry: Entry) -> pl.Expr:
        ours = pl.col("model").is_in([member.name for member in entry.members])
        return pl.col(metric).filter(ours).mean()

    difference = pl.col("difference")
    try:
        counted = (
            pl.scan_parquet(path, glob=False, hive_partitioning=False)
            .select("model", "user_id", metric)
            .group_by("user_id")
            .agg((mean(student) - mean(other)).alias("difference"))
            .filter(difference.is_not_null())
            .select(
                (difference > _TIE).sum().alias("better"),
                (difference.abs() <= _TIE).sum().alias("equal"),
                (difference < -_TIE).sum().alias("worse"),
            )
            .collect(engine="streaming")
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        found = " ".join(str(error).split())[:120]
        raise ArtifactError(
            f"{path} cannot be read or lacks model, user_id, {metric} ({found})",
            "run 'recdistill evaluate' again",
        ) from error
    better, equal, worse = counted.row(0)
    return int(better), int(equal), int(worse)
