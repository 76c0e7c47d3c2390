"""How easy to hard the supervision was: pointers into the teachers' states and discrepancies from them, by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    short,
)
from recdistill.reporting.curves import Course, thin
from recdistill.reporting.runs import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (400, 380)
_ROWS = 12  # refreshes in the table
_POINTER, _DISCREPANCY, _TARGET = "pointer ", "discrepancy ", "target"


@dataclass(frozen=True)
class _Lesson:
    """One method's curriculum, averaged over the seeds of a model.

    Attributes:
        epochs: those that are averaged, ascending.
        pointers, discrepancies: by teacher, then by epoch; the discrepancy from the target rankings is ``target``.
        changes: the epochs at which anything changed, the first and the last among them.
        fine: of each seed, the first epoch of the fine loss; None where it never began.
    """

    epochs: Sequence[int]
    pointers: Mapping[str, Mapping[int, float]]
    discrepancies: Mapping[str, Mapping[int, float]]
    changes: Sequence[int]
    fine: Sequence[int | None]

    def phase(self, epoch: int) -> str:
        """The loss at an epoch, in the seeds that reached it."""
        begun = [first is not None and epoch >= first for first in self.fine]
        return "fine" if all(begun) else "overall" if not any(begun) else "overall, fine"


def lesson_charts(slug: str, courses: Sequence[Course]) -> list[Chart]:
    """A chart for each method that learns from its teachers' states, of models trained for two epochs or more."""
    charts: list[Chart] = []
    for course in courses:
        methods = dict.fromkeys(
            method
            for run in course.runs
            for epoch in run
            for method, facts in epoch.facts.items()
            if any(name.startswith(_POINTER) for name in facts)
        )
        for method in methods:
            runs = [[epoch for epoch in run if method in epoch.facts] for run in course.runs]
            if max(len(run) for run in runs) < 2:
                continue
            lesson = _lesson([run for run in runs if run], method)
            name = course.name if len(methods) == 1 else f"{course.name}, {method}"
            charts.append(_chart(f"{slug}-{len(charts) + 1}", name, course, lesson))
    return charts


def _lesson(runs: Sequence[Sequence[Epoch]], method: str) -> _Lesson:
    values: dict[str, dict[int, list[float]]] = {}
    changes: set[int] = set()
    for run in runs:
        before: Mapping[str, float] = {}
        for epoch in run:
            facts = epoch.facts[method]
            if facts != before:
                changes.add(epoch.epoch)
            before = facts
            for name, value in facts.items():
                values.setdefault(name, {}).setdefault(epoch.epoch, []).append(value)
        changes |= {run[-1].epoch, run[-1].epoch + 1}  # after it the mean is of the other seeds
    means = {
        name: {epoch: sum(found) / len(found) for epoch, found in sorted(by_epoch.items())}
        for name, by_epoch in values.items()
    }
    epochs = {epoch.epoch for run in runs for epoch in run}
    return _Lesson(
        epochs=sorted(epochs),
        pointers={n.removeprefix(_POINTER): line for n, line in means.items() if n.startswith(_POINTER)},
        discrepancies={
            n.removeprefix(_DISCREPANCY): line for n, line in means.items() if n.startswith(_DISCREPANCY)
        },
        changes=sorted(changes & epochs),
        fine=[next((one.epoch for one in run if one.facts[method].get("fine")), None) for run in runs],
    )


def _chart(slug: str, name: str, course: Course, lesson: _Lesson) -> Chart:
    phases = _phases(lesson)
    ends = ", ".join(f"{teacher} {line[max(line)]:.2f}" for teacher, line in lesson.pointers.items())
    moved = any(len(set(line.values())) > 1 for line in lesson.pointers.values())
    order = "States in random order" if course.shuffled else "From easy to hard"
    title = f"{order if moved else 'Distance from the final states'}: {name}"
    told = f"{title}; mean pointers at the end {ends}; {phases}"
    svg = draw(slug, f"{told}.", _SIZE, lambda figure: _paint(figure, lesson))
    notes = [f"{phases[:1].upper()}{phases[1:]}."]
    if course.shuffled:
        notes.append("Pointers count places in an order of each user's own, which ends at the final state.")
    if len(course.runs) > 1:
        notes.append(f"Means over {len(course.runs)} seeds, those of them that reached an epoch.")
    alone = [name for name, last in course.last_states.items() if last == 0 and name in lesson.pointers]
    if alone:
        notes.append(f"With one state only, so that their pointers cannot move: {', '.join(alone)}.")
    if not lesson.discrepancies:
        notes.append("No discrepancies: the run ended before the student's lists were first looked at.")
    kept = course.best_epoch
    if kept is not None and len(course.runs) == 1:
        notes.append(f"The epoch that was kept, {kept}, is of the {lesson.phase(kept)} loss.")
    return Chart(slug, title, svg, _table(name, course, lesson), notes)


