"""The tables of a comparison over splits and seeds, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from recdistill.artifacts import read_json
from recdistill.errors import ArtifactError
from recdistill.evaluation.across import different
from recdistill.evaluation.tables import no_gap_closed
from recdistill.reporting import numbers
from recdistill.reporting.cells import Cell, Grid, Notes, Row
from recdistill.reporting.comparison import covered_remarks
from recdistill.reporting.letters import significance_letters
from recdistill.reporting.numbers import Missing
from recdistill.reporting.results import Estimate
from recdistill.reporting.story import Story, against, closed

FORMAT = 1

Json = Mapping[str, Any]

_FIRST = {"teacher": 0, "ensemble": 1, "trained alone": 2}
_GAPS = ("ndcg", "recall")
_OWN = "corrected for all pairs and metrics of the evaluation"
_BESIDE_USERS = (
    "The table of all methods together makes the same test but corrects each column for its own pairs only: "
    "a pair may differ by one table and not by the other, and a gap be given in one alone."
)
_BESIDE_SPLITS = (
    "The table of all methods together tests the splits' means, this one the users of one split: "
    "a pair may differ by one table and not by the other."
)


@dataclass(frozen=True)
class Overall:
    """What the page says about a comparison as a whole.

    Attributes:
        story: its sentence.
        tables: the rows, by evaluation.
        costs: what training took.
        failed: the runs that are left out.
        beside: how the tests of an evaluation by itself differ from those of the tables.
    """

    story: Story
    tables: Sequence[tuple[str, Grid]]
    costs: Grid
    failed: Sequence[str]
    beside: str


def read_comparison(path: Path) -> dict[str, Any]:
    """The content of ``comparison.json``.

    Raises:
        ArtifactError: it is damaged, or of a newer format.
    """
    found: Any = read_json(path)
    if not isinstance(found, dict) or "evaluations" not in found:
        raise ArtifactError(f"{path} is damaged or not ours", "run 'recdistill compare' again")
    tree = cast("dict[str, Any]", found)
    if int(tree["format"]) > FORMAT:
        raise ArtifactError(
            f"{path} has format {tree['format']}; expected at most {FORMAT}", "upgrade recdistill"
        )
    return tree


def overall(comparison: Json) -> Overall:
    """The page's part on a comparison: its sentence, a table an evaluation, the costs."""
    evaluations: Json = comparison["evaluations"]
    tables = [(name, _grid(found, comparison)) for name, found in evaluations.items()]
    failed = [
        f"{one['name']} of split {one['split_seed']}, seed {one['seed']}, failed: {one['error']}"
        for one in comparison["failed"]
    ]
    splits = max(len(found["split_seeds"]) for found in evaluations.values())
    beside = _BESIDE_SPLITS if splits > 1 else _BESIDE_USERS
    return Overall(_story(comparison), tables, _cost_grid(comparison), failed, beside)


def comparison_lines(comparison: Json) -> list[list[list[str]]]:
    """A table of text for each evaluation: a list of rows, the header first.

    Args:
        comparison: the content of ``comparison.json``.

    Returns:
        columns: the row's name, the metrics as mean ± spread with the letters of significance, share of the gap
            closed, tail recall, popularity lift, overlap with the teacher, seconds an epoch, epochs, seconds of
            training in all, and of validation. A dash stands for what does not exist.
    """
    return [_text_table(found, comparison) for found in comparison["evaluations"].values()]


def _text_table(found: Json, comparison: Json) -> list[list[str]]:
    metrics, rows = _metrics(found), found["rows"]
    letters = {metric: letters_of(found, metric) for metric in found["metrics"]}
    gap = _gap_metric(found)
    header = ["model", *[numbers.metric_name(metric) for metric in metrics]]
    header += [f"gap closed ({numbers.metric_name(gap)})"] if gap else []
    table = [[*header, "s an epoch", "epochs", "train s", "valid s"]]
    for name in ranked(found, comparison["roles"]):
        row = rows[name]
        cells = [
            _text(row["metrics"].get(metric), letters.get(metric, {}).get(name, "")) for metric in metrics
        ]
        if gap:
            share = row["gap_closed"].get(gap, {})
            cells.append(_share(share))
        table.append([name, *cells, *_cost_text(comparison["costs"].get(name))])
    return table


