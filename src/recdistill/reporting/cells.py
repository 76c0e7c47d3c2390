"""What tables are made of: cells whose dashes refer to a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recdistill.reporting import numbers
from recdistill.reporting.numbers import Known, Missing
from recdistill.reporting.results import Entry, Estimate, Latency


@dataclass(frozen=True)
class Cell:
    """A table's cell: the figure, smaller print under it, and the number of the note that explains it."""

    text: str
    detail: Sequence[str] = ()
    note: int | None = None


@dataclass
class Notes:
    """Reasons under a table; the same one is given once."""

    reasons: list[str] = field(default_factory=list[str])

    def cell(self, missing: Missing) -> Cell:
        """A cell that refers to the reason."""
        if missing.reason not in self.reasons:
            self.reasons.append(missing.reason)
        return Cell("n/a", note=self.reasons.index(missing.reason) + 1)


@dataclass(frozen=True)
class Row:
    """A row with its heading."""

    name: str
    role: str
    description: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Grid:
    """A table of cells with headings, and the notes that its dashes refer to."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]
    remarks: Sequence[str] = ()


def estimate(value: Estimate | Missing, notes: Notes) -> Cell:
    """A mean with half its interval, and the interval."""
    if isinstance(value, Missing):
        return notes.cell(value)
    if value.low is None or value.high is None or value.half_width is None:
        return Cell(numbers.metric(value.mean), ("no interval",))
    return Cell(
        numbers.metric(value.mean),
        (f"± {value.half_width:.4f}", f"{numbers.metric(value.low)} to {numbers.metric(value.high)}"),
    )


def short(value: Estimate | Missing, notes: Notes) -> Cell:
    """A mean with half its interval."""
    if isinstance(value, Missing):
        return notes.cell(value)
    return Cell(
        numbers.metric(value.mean), () if value.half_width is None else (f"± {value.half_width:.4f}",)
    )


def spread(value: Estimate | Missing, notes: Notes) -> Cell:
    """A mean with its standard deviation over seeds."""
    if isinstance(value, Missing):
        return notes.cell(value)
    return Cell(numbers.metric(value.mean), () if value.spread is None else (f"± {value.spread:.4f}",))


def gap(value: Estimate | Missing, notes: Notes) -> Cell:
    """A share of the gap closed, with its interval."""
    if isinstance(value, Missing):
        return notes.cell(value)
    if value.low is None or value.high is None:
        return Cell(numbers.percent(value.mean), ("no interval",))
    return Cell(
        numbers.percent(value.mean), (f"{numbers.percent(value.low)} to {numbers.percent(value.high)}",)
    )


def known(value: Known, write: Callable[[float], str], notes: Notes) -> Cell:
    """A number, as ``write`` writes it."""
    return notes.cell(value) if isinstance(value, Missing) else Cell(write(value))


def parameters(entry: Entry, notes: Notes) -> Cell:
    """How many numbers a model stores; under it, how many beside its embeddings."""
    own = entry.layer_parameters
    if isinstance(entry.parameters, Missing) or isinstance(own, Missing) or own == 0:
        return known(entry.parameters, numbers.count, notes)
    return Cell(numbers.count(entry.parameters), (f"{numbers.count(own)} in layers",))


def latency(value: Latency | Missing, notes: Notes) -> Cell:
    """The median, with the 99th percentile under it."""
    if isinstance(value, Missing):
        return notes.cell(value)
    return Cell(numbers.milliseconds(value.p50), (f"p99 {numbers.milliseconds(value.p99)}",))