def _phases(lesson: _Lesson) -> str:
    """When the fine loss began, in words."""
    first = lesson.epochs[0]
    begun = [epoch for epoch in lesson.fine if epoch is not None]
    if not begun:
        return "the overall loss throughout"
    if max(begun) == first and len(begun) == len(lesson.fine):
        return "the fine loss throughout"
    low, high = min(begun), max(begun)
    when = f"at epoch {low}" if low == high else f"at epochs {low} to {high}"
    some = "" if len(begun) == len(lesson.fine) else f" in {len(begun)} of {len(lesson.fine)} seeds"
    return f"the fine loss begins {when}{some}"


def _table(name: str, course: Course, lesson: _Lesson) -> Table:
    kept = thin(lesson.changes, _ROWS)
    some = "" if len(kept) == len(lesson.changes) else f", {len(kept)} of {len(lesson.changes)} changes"
    of = {teacher: f" of {last}" for teacher, last in course.last_states.items()}
    columns = (
        "epoch",
        "loss",
        *[f"{teacher}: mean pointer{of.get(teacher, '')}" for teacher in lesson.pointers],
        *[f"{_called(teacher)}: mean discrepancy" for teacher in lesson.discrepancies],
    )
    rows = [
        (
            str(epoch),
            lesson.phase(epoch),
            *[_text(line, epoch, ".2f") for line in lesson.pointers.values()],
            *[_text(line, epoch, ".4f") for line in lesson.discrepancies.values()],
        )
        for epoch in kept
    ]
    return Table(f"Where the pointers of {name} were{some}", columns, rows)


def _called(teacher: str) -> str:
    return "all together" if teacher == _TARGET else teacher


def _text(line: Mapping[int, float], epoch: int, form: str) -> str:
    return format(line[epoch], form) if epoch in line else "–"


def _paint(figure: Figure, lesson: _Lesson) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.15))
    color = {name: SERIES[place % len(SERIES)] for place, name in enumerate(lesson.pointers)}
    dashes = {name: DASHES[place // len(SERIES) % len(DASHES)] for place, name in enumerate(lesson.pointers)}
    ends: list[tuple[float, str, str]] = []
    for name, line in lesson.pointers.items():
        upper.plot(
            lesson.changes,
            [line[epoch] for epoch in lesson.changes],
            color=color[name],
            linestyle=dashes[name],  # pyright: ignore[reportArgumentType]
            drawstyle="steps-post",
            clip_on=False,
            linewidth=1.5,
        )
        ends.append((line[max(line)], short(name), color[name]))
    upper.set_ylim(bottom=0)
    upper.set_ylabel("mean pointer")
    _paint_phase(upper, lesson, named=True)
    _paint_phase(lower, lesson, named=False)
    end_labels(upper, ends)
    ends = []
    for name, line in lesson.discrepancies.items():
        known = {epoch: line[epoch] for epoch in lesson.changes if epoch in line}
        ink = color.get(name, INK)
        style = (0, (3, 1.5)) if name == _TARGET else dashes.get(name, "-")
        lower.plot(
            list(known),
            list(known.values()),
            marker="o",
            color=ink,
            linestyle=style,  # pyright: ignore[reportArgumentType]
            markersize=3,
            linewidth=1.5,
            clip_on=False,
        )
        ends.append((known[max(known)], short(_called(name)), ink))
    lower.set_ylabel("mean discrepancy")
    lower.set_xlabel("epoch")
    if ends:
        end_labels(lower, ends)
    else:
        lower.text(0.5, 0.5, "not measured", transform=lower.transAxes, ha="center", color=MUTED)
    from matplotlib.ticker import MaxNLocator

    lower.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    upper.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _paint_phase(axes: Axes, lesson: _Lesson, named: bool) -> None:
    """The epochs of the fine loss shaded, of several seeds once each."""
    first, last = lesson.epochs[0], lesson.epochs[-1]
    begun = [epoch for epoch in lesson.fine if epoch is not None]
    for epoch in begun:
        axes.axvspan(epoch, last, color=GRID, alpha=0.9 / len(lesson.fine), linewidth=0, zorder=0)
    axes.set_xlim(first - 0.02 * (last - first), last)
    if not named:
        return
    if min(begun, default=last) > first:
        axes.text(0, 1.03, "overall loss", transform=axes.transAxes, fontsize=10, color=MUTED)
    if begun:
        axes.text(1, 1.03, "fine loss", transform=axes.transAxes, ha="right", fontsize=10, color=MUTED)