def _covered(found: Json) -> list[str]:
    """Which rows answer only some of the users; comparisons of before do not know."""
    known = {name: row for name, row in found["rows"].items() if "users" in row}
    return covered_remarks(
        {name: row["users"] for name, row in known.items()},
        {name: row["evaluated"] for name, row in known.items()},
    )


def _cost_text(cost: Json | None) -> list[str]:
    if cost is None:  # not trained here
        return ["–"] * 4
    cells = [f"{cost['seconds_per_epoch']['mean']:.3f}", f"{cost['epochs']['mean']:,.0f}"]
    return [*cells, *(f"{cost[key]['mean']:,.1f}" for key in ("seconds", "validation_seconds"))]


def footing(comparison: Json) -> list[str]:
    """What the figures are, in lines to stand under the table."""
    evaluations = comparison["evaluations"].values()
    lines = [_counted(comparison, found) for found in evaluations]
    for found in evaluations:
        gap = _gap_metric(found)
        shares = {name: row["gap_closed"].get(gap) for name, row in found["rows"].items()}
        lines += no_gap_closed(shares, "mean")
        lines += _gap_rule(found, comparison)
        lines += _covered(found)
    lines.append("rows that share a letter do not differ at 5 %, Holm-corrected over a column's pairs:")
    return list(dict.fromkeys([*lines, *(found["how"] for found in evaluations)]))


def _gap_rule(found: Json, comparison: Json) -> list[str]:
    """When a share of the gap is given, as letters may be of another test; empty without a gap."""
    gap = _gap_metric(found)
    if gap is None:
        return []
    above = "a gap closed is given where the teacher is significantly above the student alone"
    if len(found["split_seeds"]) > 1:
        return [
            f"{above} in every split, by that split's own test over users, {_OWN}; "
            "letters are of another test, of the splits' means, and show less with few splits"
        ]
    if gap in found["metrics"] and comparison.get("lineage"):
        return [f"{above} by the test of its column's letters"]
    return [f"{above} by the evaluation's own test over users, {_OWN}"]


def _counted(comparison: Json, found: Json) -> str:
    seeds, splits = len(comparison["seeds"]), len(found["split_seeds"])
    refitted = "; all refitted on train and valid rows, for the epochs that were best on valid ones"
    after = refitted if comparison.get("refit") else ""
    if splits > 1:
        over = f"mean ± standard deviation over {splits} splits"
        return over + (f", {seeds} model seeds each" if seeds > 1 else ", one model seed each") + after
    over = f"mean ± standard deviation over {seeds} model seeds" if seeds > 1 else "one split, one model seed"
    return over + after


def ranked(found: Json, roles: Json) -> list[str]:
    """The rows: teachers, ensembles, those trained alone, then the others, best first by the leading metric."""
    metric = found["metrics"][0]

    def place(name: str) -> tuple[int, float]:
        mean = found["rows"][name]["metrics"].get(metric, {}).get("mean")
        return _FIRST.get(roles.get(name, ""), len(_FIRST)), -(mean if mean is not None else float("-inf"))

    return sorted(found["rows"], key=place)


def letters_of(found: Json, metric: str) -> dict[str, str]:
    """The significance letters of the rows: those that share one do not differ significantly."""
    known = {
        name: row["metrics"][metric]["mean"]
        for name, row in found["rows"].items()
        if row["metrics"].get(metric, {}).get("mean") is not None
    }
    tested = {name for test in found["tests"] if test["metric"] == metric for name in (test["a"], test["b"])}
    ordered = sorted(tested & known.keys(), key=lambda name: -known[name])
    return significance_letters(ordered, different(found["tests"], metric))


