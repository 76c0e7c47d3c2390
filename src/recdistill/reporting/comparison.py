"""The tables of an evaluation: the comparison, all metrics, tests, seeds, and the users one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from recdistill.reporting import cells, numbers
from recdistill.reporting.cells import Cell, Grid, Notes, Row
from recdistill.reporting.letters import significance_letters
from recdistill.reporting.numbers import Missing
from recdistill.reporting.results import Entry, Evaluation, Latency, Member, Test
from recdistill.reporting.story import Cast
from recdistill.wording import counted

_BEST = "best"

Column = tuple[str, Callable[[Entry], Cell]]
"""A heading, and what stands under it."""


def describe(member: Member) -> str:
    """What a model is, in a line: ``bpr, dim 20; distilled with de, rrd``."""
    if member.teachers:
        return f"of {', '.join(member.teachers)}"
    if member.kind != "model":
        return "stored knowledge"
    options = member.options.get("model") or {}
    facts = [str(options.get("name", "model"))]
    facts += [f"{name.replace('_', ' ')} {value}" for name, value in options.items() if name in _SHOWN]
    facts += [str(member.options["variant"])] if "search" in member.options else []
    methods = [str(method.get("method", "?")) for method in member.options.get("distill") or ()]
    return ", ".join(facts) + (f"; distilled with {', '.join(methods)}" if methods else "")


_SHOWN = ("dim", "layers", "num_layers")


def comparison(evaluation: Evaluation, roles: Cast, beside: str = "") -> Grid:
    """The main table: a row a model, best first by the leading metric.

    Args:
        evaluation: what was evaluated.
        roles: who is teacher and student.
        beside: how its tests differ from those of another table of the page.
    """
    notes = Notes()
    columns = [*_accuracy_columns(evaluation, notes), *_cost_columns(evaluation, notes)]
    rows = [
        Row(entry.name, roles.role(entry), _describe_entry(entry), [write(entry) for _, write in columns])
        for entry in ranked(evaluation)
    ]
    remarks = [
        "Mean over users ± half of its 95 % interval, and the interval (bootstrap over users).",
        *_verdict_remark(evaluation),
        *_gap_remark(evaluation),
        *([beside] if beside else []),
        "Milliseconds from external user ids to the external ids of the top 10: the median, and p99.",
        *_layers_remark(evaluation),
        *ensemble_remark(evaluation),
        *_covered_remark(evaluation),
    ]
    return Grid("Models compared", [name for name, _ in columns], rows, notes.reasons, remarks)


def _layers_remark(evaluation: Evaluation) -> list[str]:
    """What is counted as layers; empty where no model has any."""
    if not any(isinstance(own := one.layer_parameters, float) and own for one in evaluation.entries):
        return []
    return ["In layers: without embeddings of users, items and positions, and biases of items."]


def _covered_remark(evaluation: Evaluation) -> list[str]:
    """Which models answer only some of the users."""
    values = {entry.name: entry.value(evaluation.primary) for entry in evaluation.entries}
    counts = {name: value.n for name, value in values.items() if not isinstance(value, Missing) and value.n}
    return covered_remarks(counts, dict.fromkeys(counts, evaluation.users["evaluated"]))


def covered_remarks(users: Mapping[str, int], evaluated: Mapping[str, int]) -> list[str]:
    """A sentence on each model that answers only some of the users.

    Args:
        users: that it answers, by its name.
        evaluated: how many there are.
    """
    return [
        f"{name} has lists for {users[name]:,} of {evaluated[name]:,} users: its means are over these,"
        " and tests compare on them."
        for name in users
        if users[name] < evaluated[name]
    ]


def ensemble_remark(evaluation: Evaluation) -> list[str]:
    """What the size and the latency of an ensemble are; empty without one."""
    if not any(entry.first.teachers for entry in evaluation.entries):
        return []
    return [
        "Size and milliseconds of an ensemble are the sums of its teachers', asked one after the other;"
        " the sum of their p99 is an upper bound."
    ]


def _accuracy_columns(evaluation: Evaluation, notes: Notes) -> list[Column]:
    primary, secondary, overlap = evaluation.primary, evaluation.secondary, evaluation.overlap
    verdicts = _verdicts(evaluation)

    def verdict(entry: Entry) -> Cell:
        return notes.cell(verdicts) if isinstance(verdicts, Missing) else Cell(verdicts[entry.name])

    columns: list[Column] = [
        (numbers.metric_name(primary), lambda entry: cells.estimate(entry.value(primary), notes)),
        ("Differs", verdict),
    ]
    if secondary:
        name = numbers.metric_name(secondary)
        columns.append((name, lambda entry: cells.estimate(entry.value(secondary), notes)))
    columns.append(("Gap closed", lambda entry: cells.gap(entry.gap(primary), notes)))
    if overlap:
        name = f"{numbers.metric_name(overlap)} with teacher"
        columns.append((name, lambda entry: cells.estimate(entry.value(overlap), notes)))
    return columns


def _cost_columns(evaluation: Evaluation, notes: Notes) -> list[Column]:
    columns: list[Column] = [
        ("Parameters", lambda entry: cells.parameters(entry, notes)),
        ("Weights file", lambda entry: cells.known(entry.bytes, numbers.size, notes)),
    ]
    for batch in _batches(evaluation) or [1]:
        name = f"ms, {counted(batch, 'user')}"
        columns.append((name, lambda entry, batch=batch: cells.latency(entry.latency(batch), notes)))
    return columns


def _batches(evaluation: Evaluation) -> list[int]:
    members = [member for entry in evaluation.entries for member in entry.members]
    return sorted({one.batch for member in members for one in member.latencies})


def ranked(evaluation: Evaluation) -> list[Entry]:
    """The entries, best first by the leading metric; those without it last."""

    def place(entry: Entry) -> float:
        value = entry.value(evaluation.primary)
        return float("inf") if isinstance(value, Missing) else -value.mean

    return sorted(evaluation.entries, key=place)


def all_metrics(evaluation: Evaluation) -> Grid:
    """Every metric of every model: a row a metric."""
    notes = Notes()
    entries = ranked(evaluation)
    rows = [
        Row(
            numbers.metric_name(metric),
            "",
            "",
            [cells.short(entry.value(metric), notes) for entry in entries],
        )
        for metric in evaluation.metrics
    ]
    return Grid("All metrics", [entry.name for entry in entries], rows, notes.reasons)


def latency_table(evaluation: Evaluation) -> Grid | None:
    """Latencies in parts, a row a model and batch size; None where none was measured."""
    notes = Notes()
    members = [member for entry in evaluation.entries for member in entry.members]
    threads = {one.threads for member in members for one in member.latencies if one.threads}
    remarks = [
        "Medians, and the 99th percentile under them; lists are the whole request minus scoring and encoding."
    ]
    if threads:
        remarks.append(f"Threads: {' or '.join(str(one) for one in sorted(threads))}.")
    encoders = any(one.encoding is not None for member in members for one in member.latencies)
    parts = _LATENCY_PARTS if encoders else _LATENCY_PARTS[1:]
    if encoders:
        remarks[0] += " Sequence models encode histories apart from scoring."
    columns = ("Whole request", *(title for _, title, _ in parts))
    rows = [
        Row(
            f"{entry.name}, {counted(batch, 'user')}",
            "",
            "",
            _latency_cells(entry.latency(batch), parts, notes),
        )
        for entry in ranked(evaluation)
        for batch in _batches(evaluation)
    ]
    return (
        Grid("Milliseconds a request, after warm-up", columns, rows, notes.reasons, remarks) if rows else None
    )


_APART = "scoring and listing were not timed apart"
_LATENCY_PARTS = (
    ("encoding", "Encoding histories", "it reads no histories, or their encoding was not timed apart"),
    ("scoring", "Scoring all items", _APART),
    ("lists", "Building the lists", _APART),
)
"""Parts of a latency: the attribute, the heading, why there is none."""


def _latency_cells(
    value: Latency | Missing, parts: Sequence[tuple[str, str, str]], notes: Notes
) -> list[Cell]:
    if isinstance(value, Missing):
        return [notes.cell(value)] * (1 + len(parts))
    found = [cells.latency(value, notes)]
    for name, _, reason in parts:
        median, slow = getattr(value, name), getattr(value, f"{name}_p99")
        if median is None:
            found.append(notes.cell(Missing(reason)))
        else:
            detail = () if slow is None else (f"p99 {numbers.milliseconds(slow)}",)
            found.append(Cell(numbers.milliseconds(median), detail))
    return found


def tests_table(evaluation: Evaluation, metrics: Sequence[str]) -> Grid | None:
    """The paired tests by some metrics; None without any."""
    chosen = [test for test in evaluation.tests if test.metric in metrics]
    if not chosen:
        return None
    rows = [Row(f"{test.a} − {test.b}", "", "", _test_cells(test)) for test in chosen]
    columns = ("Metric", "Difference", "p", "p after Holm", "At 5 %")
    return Grid("Paired tests over users", columns, rows, ())


def seeds_table(evaluation: Evaluation) -> Grid | None:
    """Models trained with several seeds: mean and spread, then each seed; None where each has one."""
    groups = [entry for entry in evaluation.entries if len(entry.members) > 1]
    if not groups:
        return None
    notes = Notes()
    metrics = [name for name in (evaluation.primary, evaluation.secondary) if name]
    rows: list[Row] = []
    for entry in groups:
        means = [cells.spread(entry.value(name), notes) for name in metrics]
        rows.append(Row(entry.name, "all seeds", "", [Cell(str(len(entry.members))), *means]))
        for member in entry.members:
            seed = "not recorded" if member.seed is None else f"seed {member.seed}"
            own = [member.metrics.get(name, Missing("not evaluated")) for name in metrics]
            rows.append(Row(member.name, "", "", [Cell(seed), *[cells.short(one, notes) for one in own]]))
    columns = ("Seeds", *[numbers.metric_name(name) for name in metrics])
    remarks = [
        "All seeds: mean ± standard deviation of the seeds' means. One seed: mean ± half its interval."
    ]
    return Grid("Seeds", columns, rows, notes.reasons, remarks)


def _verdicts(evaluation: Evaluation) -> dict[str, str] | Missing:
    """Significance letters by the leading metric if all pairs were tested, else each against the best."""
    metric = evaluation.primary
    names = [entry.name for entry in ranked(evaluation)]
    if len(names) < 2:
        return Missing("one model has nothing to differ from")
    tests = {pair: evaluation.test(*pair, metric) for pair in combinations(names, 2)}
    made = {pair: test for pair, test in tests.items() if test is not None}
    if len(made) == len(tests):
        return significance_letters(
            names, [frozenset(pair) for pair, test in made.items() if test.significant]
        )
    against = {other: made[names[0], other] for other in names[1:] if (names[0], other) in made}
    if len(against) < len(names) - 1:
        untested = f"{len(tests) - len(made)} of {len(tests)} pairs were not tested"
        return Missing(f"{untested} by {numbers.metric_name(metric)}, so letters would mislead")
    return {names[0]: _BEST} | {
        other: "below the best" if test.significant else "as the best" for other, test in against.items()
    }


def _verdict_remark(evaluation: Evaluation) -> list[str]:
    verdicts = _verdicts(evaluation)
    if isinstance(verdicts, Missing):
        return []
    how = f"{_tested(evaluation)}, 5 %"
    name = numbers.metric_name(evaluation.primary)
    if _BEST in verdicts.values():
        return [f"Differs: whether a model is significantly below the best one in {name} ({how})."]
    return [f"Differs: models that share a letter do not differ significantly in {name} ({how})."]


def _tested(evaluation: Evaluation) -> str:
    """What the tests are, and for how many p-values are corrected."""
    num_pairs = len({frozenset((test.a, test.b)) for test in evaluation.tests})
    num_metrics = len({test.metric for test in evaluation.tests})
    family = f"{counted(num_pairs, 'pair')} by {counted(num_metrics, 'metric')}"
    seeds = ", a model's seeds averaged" if any(len(one.members) > 1 for one in evaluation.entries) else ""
    return f"paired permutation test over users{seeds}, Holm-corrected for all tests of this evaluation, {family}"


def _gap_remark(evaluation: Evaluation) -> list[str]:
    """When a share of the gap is given; empty without a student."""
    if not any(one.gap_closed for one in evaluation.entries):
        return []
    return [
        "Gap closed: given where the teacher is significantly above the model trained alone by these tests."
    ]


def _describe_entry(entry: Entry) -> str:
    seeds = "" if len(entry.members) == 1 else f"; {len(entry.members)} seeds"
    return describe(entry.first) + seeds


def _test_cells(test: Test) -> list[Cell]:
    better = test.a if test.difference > 0 else test.b
    verdict = f"{better} is better" if test.significant else "no difference shown"
    return [
        Cell(numbers.metric_name(test.metric)),
        Cell(numbers.metric(test.difference, difference=True)),
        Cell(numbers.p_value(test.p)),
        Cell(numbers.p_value(test.p_holm)),
        Cell(verdict),
    ]
