"""The cell that a search found, as a graph: what flows from where into which node, and how many cells there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recdistill.reporting import numbers
from recdistill.reporting.charts import INK, MUTED, SERIES, Chart, Table, draw
from recdistill.reporting.searches import VARIANTS, Edge, Group, Search

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RISE = 1.0  # height of an edge that passes one node, in units of the axes
_FALL = -0.5  # likewise of a line to the output, which passes below
_KINDS = ("3", "3d2", "5", "5d2", "max3", "avg3")


def look(operation: str) -> tuple[str, object]:
    """Colour and dashes of an operation in every chart; one that looks ahead has those of its causal twin, broken."""
    if operation == "skip":
        return INK, "-"
    kind = operation.removeprefix("around").removeprefix("conv")
    if kind not in _KINDS:
        return MUTED, (0, (1.5, 1.5))
    return SERIES[_KINDS.index(kind)], "-" if operation[:6] != "around" else (0, (5, 1.5))


def graph_charts(slug: str, groups: Sequence[Group]) -> list[Chart]:
    """A chart a searched student; of several seeds the first."""
    return [_chart(f"{slug}-{place}", group) for place, group in enumerate(groups, start=1)]


def _chart(slug: str, group: Group) -> Chart:
    search = group.first
    title = f"Cell of {group.course.name}"
    cells = "one cell" if search.cells == 1 else f"{search.cells} cells in a row"
    lines = search.architecture.drawn().splitlines()
    told = f"{title}: {cells}; {'; '.join(lines)}"
    how = VARIANTS.get(search.variant, search.variant)
    newest = "newest item" if search.reads == 1 else f"newest {search.reads} items"
    notes = [
        f"{how.capitalize()}: {cells}, of at most {search.most_cells}; an output depends on the {newest}."
    ]
    if len(group.searches) > 1:
        found = {(str(one.architecture), one.cells) for one in group.searches}
        same = "all found the same" if len(found) == 1 else f"{len(found)} different ones were found"
        notes.append(f"{group.which}; {same}.")
    if "none" in search.architecture.edges:
        notes.append("Edges without an operation are left out.")
    nodes = len(search.architecture.nodes)
    size = max(300, 60 + 62 * nodes), max(240, 100 + 63 * nodes)
    svg = draw(slug, f"{told}.", size, lambda figure: _paint(figure, search, lines[-1]))
    return Chart(slug, title, svg, _table(group.course.name, search), notes)


def _table(name: str, search: Search) -> Table:
    rows = [_row(edge, operation, search) for edge, operation in _edges(search)]
    taken = str(search.cells)
    cells = "cells", taken, _percent(search.depth.get(taken)), _next(search.depth, taken)
    return Table(f"Operations of {name}", ("edge", "operation", "share", "largest other"), [*rows, cells])


def _row(edge: Edge, operation: str, search: Search) -> tuple[str, ...]:
    shares = search.shares.get(edge, {})
    return str(edge), operation, _percent(shares.get(operation)), _next(shares, operation)


def _edges(search: Search) -> list[tuple[Edge, str]]:
    return [
        (Edge(source, node), operation)
        for node, names in enumerate(search.architecture.nodes, start=1)
        for source, operation in enumerate(names)
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else numbers.percent(share)


def _next(shares: Mapping[str, float], taken: str) -> str:
    """The most probable of the others."""
    others = {name: share for name, share in shares.items() if name != taken}
    if not others:
        return "–"
    best = max(others, key=lambda name: others[name])
    return f"{best} {numbers.percent(others[best])}"


def _paint(figure: Figure, search: Search, output: str) -> None:
    upper, lower = figure.subplots(2, 1, height_ratios=(max(3, len(search.architecture.nodes) + 1), 1))
    _paint_cell(upper, search, output)
    _paint_depth(lower, search)


def _paint_cell(axes: Axes, search: Search, output: str) -> None:
    nodes = len(search.architecture.nodes)
    axes.set_axis_off()
    for edge, operation in _edges(search):
        if operation != "none":
            _paint_edge(axes, edge, operation, search.shares.get(edge, {}).get(operation))
    for node in range(nodes + 1):  # what the cell puts together: its nodes, and its input past them
        width, dashes = (0.9, "-") if node else (0.9, (0, (3, 2)))
        _arc(axes, node, nodes + 1, _FALL, MUTED, width, dashes)
    dead = {n for n, names in enumerate(search.architecture.nodes, 1) if set(names) == {"none"}}
    names = ["in", *[str(node) for node in range(1, nodes + 1)], "out"]
    for place, name in enumerate(names):
        color = MUTED if place in dead else INK
        axes.text(
            place,
            0,
            name,
            ha="center",
            va="center",
            fontsize=10,
            color=color,
            fontweight="bold",
        )
    axes.text(0.5, 0, output, transform=axes.transAxes, ha="center", va="bottom", fontsize=9, color=MUTED)
    height, depth = _RISE * (nodes - 1), -_FALL * (nodes + 1)
    axes.set_xlim(-0.25, nodes + 1.25)
    axes.set_ylim(-depth - 0.75, height + 0.9)


def _paint_edge(axes: Axes, edge: Edge, operation: str, share: float | None) -> None:
    color, dashes = look(operation)
    width = 1.2 if share is None else 0.8 + 1.7 * share
    top = _arc(axes, edge.source, edge.node, _RISE, color, width, dashes)
    where = (edge.source + edge.node) / 2, top
    if share is not None:
        text = numbers.percent(share)
        axes.annotate(
            text,
            where,
            (0, 3),
            textcoords="offset pixels",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=MUTED,
        )
    axes.annotate(
        operation,
        where,
        (0, 3 if share is None else 13),
        textcoords="offset pixels",
        ha="center",
        va="bottom",
        fontsize=10,
        color=color,
        fontweight="bold",
    )


def _arc(axes: Axes, start: int, end: int, rise: float, color: str, width: float, dashes: object) -> float:
    """A line between two places that passes over those between them (under them for a negative rise): its top."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    span = end - start
    top = rise * (span - 1 if rise > 0 else span)
    gap = 0.2
    first, last = start + gap * (top == 0), end - gap * (top == 0)
    foot = 0.22 * (1 if top > 0 else -1) * (top != 0)
    bend = (4 * top - foot) / 3
    path = Path(
        [
            (first, foot),
            (start + 0.08 * span, bend),
            (end - 0.08 * span, bend),
            (last, foot),
        ],
        [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
    )
    axes.add_patch(
        FancyArrowPatch(
            path=path,
            arrowstyle="-|>",
            mutation_scale=8,
            shrinkA=0,
            shrinkB=0,
            color=color,
            linewidth=width,
            linestyle=dashes,
        )
    )
    return top


def _paint_depth(axes: Axes, search: Search) -> None:
    """The cells in a row, those that were not taken broken; under each the share of that many."""
    from matplotlib.patches import Rectangle

    axes.set_axis_off()
    shares = search.depth
    for place in range(1, search.most_cells + 1):
        taken = place <= search.cells
        ink = INK if taken else MUTED
        axes.add_patch(
            Rectangle(
                (place - 0.42, 0),
                0.84,
                1,
                fill=False,
                edgecolor=ink,
                linewidth=1.5 if taken else 0.9,
                linestyle="-" if taken else (0, (3, 2)),
            )
        )
        axes.text(place, 0.5, f"cell {place}", ha="center", va="center", fontsize=9.5, color=ink)
        if str(place) in shares:
            text = numbers.percent(shares[str(place)])
            axes.text(place, -0.12, text, ha="center", va="top", fontsize=8.5, color=MUTED)
        if place > 1:
            axes.plot([place - 0.58, place - 0.42], [0.5, 0.5], color=ink, linewidth=1)
    axes.set_xlim(0.5, search.most_cells + 0.5)
    axes.set_ylim(-0.75, 1.1)
