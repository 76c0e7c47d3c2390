"""Reads an evaluation's ``metrics.json``, and says in one line what is wrong with a damaged one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recdistill.errors import ArtifactError
from recdistill.reporting.numbers import Known, Missing
from recdistill.reporting.results import Entry, Estimate, Evaluation, Latency, Member, PopularityGroup, Test

FORMAT = 1

Json = Mapping[str, Any]

_NO_REASON = "the evaluation recorded no value and no reason"
_PARTS = ("scoring", "scoring_p99", "lists", "lists_p99", "threads", "encoding", "encoding_p99")
_Z95 = 1.96  # standard errors from a normal mean to the ends of its 95 % interval


def read_evaluation(name: str, path: Path, tree: Json) -> Evaluation:
    """Type the content of a ``metrics.json``.

    Args:
        name: what the page calls the evaluation.
        path: the file, for messages.
        tree: its content.

    Raises:
        ArtifactError: a newer format, or something expected is missing or of another type.
    """
    found = tree.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise ArtifactError(f"{path} has format {found}; expected at most {FORMAT}", "upgrade recdistill")
    try:
        return _evaluation(name, tree)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArtifactError(
            f"{path} is damaged or not ours ({type(error).__name__}: {error})",
            "run 'recdistill evaluate' again",
        ) from error


def _evaluation(name: str, tree: Json) -> Evaluation:
    recall = tree.get("popularity_groups", {}).get("models", {})
    members = {key: _member(key, entry, recall.get(key, {})) for key, entry in tree["models"].items()}
    if not members:
        raise ValueError("no models")
    entries = _entries(tree, members)
    if not any(entry.metrics for entry in entries):
        raise ValueError("no metrics")
    # an evaluation without counts still knows the users behind each mean
    fallback = max((entry.get("num_users") or 0 for entry in tree["models"].values()), default=0)
    return Evaluation(
        name=name,
        data=str(tree["data"]),
        split=str(tree["split"]),
        protocol=str(tree["protocol"]),
        negatives=tree.get("negatives"),
        masked=tuple(tree["masked"]),
        history=tuple(tree.get("history", ())),
        sequence_history=tuple(tree.get("sequence_history", ())),
        num_items=int(tree["num_items"]),
        users={"evaluated": fallback, **tree.get("users", {})},
        entries=entries,
        tests=tuple(_test(one) for one in tree.get("tests", ())),
        popularity=_popularity(tree.get("popularity_groups", {})),
    )


def _member(name: str, tree: Json, recall: Json) -> Member:
    kind = str(tree.get("kind", "model"))
    options: Json = tree.get("options") or {}
    size = "stored knowledge has no weights" if kind == "knowledge" else _NO_REASON
    if kind == "knowledge" and options.get("ensemble"):
        size = "an ensemble's size is that of its teachers, and not all of theirs are known"
    timings = tree.get("latency_ms") or ()
    return Member(
        name=name,
        path=str(tree.get("path", "")),
        hash=str(tree.get("hash", "")),
        kind=kind,
        options=options,
        seed=tree.get("seed"),
        teacher=tree.get("teacher"),
        metrics={metric: _estimate(value) for metric, value in tree["metrics"].items()},
        parameters=_known(tree.get("parameters"), size),
        bytes=_known(tree.get("bytes"), size),
        layer_parameters=_known(
            tree.get("layer_parameters"), "its parameters without embeddings are not known"
        ),
        latencies=tuple(_latency(one) for one in ([timings] if isinstance(timings, Mapping) else timings)),
        group_recall={metric: tuple(_recall(one) for one in values) for metric, values in recall.items()},
    )


def _entries(tree: Json, members: Mapping[str, Member]) -> tuple[Entry, ...]:
    """The seed groups; without any recorded, each model by itself."""
    gaps, reasons = tree.get("gap_closed", {}), tree.get("gap_closed_reasons", {})
    if not tree.get("groups"):
        return tuple(
            Entry(name, (member,), member.metrics, _gaps(gaps.get(name, {}), reasons.get(name, {})))
            for name, member in members.items()
        )
    return tuple(
        Entry(
            name=name,
            members=tuple(members[key] for key in group["members"]),
            metrics={metric: _estimate(value) for metric, value in group["metrics"].items()},
            gap_closed=_gaps(group.get("gap_closed", {}), {}),
        )
        for name, group in tree["groups"].items()
    )


def _gaps(values: Json, reasons: Json) -> dict[str, Estimate | Missing]:
    """The share of the gap closed by metric: a number, or a table of value, interval and reason."""
    found: dict[str, Estimate | Missing] = {}
    for metric, entry in values.items():
        table: Json = entry if isinstance(entry, Mapping) else {"value": entry, "reason": reasons.get(metric)}
        low, high = table.get("interval") or (None, None)
        value = table["value"]
        found[metric] = (
            Missing(table.get("reason") or _NO_REASON) if value is None else Estimate(float(value), low, high)
        )
    return found


def _estimate(tree: Json) -> Estimate | Missing:
    mean, stderr = tree["mean"], tree.get("stderr")
    if mean is None:
        return Missing(tree.get("reason") or "no user has a value")
    low, high = tree.get("interval") or (None, None)
    if low is None and stderr is not None:
        low, high = mean - _Z95 * stderr, mean + _Z95 * stderr
    return Estimate(float(mean), low, high, tree.get("n"), tree.get("spread"))


def _latency(tree: Json) -> Latency:
    parts = {name: tree.get(name) for name in _PARTS}
    return Latency(int(tree["batch"]), float(tree["p50"]), float(tree["p99"]), **parts)


def _test(tree: Json) -> Test:
    return Test(
        a=str(tree["a"]),
        b=str(tree["b"]),
        metric=str(tree["metric"]),
        difference=float(tree["difference"]),
        p=float(tree["p"]),
        p_holm=float(tree["p_holm"]),
        n=tree.get("n"),
    )


def _recall(tree: Json) -> Known:
    return _known(tree["mean"], "no user has a target in this group")


def _known(value: Any, reason: str) -> Known:
    return Missing(reason) if value is None else float(value)


def _popularity(tree: Json) -> tuple[PopularityGroup, ...]:
    """The groups, least popular first; each holds about the same number of train interactions."""
    items, interactions, targets = tree.get("items", []), tree.get("interactions", []), tree.get("targets")
    total, asked = max(sum(interactions), 1), max(sum(targets or [0]), 1)
    return tuple(
        PopularityGroup(
            label=_group_label(place, len(items)),
            items=int(number),
            interactions=interactions[place] / total,
            targets=None if targets is None else targets[place] / asked,
        )
        for place, number in enumerate(items)
    )


def _group_label(place: int, groups: int) -> str:
    if place == 0:
        return "tail"
    return "head" if place == groups - 1 else f"group {place + 1}"
