"""What moves between the layers of a student and of its teacher: the transport's plan as a heat map."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recdistill.reporting.charts import INK, MUTED, SERIES, Chart, Table, draw
from recdistill.reporting.curves import Course
from recdistill.reporting.runs import Epoch
from recdistill.reporting.searches import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLOW = re.compile(r"flow (\d+)>(\d+)")
_WIDTH = 400
_CELLS = 12  # layers a side up to which masses are written into the map


@dataclass(frozen=True)
class _Plan:
    """The plan at the end of one epoch.

    Attributes:
        name: of what was being trained.
        epoch: when.
        mass: by layers of student and teacher, from 1.
        student, teacher: weights of the layers; empty where they are not known.
    """

    name: str
    epoch: int
    mass: Mapping[tuple[int, int], float]
    student: Mapping[int, float]
    teacher: Mapping[int, float]

    @property
    def rows(self) -> int:
        return max(row for row, _ in self.mass)

    @property
    def columns(self) -> int:
        return max(column for _, column in self.mass)


def flow_charts(slug: str, courses: Sequence[Course], groups: Sequence[Group]) -> list[Chart]:
    """A chart for each model whose layers learned by transport: in the search if any, and in training."""
    searches = {group.course.name: group for group in groups}
    charts: list[Chart] = []
    for course in courses:
        told = [("training", course.runs[0], course.best_epoch)] if course.runs else []
        if course.name in searches:
            search = searches[course.name].first
            told.insert(0, ("search", search.epochs, search.best_epoch))
        found = [plan for one in told if (plan := _plan(*one)) is not None]
        if found:
            charts.append(_chart(f"{slug}-{len(charts) + 1}", course, found))
    return charts


def _plan(name: str, epochs: Sequence[Epoch], best: int | None) -> _Plan | None:
    """The plan of the epoch that was kept, else of the last; None without any."""
    told = [
        (epoch.epoch, facts)
        for epoch in epochs
        for facts in epoch.facts.values()
        if any(_FLOW.fullmatch(name) for name in facts)
    ]
    if not told:
        return None
    number, facts = next((one for one in told if one[0] == best), told[-1])
    mass = {
        (int(match[1]), int(match[2])): value
        for key, value in facts.items()
        if (match := _FLOW.fullmatch(key)) is not None
    }
    return _Plan(name, number, mass, _weights(facts, "student "), _weights(facts, "teacher "))


def _weights(facts: Mapping[str, float], side: str) -> dict[int, float]:
    found = {name.removeprefix(side): value for name, value in facts.items() if name.startswith(side)}
    return {int(layer): weight for layer, weight in found.items() if layer.isdigit()}


def _chart(slug: str, course: Course, plans: Sequence[_Plan]) -> Chart:
    title = f"Flow between layers: {course.name}"
    told = "; ".join(
        f"{plan.name}, epoch {plan.epoch}: "
        + ", ".join(f"{i} to {j} {mass:.2f}" for (i, j), mass in plan.mass.items() if mass > 0)
        for plan in plans
    )
    height = max(_height(plan, _WIDTH / len(plans)) for plan in plans)
    svg = draw(slug, f"{title}; {told}.", (_WIDTH, height), lambda figure: _paint(figure, plans))
    notes = [f"Of the first of {len(course.runs)} seeds."] if len(course.runs) > 1 else []
    if any(_unused(plan) for plan in plans):
        notes.append("Rows without flow: cells that the last architecture drawn in the epoch did not have.")
    rows = [
        (
            plan.name,
            str(plan.epoch),
            str(i),
            _written(plan.student.get(i)),
            str(j),
            _written(plan.teacher.get(j)),
            f"{mass:.3f}",
        )
        for plan in plans
        for (i, j), mass in plan.mass.items()
    ]
    columns = ("while", "epoch", "student layer", "weight", "teacher layer", "weight", "flow")
    return Chart(slug, title, svg, Table(f"Plans of {course.name}", columns, rows), notes)


def _written(weight: float | None) -> str:
    return "–" if weight is None else f"{weight:.3f}"


def _unused(plan: _Plan) -> bool:
    return any(
        all(plan.mass.get((i, j), 0) == 0 for j in range(1, plan.columns + 1))
        for i in range(1, plan.rows + 1)
    )


def _height(plan: _Plan, width: float) -> float:
    """That of a panel whose cells are about twice as wide as high."""
    cell = (width - 60) / plan.columns
    return 85 + plan.rows * min(max(0.5 * cell, 26), 60)


def _paint(figure: Figure, plans: Sequence[_Plan]) -> None:
    (panels,) = figure.subplots(1, len(plans), squeeze=False)
    most = max(mass for plan in plans for mass in plan.mass.values()) or 1.0
    for axes, plan in zip(panels, plans, strict=True):
        _paint_plan(axes, plan, most)
    panels[0].set_ylabel("student's layers")
    figure.supxlabel("teacher's layers", fontsize=11, color=INK)


def _paint_plan(axes: Axes, plan: _Plan, most: float) -> None:
    from matplotlib.patches import Rectangle

    written = max(plan.rows, plan.columns) <= _CELLS
    for (i, j), mass in plan.mass.items():
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=SERIES[0], alpha=0.75 * mass / most, linewidth=0)
        )
        if written:
            ink = INK if mass > 0 else MUTED
            axes.text(j, i, f"{mass:.2f}", ha="center", va="center", fontsize=9, color=ink)
    axes.grid(visible=False)
    axes.set_xlim(0.5, plan.columns + 0.5)
    axes.set_ylim(plan.rows + 0.5, 0.5)  # the first layer on top
    axes.set_title(f"{plan.name}, epoch {plan.epoch}", fontsize=10, color=MUTED, loc="left")
    axes.set_xticks(range(1, plan.columns + 1), [_tick(j, plan.teacher) for j in range(1, plan.columns + 1)])
    axes.set_yticks(range(1, plan.rows + 1), [_tick(i, plan.student) for i in range(1, plan.rows + 1)])
    axes.tick_params(length=0, labelsize=9)


def _tick(layer: int, weights: Mapping[int, float]) -> str:
    return str(layer) if layer not in weights else f"{layer}\n({weights[layer]:.2f})"
