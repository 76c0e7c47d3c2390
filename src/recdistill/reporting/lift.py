"""The chart of what models do to popular items and to the tail."""

from __future__ import annotations

from dataclasses import replace

from recdistill.reporting import numbers
from recdistill.reporting.charts import Chart, Table, styles
from recdistill.reporting.numbers import Missing
from recdistill.reporting.results import Entry, Estimate, Evaluation
from recdistill.reporting.scatter import Axis, interval_text, scatter
from recdistill.reporting.story import Cast

LIFT, TAIL = "popularity_lift", "tail_recall@"
_ORDER = ("teacher", "ensemble", "trained alone", "student")


def lift_chart(slug: str, evaluation: Evaluation, roles: Cast) -> Chart | None:
    """Tail recall against popularity lift; None where either was not measured."""
    tails = [name for name in evaluation.metrics if name.startswith(TAIL)]
    if not tails or LIFT not in evaluation.metrics:
        return None
    tail = f"{TAIL}20" if f"{TAIL}20" in tails else tails[-1]
    recall = f"recall@{tail.removeprefix(TAIL)}"
    lifts = {entry.name: entry.value(LIFT) for entry in evaluation.entries}
    chart = scatter(
        slug,
        tail,
        Axis("popularity lift", lambda value: f"{value:.2f}", lambda value: f"{value:g}"),
        [
            (
                entry.name,
                lift.mean if isinstance(lift := lifts[entry.name], Estimate) else lift,
                entry.value(tail),
            )
            for entry in evaluation.entries
        ],
        styles([entry.name for entry in evaluation.entries]),
    )
    note = (
        "A lift of 1: the recommended items are as popular as those that users took; above 1: more popular."
    )
    return replace(
        chart, table=_table(chart.title, evaluation, roles, tail, recall), notes=[note, *chart.notes]
    )


def _table(title: str, evaluation: Evaluation, roles: Cast, tail: str, recall: str) -> Table:
    """All models: teachers, ensembles, those trained alone, students, then the others."""

    def place(entry: Entry) -> int:
        role = roles.role(entry)
        return _ORDER.index(role) if role in _ORDER else len(_ORDER)

    metrics = [tail, *([recall] if recall in evaluation.metrics else [])]
    rows: list[tuple[str, ...]] = []
    for entry in sorted(evaluation.entries, key=place):
        lift = entry.value(LIFT)
        cells = ["–", "–"] if isinstance(lift, Missing) else [f"{lift.mean:.2f}", _interval(lift)]
        for metric in metrics:
            value = entry.value(metric)
            empty = isinstance(value, Missing)
            cells += ["–", "–"] if empty else [numbers.metric(value.mean), interval_text(value)]
        rows.append((entry.name, roles.role(entry) or "–", *cells))
    columns = ["model", "part", "popularity lift", "95 % interval"]
    for metric in metrics:
        columns += [numbers.metric_name(metric), "95 % interval"]
    return Table(title, columns, rows)


def _interval(value: Estimate) -> str:
    return "–" if value.low is None or value.high is None else f"{value.low:.2f} to {value.high:.2f}"
