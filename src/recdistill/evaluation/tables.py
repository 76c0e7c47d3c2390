"""Results as plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Json = Mapping[str, Any]

DEFAULT_METRICS = ("ndcg@10", "recall@20")


def table(result: Json, metrics: Sequence[str] = DEFAULT_METRICS) -> list[list[str]]:
    """The comparison as rows of text, the header first; a model is a row, the seeds of one model together.

    Args:
        result: what `evaluate` returned.
        metrics: columns; those that the result does not have are left out.

    Returns:
        columns: model, the metrics, share of the gap closed by the first of them, overlap with the teacher,
            parameters,
        bytes, milliseconds for one user. A dash stands for what does not exist.
    """
    groups: Json = result["groups"]
    present = [name for name in metrics if any(name in group["metrics"] for group in groups.values())]
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
