"""The charts of accuracy against size and against latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recdistill.reporting import numbers
from recdistill.reporting.charts import Chart, Style, Table, draw, short, styles
from recdistill.reporting.numbers import Missing
from recdistill.reporting.results import Estimate, Evaluation, Latency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import BboxBase

_SIZE = (372, 290)
_TALL = (372, 430)
_CROWD = 8
"""Points from which on the chart is tall."""
# where a point's name may stand, in pixels from it: best first
_NEAR = ((10, 0), (-10, 0), (9, 9), (-9, 9), (9, -9), (-9, -9))
_SIDES = (*_NEAR, *((x, y) for up in (22, 38, 56, 74, 92) for y in (up, -up) for x in (9, -9)))
_LINE_FROM = 36  # pixels from which on a line leads from the name to its point

_LINE = {"arrowstyle": "-", "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0.0, "shrinkB": 4.0}

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


@dataclass(frozen=True)
class Point:
    """A model in a scatter chart."""

    name: str
    x: float
    y: Estimate


@dataclass(frozen=True)
class Axis:
    """What a scatter chart has along x: its name, and how a value and a tick are written."""

    name: str
    write: Callable[[float], str]
    tick: Callable[[float], str]


def accuracy_charts(slug: str, evaluation: Evaluation) -> list[Chart]:
    """The leading metric against parameters and median latencies.

    Also against parameters in layers, where half of the models have any, and the encoder's latency.
    """
    look = styles([entry.name for entry in evaluation.entries])
    metric = evaluation.primary
    sizes = [(entry.name, entry.parameters, entry.value(metric)) for entry in evaluation.entries]
    speeds: list[tuple[str, float | Missing, Estimate | Missing]] = []
    for entry in evaluation.entries:
        latency = entry.latency(1)
        speeds.append(
            (entry.name, latency if isinstance(latency, Missing) else latency.p50, entry.value(metric))
        )
    inner = [(entry.name, entry.layer_parameters, entry.value(metric)) for entry in evaluation.entries]
    known = sum(not isinstance(size, Missing) and size > 0 for _, size, _ in inner)
    layered = known > 0 and 2 * known >= len(inner)
    axes = [("size", "parameters", sizes), ("layers", "parameters without embeddings", inner)]
    batch = max((one.batch for entry in evaluation.entries for one in entry.first.latencies), default=1)
    encoders = [
        (entry.name, _encoding(entry.latency(batch)), entry.value(metric)) for entry in evaluation.entries
    ]
    charts = [
        *(
            scatter(f"{slug}-{name}", metric, Axis(title, numbers.count, numbers.count), rows, look)
            for name, title, rows in (axes if layered else axes[:1])
        ),
        scatter(
            f"{slug}-latency",
            metric,
            Axis("milliseconds for one user (median)", numbers.milliseconds, lambda value: f"{value:g}"),
            speeds,
            look,
        ),
    ]
    if all(isinstance(time, Missing) for _, time, _ in encoders):
        return charts
    axis = Axis(
        f"milliseconds of the encoder, {batch:,} users", numbers.milliseconds, lambda value: f"{value:g}"
    )
    return [*charts, scatter(f"{slug}-encoder", metric, axis, encoders, look)]


def _encoding(latency: Latency | Missing) -> float | Missing:
    if isinstance(latency, Missing):
        return latency
    return Missing("it encodes no histories") if latency.encoding is None else latency.encoding


def scatter(
    slug: str,
    metric: str,
    axis: Axis,
    rows: Sequence[tuple[str, float | Missing, Estimate | Missing]],
    look: Mapping[str, Style],
) -> Chart:
    """A metric with its intervals against something else, a point a model.

    Args:
        slug: unique on the page.
        metric: along y.
        axis: along x, logarithmic.
        rows: of each model its name, its place along x and the metric.
        look: of each model by name.
    """
    name = numbers.metric_name(metric)
    title = f"{name} against {axis.name}"
    points: list[Point] = []
    absent: dict[str, list[str]] = {}
    for model, x, y in rows:
        if isinstance(y, Missing):
            absent.setdefault(y.reason, []).append(model)
        elif isinstance(x, Missing):
            absent.setdefault(x.reason, []).append(model)
        elif x <= 0:
            absent.setdefault(f"a logarithmic axis has no place for {x:g} {axis.name}", []).append(model)
        else:
            points.append(Point(model, x, y))
    table = Table(
        title,
        ("model", axis.name, name, "95 % interval"),
        [
            (point.name, axis.write(point.x), numbers.metric(point.y.mean), interval_text(point.y))
            for point in points
        ],
    )
    told = "; ".join(
        f"{point.name} {numbers.metric(point.y.mean)} at {axis.write(point.x)}" for point in points
    )
    description = f"{title}, logarithmic across: {told}."
    svg = (
        draw(
            slug,
            description,
            _SIZE if len(points) < _CROWD else _TALL,
            lambda figure: _paint_scatter(figure, points, axis, name, look),
        )
        if points
        else None
    )
    return Chart(slug, title, svg, table, not_shown(absent))


def not_shown(absent: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each reason, on the models that it keeps off a chart."""
    return [
        f"{' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))}"
        f" {'is' if len(names) == 1 else 'are'} not shown: {reason}."
        for reason, names in absent.items()
    ]


