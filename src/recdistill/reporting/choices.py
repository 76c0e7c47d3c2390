"""How a search came to its choice: shares of the operations, entropy, temperature, cells and prices by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from recdistill.reporting import numbers
from recdistill.reporting.charts import (
    DASHES,
    GRID,
    INK,
    MUTED,
    SERIES,
    Chart,
    Table,
    draw,
    end_labels,
)
from recdistill.reporting.curves import thin
from recdistill.reporting.graphs import look
from recdistill.reporting.searches import Edge, Group, Search, cell_shares, choices_of, edge_shares
from recdistill.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = 12  # epochs in a table
_POINTS = 300  # epochs drawn a line
_PANEL = 78  # pixels of height
_PRICE = "price "

Line = Mapping[int, float]
"""A value by epoch."""


@dataclass(frozen=True)
class _Course:
    """A search by epoch.

    Attributes:
        shares: of each edge, then of each operation.
        cells: share of each number of cells; empty where that was not searched.
        facts: everything else by name.
        epochs: ascending.
    """

    shares: Mapping[Edge, Mapping[str, Line]]
    cells: Mapping[str, Line]
    facts: Mapping[str, Line]
    epochs: Sequence[int]

    @property
    def nodes(self) -> int:
        return max(edge.node for edge in self.shares)

    @property
    def prices(self) -> Mapping[str, Line]:
        """Of each budget."""
        return {n.removeprefix(_PRICE): line for n, line in self.facts.items() if n.startswith(_PRICE)}

    def leading(self, edge: Edge, epoch: int) -> tuple[str, float]:
        """The most probable operation of an edge, and its share."""
        found = {name: line[epoch] for name, line in self.shares[edge].items() if epoch in line}
        best = max(found, key=lambda name: found[name])
        return best, found[best]


def choice_charts(slug: str, groups: Sequence[Group]) -> list[Chart]:
    """Two charts a search of two epochs or more: the shares of every edge; entropy, temperature, cells and prices."""
    charts: list[Chart] = []
    for group in groups:
        course = _course(group.first)
        if course is None:
            continue
        notes = [f"{group.which}."] if group.which else []
        place = len(charts) // 2 + 1
        charts += [
            _shares_chart(f"{slug}-shares-{place}", group.course.name, course, notes),
            _course_chart(f"{slug}-course-{place}", group.course.name, course, notes),
        ]
    return charts


def _course(search: Search) -> _Course | None:
    """None for less than two epochs."""
    lines: dict[str, dict[int, float]] = {}
    for epoch in search.epochs:
        for name, value in choices_of(epoch).items():
            lines.setdefault(name, {})[epoch.epoch] = value
    epochs = sorted({epoch for line in lines.values() for epoch in line})
    if len(epochs) < 2:
        return None
    names = dict.fromkeys(lines, 0.0)
    return _Course(
        shares={
            edge: {name: lines[f"{edge.node}<{edge.source or 'input'} {name}"] for name in operations}
            for edge, operations in edge_shares(names).items()
        },
        cells={name: lines[f"cells {name}"] for name in cell_shares(names)},
        facts=lines,
        epochs=epochs,
    )


def _shares_chart(slug: str, name: str, course: _Course, notes: Sequence[str]) -> Chart:
    title = f"Shares of the operations: {name}"
    last = course.epochs[-1]
    leading = {edge: course.leading(edge, last) for edge in course.shares}
    told = "; ".join(
        f"{edge} {operation} {numbers.percent(share)}" for edge, (operation, share) in leading.items()
    )
    size = 420, 70 + 105 * course.nodes
    svg = draw(slug, f"{title}, at the end: {told}.", size, lambda figure: _paint_shares(figure, course))
    kept = thin(course.epochs, _ROWS)
    rows = [
        (
            str(epoch),
            *[
                f"{operation} {numbers.percent(share)}"
                for operation, share in (course.leading(edge, epoch) for edge in course.shares)
            ],
        )
        for epoch in kept
    ]
    caption = f"The most probable operation of each edge: {name}{_some(kept, course)}"
    return Chart(
        slug, title, svg, Table(caption, ("epoch", *(str(edge) for edge in course.shares)), rows), notes
    )


def _some(kept: Sequence[int], course: _Course) -> str:
    return "" if len(kept) == len(course.epochs) else f", {len(kept)} of {len(course.epochs)} epochs"


def _paint_shares(figure: Figure, course: _Course) -> None:
    """A panel an edge: nodes downwards, what they read across."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    most = max(
        share for lines in course.shares.values() for line in lines.values() for share in line.values()
    )
    grid = figure.subplots(course.nodes, course.nodes, sharex=True, sharey=True, squeeze=False)
    for node in range(1, course.nodes + 1):
        for source in range(course.nodes):
            axes: Axes = grid[node - 1][source]
            edge = Edge(source, node)
            if edge not in course.shares:
                axes.set_axis_off()
                continue
            operation, _ = course.leading(edge, course.epochs[-1])
            axes.set_title(str(edge), loc="left", fontsize=9, color=MUTED)
            axes.set_title(operation, loc="right", fontsize=9, color=look(operation)[0], fontweight="bold")
            for name, line in course.shares[edge].items():
                _plot(axes, line, *look(name), width=2.0 if name == operation else 1.0)
            axes.set_ylim(0, min(1.0, 1.15 * most))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
            axes.tick_params(labelsize=8.5)
    grid[-1][0].set_xlabel("epoch")
    operations = dict.fromkeys(name for lines in course.shares.values() for name in lines)
    handles = [
        Line2D([], [], color=look(name)[0], linestyle=look(name)[1], linewidth=1.8)  # pyright: ignore[reportArgumentType]
        for name in operations
    ]
    figure.legend(
        handles,
        list(operations),
        loc="outside lower center",
        ncols=min(len(operations), 4),
        frameon=False,
        fontsize=9,
        handlelength=1.5,
    )


