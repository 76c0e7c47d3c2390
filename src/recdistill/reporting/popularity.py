"""The chart of recall by how popular the targets are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recdistill.reporting import numbers
from recdistill.reporting.charts import GRID, INK, MUTED, Chart, Style, Table, draw, end_labels, short, styles
from recdistill.reporting.numbers import Known, Missing
from recdistill.reporting.results import Evaluation
from recdistill.reporting.scatter import not_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    unmeasured = [entry.name for entry in evaluation.entries if entry.name not in values]
    notes = not_shown({"recall by group was not measured": unmeasured} if unmeasured else {})
    rows = [
        (
            group.label,
            f"{group.items:,}",
            numbers.percent(group.interactions),
            "not recorded" if group.targets is None else numbers.percent(group.targets),
            *[_text(row[place]) for row in values.values()],
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
    ends = [
        f"{name} {numbers.metric(row[0])} in the tail, {numbers.metric(row[-1])} in the head"
        for name, row in values.items()
        if not isinstance(row[0], Missing) and not isinstance(row[-1], Missing)
    ]
    description = f"{title}: {'; '.join(ends)}."
    svg = draw(
        slug,
        description,
        (384, 340),
        lambda figure: _paint_popularity(figure, evaluation, metric, values, look),
    )
    return Chart(slug, title, svg, Table(title, columns, rows), [*notes, *empty])


def _text(value: Known) -> str:
    return "–" if isinstance(value, Missing) else numbers.metric(value)


def _group_metric(evaluation: Evaluation) -> str | None:
    found = dict.fromkeys(
        name for entry in evaluation.entries for member in entry.members for name in member.group_recall
    )
    return "recall@20" if "recall@20" in found else next(reversed(found), None)


def _paint_popularity(
    figure: Figure,
    evaluation: Evaluation,
    metric: str,
    values: Mapping[str, Sequence[Known]],
    look: Mapping[str, Style],
) -> None:
    groups = evaluation.popularity
    shares = [group.targets for group in groups if group.targets is not None]
    axes, bars = (
        figure.subplots(2, 1, sharex=True, height_ratios=(4, 1)) if shares else (figure.add_subplot(), None)
    )
    shift = min(0.12, 0.5 / max(len(values), 1))
    ends: list[tuple[float, str, str]] = []
    markers: list[str] = []
    for index, (name, row) in enumerate(values.items()):
        style = look[name]
        offset = (index - (len(values) - 1) / 2) * shift
        known = [(place + offset, value) for place, value in enumerate(row) if not isinstance(value, Missing)]
        if not known:
            continue
        across, along = zip(*known, strict=True)
        axes.plot(across, along, color=style.color, linewidth=1, alpha=0.55)
        axes.plot(across, along, style.marker, color=style.color, clip_on=False)
        ends.append((along[-1], short(name), style.color))
        markers.append(style.marker)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.04)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(numbers.metric_name(metric))
    lowest = axes if bars is None else bars
    if bars is not None:
        _paint_shares(bars, shares)
        axes.tick_params(axis="x", length=0, labelbottom=False)
    lowest.set_xticks(range(len(groups)), [f"{group.label}\n{group.items:,}" for group in groups])
    lowest.tick_params(axis="x", length=0, labelcolor=INK, labelsize=10)
    lowest.set_xlabel("items by popularity in train, least to most; below, how many", color=INK)
    end_labels(axes, ends, size=10.5, markers=markers)


def _paint_shares(axes: Axes, shares: Sequence[float]) -> None:
    """How many of the targets are in each group: bars with their percentage."""
    axes.bar(range(len(shares)), shares, width=0.5, color=GRID, edgecolor=MUTED, linewidth=0.8)
    for place, share in enumerate(shares):
        axes.text(place, share, numbers.percent(share), ha="center", va="bottom", fontsize=10, color=INK)
    axes.set_ylim(0, 1.9 * max(*shares, 1e-9))
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("share of\ntargets", fontsize=10, rotation=0, ha="right", va="center")
