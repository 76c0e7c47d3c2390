"""The page of a search: what it reached, trial by trial, and which options mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recdistill.reporting import facts, numbers
from recdistill.reporting.cells import Cell, Grid, Row
from recdistill.reporting.charts import INK, MUTED, SERIES, Chart, Table, draw, short
from recdistill.reporting.facts import Fact
from recdistill.reporting.pages import fill

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

DEFAULT_TITLE = "Search of options"
_SIZE = (430.0, 280.0)
_ROWS = 30


def render_tuning(tuning: Json, best: str, title: str | None = None) -> str:
    """The page as HTML.

    Args:
        tuning: the content of ``tuning.json``.
        best: of ``best.toml``.
        title: its heading.
    """
    metric = numbers.metric_name(tuning["metric"])
    found, first, trials = tuning["best"], tuning["first"], tuning["trials"]
    counts = {
        state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "failed")
    }
    told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    details = [
        f"{len(trials)} trials: {told}. The metric is that of the valid rows; test rows were not opened."
    ]
    if first["value"] is not None and first["state"] == "complete":
        details.append(f"The file's own values reached {numbers.metric(first['value'])}.")
    charts = [_history(tuning, metric)]
    if tuning["importances"]:
        charts.append(_importances(tuning))
    return fill(
        "tuning.html",
        title=title or DEFAULT_TITLE,
        headline=f"The best of {len(trials)} trials, number {found['number']}, reaches {metric}"
        f" {numbers.metric(found['value'])}.",
        details=details,
        charts=charts,
        best=best,
        trials=_grid(trials, metric),
        space=[Fact(name, text) for name, text in tuning["space"].items()],
        environment=facts.environment(),
    )


def _grid(trials: Sequence[Json], metric: str) -> Grid:
    """The trials, best first; those without a value last."""
    ordered = sorted(trials, key=lambda t: (t["value"] is None, -(t["value"] or 0.0), t["number"]))
    names = list(ordered[0]["values"])
    rows = [
        Row(
            str(trial["number"]),
            "" if trial["state"] == "complete" else trial["state"],
            trial["reason"],
            [
                Cell("–" if trial["value"] is None else numbers.metric(trial["value"])),
                Cell(str(trial["epochs"])),
                Cell("–" if trial["seconds"] is None else numbers.seconds(trial["seconds"])),
                *[Cell(_text(trial["values"].get(name))) for name in names],
            ],
        )
        for trial in ordered[:_ROWS]
    ]
    left = len(ordered) - len(rows)
    remarks = [f"{left} more trials are in trials.parquet."] if left else []
    return Grid("Trials, best first", [metric, "Epochs", "Took", *names], rows, (), remarks)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else numbers.plain(value)


def _history(tuning: Json, metric: str) -> Chart:
    """The value of every trial, and the best so far."""
    known = [trial for trial in tuning["trials"] if trial["value"] is not None]
    best, so_far = float("-inf"), []
    for trial in known:
        best = max(best, trial["value"] if trial["state"] == "complete" else best)
        so_far.append(best)
    rows = [
        (str(trial["number"]), trial["state"], numbers.metric(trial["value"]), numbers.metric(top))
        for trial, top in zip(known, so_far, strict=True)
    ]
    table = Table("Value of each trial", ("trial", "state", metric, "best so far"), rows)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        whole = [trial for trial in known if trial["state"] == "complete"]
        cut = [trial for trial in known if trial["state"] != "complete"]
        for some, marker, color in ((whole, "o", SERIES[0]), (cut, "x", MUTED)):
            axes.plot([t["number"] for t in some], [t["value"] for t in some], marker, color=color)
        axes.step([t["number"] for t in known], so_far, where="post", color=INK)
        axes.set_xlabel("trial")
        axes.set_ylabel(metric)

    told = f"{metric} of {len(known)} trials; the best reached {numbers.metric(tuning['best']['value'])}."
    notes = ["The line is the best so far; crosses are trials that were stopped early."]
    return Chart("history", "Every trial", draw("history", told, _SIZE, paint), table, notes)


def _importances(tuning: Json) -> Chart:
    """The share of each option, largest first."""
    shares = dict(sorted(tuning["importances"].items(), key=lambda entry: -entry[1]))
    rows = [(name, numbers.percent(share)) for name, share in shares.items()]
    table = Table("Importance of each option", ("option", "share"), rows)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        names = [short(name) for name in reversed(shares)]
        axes.barh(names, list(reversed(shares.values())), color=SERIES[0])
        axes.set_xlabel("share")
        axes.grid(visible=False, axis="y")

    told = "Importance: " + ", ".join(f"{name} {share}" for name, share in rows) + "."
    notes = ["What separates the best trials from the others, by option (PED-ANOVA); a guide, not a test."]
    return Chart(
        "importances", "Which options mattered", draw("importances", told, _SIZE, paint), table, notes
    )