def _course_chart(slug: str, name: str, course: _Course, notes: Sequence[str]) -> Chart:
    title = f"How the choice was made: {name}"
    entropy, temperature = course.facts.get("entropy", {}), course.facts.get("temperature", {})
    told = title
    if entropy:
        told += f"; entropy {entropy[min(entropy)]:.2f} at first, {entropy[max(entropy)]:.2f} at the end"
    if temperature:
        told += f"; temperature {temperature[min(temperature)]:.2g} to {temperature[max(temperature)]:.2g}"
    panels: list[Callable[[Axes, _Course], None]] = [_paint_entropy, _paint_temperature]
    panels += [_paint_cells] if course.cells else []
    panels += [_paint_prices] if course.prices else []
    svg = draw(
        slug,
        f"{told}.",
        (400, 45 + _PANEL * len(panels)),
        lambda figure: _paint(figure, course, panels),
    )
    kept = thin(course.epochs, _ROWS)
    lines = {
        "entropy": entropy,
        "temperature": temperature,
        **{_cells(count): line for count, line in course.cells.items()},
        **{f"price of {_called(meter)}": line for meter, line in course.prices.items()},
    }
    rows = [
        (str(epoch), *[f"{line[epoch]:.3g}" if epoch in line else "–" for line in lines.values()])
        for epoch in kept
    ]
    table = Table(f"The search of {name}{_some(kept, course)}", ("epoch", *lines), rows)
    return Chart(slug, title, svg, table, notes)


def _cells(count: str) -> str:
    return counted(int(count), "cell")


def _called(meter: str) -> str:
    return {"latency_ms": "latency", "megabytes": "bytes"}.get(meter, meter)


def _paint(figure: Figure, course: _Course, panels: Sequence[Callable[[Axes, _Course], None]]) -> None:
    from matplotlib.ticker import MaxNLocator

    found = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for (axes,), paint in zip(found, panels, strict=True):
        paint(axes, course)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    last: Axes = found[-1][0]
    last.set_xlabel("epoch")
    last.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _plot(axes: Axes, line: Line, color: str, dashes: object = "-", width: float = 1.6) -> float:
    """Draw a line; its last value."""
    epochs = thin(list(line), _POINTS)
    axes.plot(
        epochs,
        [line[epoch] for epoch in epochs],
        color=color,
        linestyle=dashes,  # pyright: ignore[reportArgumentType]
        linewidth=width,
    )
    return line[epochs[-1]]


def _paint_entropy(axes: Axes, course: _Course) -> None:
    operations = max(len(lines) for lines in course.shares.values())
    axes.axhline(log(operations), color=GRID, linewidth=1.5)
    axes.set_ylim(0, 1.1 * log(operations))
    axes.set_ylabel("entropy")
    _plot(axes, course.facts.get("entropy") or {course.epochs[0]: 0.0}, INK)
    end_labels(axes, [(log(operations), "even shares", MUTED)])


def _paint_temperature(axes: Axes, course: _Course) -> None:
    axes.set_ylabel("temperature")
    _plot(axes, course.facts.get("temperature") or {course.epochs[0]: 0.0}, INK)
    axes.set_ylim(bottom=0)


def _paint_cells(axes: Axes, course: _Course) -> None:
    from matplotlib.ticker import PercentFormatter

    ends: list[tuple[float, str, str]] = []
    for place, (count, line) in enumerate(course.cells.items()):
        color, dashes = SERIES[place % len(SERIES)], DASHES[place // len(SERIES) % len(DASHES)]
        ends.append((_plot(axes, line, color, dashes), _cells(count), color))
    axes.set_ylim(0, 1)
    axes.set_ylabel("share")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    end_labels(axes, ends)


def _paint_prices(axes: Axes, course: _Course) -> None:
    ends: list[tuple[float, str, str]] = []
    for place, (meter, line) in enumerate(course.prices.items()):
        color, dashes = SERIES[place % len(SERIES)], DASHES[place % len(DASHES)]
        ends.append((_plot(axes, line, color, dashes), _called(meter), color))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("price")
    end_labels(axes, ends)
