"""An ensemble, its teachers and its students: a metric on validation rows over the epochs, a chart each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recdistill.reporting import numbers
from recdistill.reporting.charts import (
    DASHES,
    INK,
    MUTED,
    Chart,
    Style,
    Table,
    draw,
    end_labels,
    short,
    styles,
)
from recdistill.reporting.curves import Course, thin
from recdistill.reporting.numbers import Known, Missing
from recdistill.reporting.runs import Collection, Directory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (400, 380)
_POINTS = 400  # epochs drawn a line
_STUDENTS = 6  # students drawn, the best; the table has all
_UNEVEN = 8.0  # the ratio of the longest to the shortest training from which the epochs' axis is logarithmic


@dataclass(frozen=True)
class Ensemble:
    """An ensemble among the directories.

    Attributes:
        name, hash: of its directory.
        models: hashes of its teachers' models, "" where unknown.
        names: what it calls its teachers.
        epochs: of the states that it holds of each.
        validation: its own metrics on validation rows; empty where they are not known.
    """

    name: str
    hash: str
    models: tuple[str, ...]
    names: tuple[str, ...]
    epochs: tuple[tuple[int, ...], ...]
    validation: Mapping[str, float]


def ensembles_of(collection: Collection) -> list[Ensemble]:
    """The ensembles among the directories, in their order."""
    return [_ensemble(one) for one in collection.others if is_ensemble(one)]


def is_ensemble(directory: Directory) -> bool:
    """Whether it is a store of several teachers."""
    return directory.manifest.kind == "knowledge" and bool(directory.manifest.summary.get("members"))


def _ensemble(directory: Directory) -> Ensemble:
    members = directory.manifest.summary["members"]
    return Ensemble(
        directory.name,
        directory.manifest.hash,
        tuple(str(one.get("model") or "") for one in members),
        tuple(str(one.get("name")) for one in members),
        tuple(tuple(int(epoch) for epoch in one.get("epochs", ())) for one in members),
        directory.manifest.summary.get("validation") or {},
    )


@dataclass(frozen=True)
class _Line:
    """A model's mean over its seeds, by epoch."""

    name: str
    part: str
    values: Mapping[int, float]
    states: Sequence[int]
    seeds: int

    @property
    def best(self) -> int:
        """The epoch at which it is best."""
        return max(self.values, key=lambda epoch: self.values[epoch])


def teacher_charts(slug: str, ensembles: Sequence[Ensemble], courses: Sequence[Course]) -> list[Chart]:
    """Charts for each ensemble of which a teacher was validated twice or more.

    The first is of the metric of its teachers; students that were validated by another one have a chart of theirs.
    """
    charts: list[Chart] = []
    for ensemble in ensembles:
        teachers = sorted(
            (course for course in courses if set(course.hashes) & set(ensemble.models)),
            key=lambda course: min(
                ensemble.models.index(one) for one in course.hashes if one in ensemble.models
            ),
        )  # as it has them, so that colours are those of its other charts
        students = [course for course in courses if ensemble.hash in course.knowledge]
        metric = _metric(teachers)
        if metric is None:
            continue
        others = [course for course in students if metric not in _validated(course)]
        by_others = dict.fromkeys(name for course in others for name in _validated(course, twice=True))
        charts.append(_chart(f"{slug}-{len(charts) + 1}", ensemble, teachers, students, metric))
        for other in by_others:
            charts.append(_chart(f"{slug}-{len(charts) + 1}", ensemble, [], others, other))
        left = [course.name for course in others if not _validated(course, twice=True)]
        if left:
            note = f"Without a curve, for want of validations: {', '.join(left)}."
            charts[-1] = replace(charts[-1], notes=[*charts[-1].notes, note])
    return charts


def _validated(course: Course, twice: bool = False) -> list[str]:
    """The metrics that a model was validated by, at least once or twice in a run."""
    names = dict.fromkeys(name for run in course.runs for epoch in run for name in epoch.metric)
    return [
        name
        for name in names
        if any(sum(name in epoch.metric for epoch in run) > int(twice) for run in course.runs)
    ]


def _metric(teachers: Sequence[Course]) -> str | None:
    """What most of the teachers' validations were by; None where no teacher has two."""
    found = [name for course in teachers for name in _validated(course, twice=True)]
    return max(found, key=found.count) if found else None