def _metrics(found: Json) -> list[str]:
    """The columns: those asked for, tail recall at the deepest of their cut-offs, popularity lift, overlap."""
    known = list(dict.fromkeys(name for row in found["rows"].values() for name in row["metrics"]))
    tails = [name for name in known if name.startswith("tail_recall@")]
    overlaps = [name for name in known if name.startswith("overlap@")]
    tail = f"tail_recall@{max((metric.partition('@')[2] for metric in found['metrics']), key=lambda k: int(k or 0))}"
    extra = [*([tail] if tail in tails else tails[-1:]), "popularity_lift"]
    extra += ["overlap@10"] if "overlap@10" in overlaps else overlaps[-1:]
    return [name for name in dict.fromkeys([*found["metrics"], *extra]) if name in known]


def _gap_metric(found: Json) -> str | None:
    """The first metric of the table whose gap is known; NDCG or recall."""
    known = [name for row in found["rows"].values() for name in row["gap_closed"]]
    asked = [metric for metric in found["metrics"] if metric in known]
    return next((metric for metric in asked if metric.partition("@")[0] in _GAPS), next(iter(known), None))


def _text(entry: Json | None, letters: str) -> str:
    if entry is None or entry["mean"] is None:
        return "–"
    spread = "" if entry["spread"] is None else f" ± {entry['spread']:.4f}"
    return f"{entry['mean']:.4f}{spread}" + (f" {letters}" if letters else "")


def _share(entry: Json) -> str:
    if entry.get("mean") is None:
        return "–"
    spread = "" if entry["spread"] is None else f" ± {100 * entry['spread']:.0f}"
    return f"{100 * entry['mean']:.0f}{spread} %"


def _story(comparison: Json) -> Story:
    found: Json = next(iter(comparison["evaluations"].values()))
    metric = found["metrics"][0]
    name = numbers.metric_name(metric)
    roles = comparison["roles"]
    order = [row for row in ranked(found, roles) if roles.get(row) == "student"]
    if not order:
        return Story("No distilled model is among the rows.", [], ())
    best = order[0]
    value = found["rows"][best]["metrics"][metric]["mean"]
    students = "The student" if len(order) == 1 else f"The best of {len(order)} distilled rows, {best},"
    headline = f"{students} reaches {name} {numbers.metric(value)}"
    headline += _against_alone(found, comparison, best, metric)
    headline += _closed(found["rows"][best]["gap_closed"].get(metric, {}), comparison, best)
    letters = letters_of(found, metric)
    alike = [row for row in order[1:] if set(letters.get(row, "")) & set(letters.get(best, ""))]
    details = [f"{_counted(comparison, found)[:1].upper()}{_counted(comparison, found)[1:]}."]
    if alike:
        details.append(f"Not significantly different from it: {', '.join(alike)}.")
    return Story(headline + ".", details, ())


def _against_alone(found: Json, comparison: Json, row: str, metric: str) -> str:
    """How a row stands to its student trained alone; to the best such row where its own is not known or missing."""
    roles, rows = comparison["roles"], found["rows"]
    known = [name for name in ranked(found, roles) if roles.get(name) == "trained alone"]
    own = comparison.get("lineage", {}).get(row, {}).get("alone")
    alone = own if own in known else next(iter(known), None)
    if alone is None:
        return ""
    mine, other = (rows[name]["metrics"].get(metric, {}).get("mean") for name in (row, alone))
    if mine is None or other is None:
        return ""
    tests = [test for test in found["tests"] if test["metric"] == metric]
    p_holm = next((test["p_holm"] for test in tests if {test["a"], test["b"]} == {row, alone}), None)
    return against(alone, mine, other, p_holm)


def _closed(share: Json, comparison: Json, row: str) -> str:
    if share.get("mean") is None:
        return ""
    teacher = comparison.get("lineage", {}).get(row, {}).get("teacher", "")
    low, high = share.get("interval") or (None, None)
    whose = "ensemble" if comparison["roles"].get(teacher) == "ensemble" else "teacher"
    return closed(Estimate(share["mean"], low, high), whose)


