"""Results as plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Json = Mapping[str, Any]

_HEADLINE = {"ndcg": 10, "recall": 20}
"""The columns on accuracy, and their usual cut-offs."""


def table(result: Json, metrics: Sequence[str] | None = None) -> list[list[str]]:
    """The comparison as rows of text, the header first; a model is a row, the seeds of one model together.

    Args:
        result: what `evaluate` returned.
        metrics: columns; those that the result does not have are left out. By default NDCG@10 and Recall@20; either
            at all the result's cut-offs, where that one is not among them.

    Returns:
        columns: model, the metrics, share of the gap closed by the first of them, overlap with the teacher,
            parameters,
        bytes, milliseconds for one user. A dash stands for what does not exist.
    """
    groups: Json = result["groups"]
    present = _present(result, metrics)
    overlap = _overlap_key(result)
    header = ["model", *[_title(name) for name in present], "gap closed"]
    header += [_title(overlap)] if overlap else []
    rows = [[*header, "parameters", "bytes", "ms a user"]]
    for name, group in groups.items():
        members = [result["models"][member] for member in group["members"]]
        row = [name if len(members) == 1 else f"{name} ({len(members)} seeds)"]
        row += [_value(group["metrics"].get(metric)) for metric in present]
        gap = group["gap_closed"].get(present[0], {}).get("value") if present else None
        row.append("–" if gap is None else f"{100 * gap:.0f} %")
        if overlap:
            row.append(_value(group["metrics"].get(overlap)))
        row += [_count(_mean(member[key] for member in members)) for key in ("parameters", "bytes")]
        latency = _mean(
            member["latency_ms"][0]["p50"] if member["latency_ms"] else None for member in members
        )
        rows.append([*row, "–" if latency is None else f"{latency:.2f}"])
    return rows


def gap_notes(result: Json) -> list[str]:
    """Why models have no share of the gap in :func:`table` though they learnt from a teacher, one line a reason."""
    metrics = _present(result, None)
    if not metrics:
        return []
    groups = result["groups"].items()
    return no_gap_closed({name: group["gap_closed"].get(metrics[0]) for name, group in groups}, "value")


def no_gap_closed(shares: Mapping[str, Json | None], key: str) -> list[str]:
    """Why models have no share of the gap though they learnt from a teacher, one line a reason.

    Args:
        shares: of each model; nothing for one that learnt from none.
        key: where a share stands, beside its ``reason``.
    """
    reasons: dict[str, list[str]] = {}
    for name, share in shares.items():
        if share and share[key] is None:
            reasons.setdefault(str(share.get("reason") or "no value"), []).append(name)
    return [f"no gap closed for {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _present(result: Json, metrics: Sequence[str] | None) -> list[str]:
    """Those of the metrics that the result has; by default the headline's."""
    if metrics is None:
        cuts: list[int] = list(result["k"])
        metrics = [
            f"{name}@{k}"
            for name, usual in _HEADLINE.items()
            for k in ([usual] if usual in cuts else sorted(cuts))
        ]
    found = [group["metrics"] for group in result["groups"].values()]
    return [name for name in metrics if any(name in values for values in found)]


def _overlap_key(result: Json) -> str | None:
    keys = [f"overlap@{k}" for k in result["k"]]
    found = [key for key in keys if any(key in group["metrics"] for group in result["groups"].values())]
    return "overlap@10" if "overlap@10" in found else found[-1] if found else None


def _title(metric: str) -> str:
    name, at, cut = metric.partition("@")
    return f"{name.upper() if name in ('ndcg', 'mrr') else name.replace('_', ' ').capitalize()}{at}{cut}"


def _value(entry: Json | None) -> str:
    if entry is None or entry["mean"] is None:
        return "–"
    spread = entry.get("spread")
    return f"{entry['mean']:.4f}" if spread is None else f"{entry['mean']:.4f} ± {spread:.4f}"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