def _chart(
    slug: str, ensemble: Ensemble, teachers: Sequence[Course], students: Sequence[Course], metric: str
) -> Chart:
    name = numbers.metric_name(metric)
    states = dict(zip(ensemble.models, ensemble.epochs, strict=True))
    lines = [
        _line(course, "teacher", metric, next((states[one] for one in course.hashes if one in states), ()))
        for course in teachers
    ]
    lines += [_line(course, "student", metric, ()) for course in students]
    notes = [
        f"{line.name} has no curve: it was not validated by {name}."
        for line in lines
        if not line.values and line.part == "teacher"
    ]
    lines = [line for line in lines if line.values]
    level = _level(ensemble, [*teachers, *students], metric)
    if isinstance(level, Missing):
        notes.append(f"No line for the ensemble: {level.reason}.")
    known = set(ensemble.models) & {one for course in teachers for one in course.hashes}
    absent = [name for name, one in zip(ensemble.names, ensemble.models, strict=True) if one not in known]
    if absent and teachers:
        notes.append(f"Not at hand: the training of {', '.join(absent)}.")
    drawn = _drawn(lines)
    left = [line.name for line in lines if line not in drawn]
    if left:
        notes.append(f"The best {_STUDENTS} students are drawn; in the table too: {', '.join(left)}.")
    if any(line.seeds > 1 for line in lines):
        notes.append("Means over a model's seeds, those of them that reached an epoch.")
    parts = dict.fromkeys(f"its {line.part}s" for line in lines)
    title = f"{name} of {', '.join([ensemble.name, *parts][:-1])} and {list(parts)[-1]}"
    told = "; ".join(
        f"{line.name} {numbers.metric(line.values[line.best])} at epoch {line.best}" for line in drawn
    )
    own = "" if isinstance(level, Missing) else f"{ensemble.name} {numbers.metric(level)}; "
    svg = draw(
        slug,
        f"{title}: {own}{told}.",
        _SIZE,
        lambda figure: _paint(figure, drawn, ensemble.name, level, name),
    )
    return Chart(slug, title, svg, _table(title, ensemble, lines, level, name), notes)


def _line(course: Course, part: str, metric: str, states: Sequence[int]) -> _Line:
    found: dict[int, list[float]] = {}
    for run in course.runs:
        for epoch in run:
            if metric in epoch.metric:
                found.setdefault(epoch.epoch, []).append(epoch.metric[metric])
    values = {epoch: sum(each) / len(each) for epoch, each in sorted(found.items())}
    return _Line(course.name, part, values, states, len(course.runs))


def _level(ensemble: Ensemble, courses: Sequence[Course], metric: str) -> Known:
    """The ensemble's own metric on validation rows, or why it has none that compares."""
    name = numbers.metric_name(metric)
    if any(course.sampled for course in courses):
        return Missing(
            "the models were validated among sampled candidates, the ensemble by ranking all items"
        )
    if metric in ensemble.validation:
        return ensemble.validation[metric]
    return Missing(f"its {name} on validation rows is not in its manifest")


def _drawn(lines: Sequence[_Line]) -> list[_Line]:
    """All teachers and the best students."""
    students = sorted(
        (line for line in lines if line.part == "student"), key=lambda line: -line.values[line.best]
    )
    kept = students[:_STUDENTS]
    return [line for line in lines if line.part == "teacher" or line in kept]


def _table(title: str, ensemble: Ensemble, lines: Sequence[_Line], level: Known, name: str) -> Table:
    rows: list[tuple[str, ...]] = []
    if not isinstance(level, Missing):
        rows.append((ensemble.name, "ensemble", "–", "–", numbers.metric(level), "–"))
    rows += [
        (
            line.name,
            line.part,
            f"{max(line.values):,}",
            f"{line.best:,}",
            numbers.metric(line.values[line.best]),
            ", ".join(str(epoch) for epoch in line.states) or "–",
        )
        for line in lines
    ]
    columns = ("model", "part", "validated up to epoch", "best epoch", f"best {name}", "states at epochs")
    return Table(title, columns, rows)


def _paint(figure: Figure, lines: Sequence[_Line], ensemble: str, level: Known, name: str) -> None:
    axes = figure.add_subplot()
    longest = max(max(line.values) for line in lines)
    trained = [max(line.values) for line in lines if len(line.values) > 1]
    ends: list[tuple[float, str, str]] = []
    look = styles([line.name for line in lines if line.part == "teacher"])
    students = 0
    for line in lines:
        if line.part == "teacher":
            color, dashes, width = look[line.name].color, "-", 1.4
        else:
            color, dashes, width = INK, DASHES[students % len(DASHES)], 2.0
            students += 1
        if len(line.values) == 1:  # fitted at once: a level
            (value,) = line.values.values()
            axes.axhline(value, color=color, linewidth=width, linestyle=(0, (1, 2)))
        else:
            epochs = thin(list(line.values), _POINTS)
            axes.plot(
                epochs,
                [line.values[epoch] for epoch in epochs],
                color=color,
                linestyle=dashes,  # pyright: ignore[reportArgumentType]
                linewidth=width,
            )
            _mark_states(axes, line, look.get(line.name))
        ends.append((_last(line), short(line.name), color))
    if not isinstance(level, Missing):
        axes.axhline(level, color=MUTED, linewidth=1.6, linestyle=(0, (6, 2)))
        ends.append((level, short(ensemble), MUTED))
    axes.set_ylim(bottom=0)
    axes.set_ylabel(name)
    axes.set_xlabel("epoch")
    _epochs(axes, trained, longest)
    end_labels(axes, ends)


def _last(line: _Line) -> float:
    return line.values[max(line.values)]


def _mark_states(axes: Axes, line: _Line, style: Style | None) -> None:
    """A mark at each state of the trajectory that the ensemble holds, where the model was validated near it."""
    if style is None:
        return
    near = [min(line.values, key=lambda epoch: (abs(epoch - state), epoch)) for state in line.states]
    axes.plot(
        near,
        [line.values[epoch] for epoch in near],
        style.marker,
        color=style.color,
        markersize=5,
        clip_on=False,
    )


def _epochs(axes: Axes, trained: Sequence[int], longest: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if trained and longest / min(trained) > _UNEVEN:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.margins(x=0.01)