def _grid(found: Json, comparison: Json) -> Grid:
    notes, roles = Notes(), comparison["roles"]
    metrics, gap = _metrics(found), _gap_metric(found)
    letters = {metric: letters_of(found, metric) for metric in found["metrics"]}
    columns = [numbers.metric_name(metric) for metric in metrics]
    columns += [f"Gap closed, {numbers.metric_name(gap)}"] if gap else []
    rows: list[Row] = []
    for name in ranked(found, roles):
        row = found["rows"][name]
        cells = [
            _cell(metric, row["metrics"].get(metric), letters.get(metric, {}).get(name, ""), notes)
            for metric in metrics
        ]
        if gap:
            cells.append(_gap_cell(row["gap_closed"].get(gap), notes))
        seeds = f"{row['seeds']} seeds" if row["seeds"] > 1 else ""
        rows.append(Row(name, roles.get(name, ""), seeds, cells))
    how = f"{found['how']}; Holm-corrected over a column's pairs, 5 %"
    remarks = [f"Letters: rows that share one do not differ significantly ({how})."]
    remarks += [f"{rule[:1].upper()}{rule[1:]}." for rule in _gap_rule(found, comparison)]
    if any(metric.startswith("overlap@") for metric in metrics):
        remarks.append(
            "Overlap is with the teacher that a model learnt from; of one that learnt from none, with the others'."
        )
    remarks += _covered(found)
    return Grid("All rows", columns, rows, notes.reasons, remarks)


def _cell(metric: str, entry: Json | None, letters: str, notes: Notes) -> Cell:
    if entry is None or entry["mean"] is None:
        overlap = metric.startswith("overlap@")
        why = (
            "it has no teacher that it could overlap with"
            if overlap
            else "the evaluation has no value for it"
        )
        return notes.cell(Missing(why))
    detail = [] if entry["spread"] is None else [f"± {entry['spread']:.4f}"]
    return Cell(numbers.metric(entry["mean"]), [*detail, *([letters] if letters else [])])


def _gap_cell(entry: Json | None, notes: Notes) -> Cell:
    if entry is None:
        return notes.cell(Missing("the gap is a distilled model's: this one is not distilled"))
    if entry["mean"] is None:
        return notes.cell(Missing(str(entry.get("reason") or "no value")))
    detail = [] if entry["spread"] is None else [f"± {numbers.percent(entry['spread'])}"]
    return Cell(numbers.percent(entry["mean"]), detail)


def _cost_grid(comparison: Json) -> Grid:
    found: Json = next(iter(comparison["evaluations"].values()))
    columns = ("Seconds an epoch", "Epochs", "Best epoch", "Training", "Validation", "Parameters")
    notes = Notes()
    rows: list[Row] = []
    for name in ranked(found, comparison["roles"]):
        cost = comparison["costs"].get(name)
        if cost is None:
            untrained = Missing("it was not trained here, or a teacher of it was not")
            cells = [notes.cell(untrained)] * len(columns)
        else:
            cells = [Cell(f"{cost['seconds_per_epoch']['mean']:.3f}")]
            cells += [Cell(f"{cost[key]['mean']:,.0f}") for key in ("epochs", "best_epoch")]
            cells += [Cell(numbers.seconds(cost[key]["mean"])) for key in ("seconds", "validation_seconds")]
            cells.append(Cell(numbers.count(cost["parameters"]["mean"])))
        rows.append(Row(name, comparison["roles"].get(name, ""), "", cells))
    remarks = ["Means over the runs of a row; an epoch's seconds leave out validation."]
    if "ensemble" in comparison["roles"].values():
        remarks.append("An ensemble took what its teachers took together, epochs and parameters included.")
    return Grid("What training took", columns, rows, notes.reasons, remarks)
