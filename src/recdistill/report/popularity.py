"""The chart of recall by how popular the targets are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recdistill.report import numbers
from recdistill.report.charts import GRID, INK, MUTED, Chart, Style, Table, draw, end_labels, short, styles
from recdistill.report.numbers import Missing
from recdistill.report.results import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def popularity_chart(slug: str, evaluation: Evaluation) -> Chart | None:
    """Recall by popularity group, tail first; None where the evaluation has no groups."""
    metric = _group_metric(evaluation)
    groups = evaluation.popularity
    if metric is None or not groups:
        return None
    title = f"{numbers.metric_name(metric)} by popularity of the target"
    values = {entry.name: entry.group_recall(metric) for entry in evaluation.entries}
    values = {name: row for name, row in values.items() if row}
    notes = [
        f"{entry.name} is not shown: recall by group was not measured for it."
        for entry in evaluation.entries
        if entry.name not in values
    ]
    rows = [
        (
            group.label,
            f"{group.items:,}",
            numbers.percent(group.interactions),
            "not recorded" if group.targets is None else numbers.percent(group.targets),
            *[
                "–" if isinstance(row[place], Missing) else numbers.metric(float(str(row[place])))
                for row in values.values()
            ],
        )
        for place, group in enumerate(groups)
    ]
    empty = dict.fromkeys(
        f"No value in {groups[place].label}: {value.reason}."
        for row in values.values()
        for place, value in enumerate(row)
        if isinstance(value, Missing)
    )
    columns = ("group", "items", "share of train rows", "share of targets", *values)
    look = styles([entry.name for entry in evaluation.entries])
    svg = draw(
        slug, title, (560, 340), lambda figure: _paint_popularity(figure, evaluation, metric, values, look)
    )
    told = f"{title}; the numbers are in the table below."
    return Chart(slug, title, told, svg, Table(title, columns, rows), [*notes, *empty])


def _group_metric(evaluation: Evaluation) -> str | None:
    found = dict.fromkeys(
        name for entry in evaluation.entries for member in entry.members for name in member.group_recall
    )
    return "recall@20" if "recall@20" in found else next(reversed(found), None)


def _paint_popularity(
    figure: Figure,
    evaluation: Evaluation,
    metric: str,
    values: Mapping[str, Sequence[float | Missing]],
    look: Mapping[str, Style],
) -> None:
    axes = figure.add_subplot()
    groups = evaluation.popularity
    shift = min(0.12, 0.5 / max(len(values), 1))
    ends: list[tuple[float, str, str]] = []
    for index, (name, row) in enumerate(values.items()):
        style = look[name]
        offset = (index - (len(values) - 1) / 2) * shift
        known = [(place + offset, value) for place, value in enumerate(row) if not isinstance(value, Missing)]
        if not known:
            continue
        across, along = zip(*known, strict=True)
        axes.plot(across, along, color=style.color, linewidth=1, alpha=0.55)
        axes.plot(across, along, style.marker, color=style.color)
        ends.append((along[-1], short(name), style.color))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.04)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(groups)), [_tick(group.label, group.targets, group.items) for group in groups])
    axes.tick_params(axis="x", length=0, labelcolor=INK, labelsize=9.5)
    axes.set_ylabel(numbers.metric_name(metric))
    axes.spines["left"].set_color(MUTED)
    axes.set_xlabel("popularity of the target in train, least to most", color=INK)
    axes.yaxis.grid(visible=True, color=GRID)
    end_labels(axes, ends, size=10.5)


def _tick(label: str, targets: float | None, items: int) -> str:
    share = "" if targets is None else f"\n{numbers.percent(targets)} of targets"
    return f"{label}\n{items:,} items{share}"