def interval_text(value: Estimate) -> str:
    """The interval's ends, or a dash."""
    if value.low is None or value.high is None:
        return "–"
    return f"{numbers.metric(value.low)} to {numbers.metric(value.high)}"


def _paint_scatter(
    figure: Figure, points: Sequence[Point], axis: Axis, name: str, look: Mapping[str, Style]
) -> None:
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for point in points:
        style = look[point.name]
        axes.plot([point.x, point.x], _ends(point), color=style.color, linewidth=1.6, solid_capstyle="butt")
        axes.plot([point.x], [point.y.mean], style.marker, color=style.color, markersize=8)
    log_ticks(axes, [point.x for point in points], axis.tick)
    axes.margins(y=0.16)
    axes.set_xlabel(axis.name)
    axes.set_ylabel(name)
    figure.draw_without_rendering()  # settles the layout, so that labels can avoid each other
    _place_labels(axes, points, look)


def log_ticks(axes: Axes, values: Sequence[float], write: Callable[[float], str]) -> None:
    """A logarithmic x axis with room at its ends and ticks that are written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values), max(values)
    room = max((high / low) ** 0.22, 1.8)
    axes.set_xlim(low / room, high * room)
    reach = room * room * high / low
    finest, fine, coarse = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0)
    steps = finest if reach < 8 else fine if reach < 150 else coarse if reach < 2000 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(float(value))))
    axes.xaxis.set_minor_locator(NullLocator())


def _place_labels(axes: Axes, points: Sequence[Point], look: Mapping[str, Style]) -> None:
    """Name each point beside it, on the side where the name covers least."""
    from matplotlib.text import Text

    taken = [_mark(axes, point) for point in points]
    frame = _box(axes.get_window_extent())
    for point in points:
        best: tuple[float, Annotation, Box] | None = None
        for side in _SIDES:
            label = _label(axes, point, look[point.name], side)
            label.get_window_extent()  # settles where it stands, and measures its line too
            box = _box(Text.get_window_extent(label))
            cost = sum(_covered(box, other) for other in taken) + _area(box) - _covered(box, frame)
            if best is not None and cost >= best[0]:
                label.remove()
                continue
            if best is not None:
                best[1].remove()
            best = (cost, label, box)
        assert best is not None
        taken.append(best[2])


def _label(axes: Axes, point: Point, style: Style, side: tuple[int, int]) -> Annotation:
    dx, dy = side
    label = axes.annotate(
        short(point.name),
        (point.x, point.y.mean),
        (dx, dy),
        textcoords="offset pixels",
        ha="left" if dx > 0 else "right",
        va="center" if dy == 0 else "bottom" if dy > 0 else "top",
        color=style.color,
        fontweight="bold",
        fontsize=10.5,
        annotation_clip=False,
        arrowprops=_LINE | {"color": style.color} if abs(dy) >= _LINE_FROM else None,
    )
    label.set_in_layout(False)
    return label


def _mark(axes: Axes, point: Point) -> Box:
    """What a point and its interval cover, in pixels."""
    low, high = _ends(point)
    (x, y), (_, bottom), (_, top) = axes.transData.transform(
        [(point.x, point.y.mean), (point.x, low), (point.x, high)]
    )
    return (x - 5, min(bottom, y - 5), x + 5, max(top, y + 5))


def _ends(point: Point) -> tuple[float, float]:
    value = point.y
    return (
        value.mean if value.low is None else value.low,
        value.mean if value.high is None else value.high,
    )


def _box(extent: BboxBase) -> Box:
    return (extent.x0, extent.y0, extent.x1, extent.y1)


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _covered(one: Box, other: Box) -> float:
    return _area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
