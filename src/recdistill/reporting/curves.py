"""Learning curves: a small chart a model, the terms of its loss above, what it was validated on below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from recdistill.reporting import numbers
from recdistill.reporting.charts import DASHES, INK, SERIES, Chart, Table, draw, end_labels, short
from recdistill.reporting.runs import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

_SIZE = (340, 330)
_POINTS = 400  # epochs drawn a line: more cannot be seen
_ROWS = 12  # epochs in the table
_WIDE = 50.0  # the ratio of losses from which their axis is logarithmic


@dataclass(frozen=True)
class Course:
    """How one model was trained, in all its seeds.

    Attributes:
        name: the model.
        runs: the epochs of each seed.
        best_epoch: the epoch kept, of a single seed.
        hashes: of the models.
        knowledge: of the stores that they learned from.
        last_states: of each teacher of an ensemble that it learned from, the place of the final state, from 0.
        sampled: whether it was validated among sampled candidates.
        shuffled: whether its teachers' states came in random order.
        scene: its data set, where a page has several.
    """

    name: str
    runs: tuple[tuple[Epoch, ...], ...]
    best_epoch: int | None
    hashes: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    last_states: Mapping[str, int] = field(default_factory=dict[str, int])
    sampled: bool = False
    shuffled: bool = False
    scene: str = ""


def curve_charts(slug: str, courses: Sequence[Course]) -> list[Chart]:
    """A chart for each model trained for two epochs or more; those of one data set share the axis of the validation
    metric."""
    shown = [course for course in courses if max((len(run) for run in course.runs), default=0) > 1]
    look = _term_styles(shown)
    metric = _metric(shown)
    limits = {
        scene: _limits([c for c in shown if c.scene == scene], metric) for scene in {c.scene for c in shown}
    }
    return [
        _chart(f"{slug}-{place}", course, metric, look, limits[course.scene])
        for place, course in enumerate(shown, start=1)
    ]


def _limits(courses: Sequence[Course], metric: str) -> tuple[float, float]:
    """The axis of a metric that holds all epochs of all courses."""
    every = [
        epoch.metric[metric]
        for course in courses
        for run in course.runs
        for epoch in run
        if metric in epoch.metric
    ]
    return (min(0.0, *every), 1.08 * max(every)) if every else (0.0, 1.0)


def without_curve(courses: Sequence[Course]) -> list[str]:
    """Why some models have no chart, one sentence each."""
    told: list[str] = []
    for course in courses:
        epochs = max((len(run) for run in course.runs), default=0)
        if epochs == 0:
            told.append(f"{course.name} has no curve: its directory holds no history.jsonl.")
        elif epochs == 1:
            told.append(f"{course.name} has no curve: it was trained in a single epoch.")
    return told


def _term_styles(courses: Sequence[Course]) -> dict[str, tuple[str, object]]:
    """Colour and dashes of each loss term, the same in every chart."""
    terms = dict.fromkeys(
        term for course in courses for run in course.runs for epoch in run for term in epoch.losses
    )
    return {
        term: (SERIES[index % len(SERIES)], DASHES[index % len(DASHES)]) for index, term in enumerate(terms)
    }


def _metric(courses: Sequence[Course]) -> str:
    """What most models were validated on, and so what the charts compare."""
    names = [
        name
        for course in courses
        for name in dict.fromkeys(name for run in course.runs for epoch in run for name in epoch.metric)
    ]
    return max(names, key=names.count) if names else ""


def _chart(
    slug: str,
    course: Course,
    metric: str,
    look: Mapping[str, tuple[str, object]],
    limits: tuple[float, float],
) -> Chart:
    longest = max(course.runs, key=len)
    terms = list(dict.fromkeys(term for run in course.runs for epoch in run for term in epoch.losses))
    validated = [epoch for epoch in longest if metric in epoch.metric]
    seeds = "" if len(course.runs) == 1 else f", {len(course.runs)} seeds"
    told = f"{course.name}: {len(longest)} epochs{seeds}; loss terms {', '.join(terms) or 'none recorded'}"
    notes: list[str] = []
    if validated:
        best = max(validated, key=lambda epoch: epoch.metric[metric])
        name = numbers.metric_name(metric)
        told += f"; best {name} on validation {numbers.metric(best.metric[metric])} at epoch {best.epoch}"
    else:
        notes.append("No validation metric: nothing was validated on.")
    if not terms:
        notes.append("No loss terms: the run recorded none.")
    if len(longest) > _POINTS:
        notes.append(f"{_POINTS} of {len(longest):,} epochs are drawn.")
    svg = draw(slug, f"{told}.", _SIZE, lambda figure: _paint(figure, course, metric, look, limits))
    return Chart(slug, course.name, svg, _table(course.name, longest, terms, metric), notes)


def _table(name: str, epochs: Sequence[Epoch], terms: Sequence[str], metric: str) -> Table:
    kept = thin(epochs, _ROWS)
    some = "" if len(kept) == len(epochs) else f", {len(kept)} of {len(epochs)} epochs"
    rows = [
        (
            str(epoch.epoch),
            *[f"{epoch.losses[term]:.4g}" if term in epoch.losses else "–" for term in terms],
            numbers.metric(epoch.metric[metric]) if metric in epoch.metric else "not validated",
            "–" if epoch.seconds is None else numbers.seconds(epoch.seconds),
        )
        for epoch in kept
    ]
    shown = numbers.metric_name(metric) if metric else "validation"
    return Table(f"Epochs of {name}{some}", ("epoch", *terms, shown, "time"), rows)


def thin(epochs: Sequence[T], most: int) -> list[T]:
    """At most ``most`` epochs, evenly spaced, the first and the last among them."""
    if len(epochs) <= most:
        return list(epochs)
    return [epochs[round(place * (len(epochs) - 1) / (most - 1))] for place in range(most)]


def _paint(
    figure: Figure,
    course: Course,
    metric: str,
    look: Mapping[str, tuple[str, object]],
    limits: tuple[float, float],
) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1))
    _paint_losses(upper, course, look)
    upper.set_ylabel("loss")
    lower.set_ylabel(numbers.metric_name(metric) if metric else "validation")
    lower.set_xlabel("epoch")
    lower.set_ylim(*limits)
    for run in course.runs:
        found = [epoch for epoch in run if metric in epoch.metric]
        drawn = thin(found, _POINTS)
        lower.plot(
            [epoch.epoch for epoch in drawn],
            [epoch.metric[metric] for epoch in drawn],
            color=INK,
            linewidth=1.5 if len(course.runs) == 1 else 1.0,
        )
        _mark_best(lower, course, found, metric)
    from matplotlib.ticker import MaxNLocator

    lower.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _mark_best(axes: Axes, course: Course, epochs: Sequence[Epoch], metric: str) -> None:
    """A ring around the epoch that was kept; of a single seed also in words."""
    if not epochs:
        return
    best = max(epochs, key=lambda epoch: epoch.metric[metric])
    if course.best_epoch is not None:
        best = next((epoch for epoch in epochs if epoch.epoch == course.best_epoch), best)
    value = best.metric[metric]
    axes.plot([best.epoch], [value], "o", color=INK, markerfacecolor="none", markersize=8, clip_on=False)
    if len(course.runs) == 1:
        text = f"{numbers.metric(value)} at epoch {best.epoch}"
        axes.text(0.98, 0.06, text, transform=axes.transAxes, ha="right", fontsize=10, color=INK)


def _paint_losses(axes: Axes, course: Course, look: Mapping[str, tuple[str, object]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ends: dict[str, float] = {}
    values: list[float] = []
    for run in course.runs:
        for term, (color, dashes) in look.items():
            line = thin([epoch for epoch in run if term in epoch.losses], _POINTS)
            if line:
                losses = [epoch.losses[term] for epoch in line]
                width = 1.8 if len(course.runs) == 1 else 1.1
                axes.plot(
                    [epoch.epoch for epoch in line],
                    losses,
                    color=color,
                    linestyle=dashes,  # pyright: ignore[reportArgumentType]
                    linewidth=width,
                )
                ends[term] = losses[-1]
                values += losses
    if values and min(values) > 0 and max(values) / min(values) > _WIDE:
        axes.set_yscale("log")
        narrow = max(values) / min(values) < 300
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    end_labels(axes, [(value, short(term), look[term][0]) for term, value in ends.items()])
