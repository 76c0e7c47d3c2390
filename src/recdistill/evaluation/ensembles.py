"""What an ensemble costs to serve: the sum of its teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recdistill.evaluation.latency import Latency
from recdistill.evaluation.results import Evaluated

_SUMMED = ("p50", "p99", "scoring", "scoring_p99", "lists", "lists_p99")


def with_ensemble_costs(models: Sequence[Evaluated]) -> list[Evaluated]:
    """The same, with sizes and latency of ensembles.

    Sizes are those that the teachers' stores recorded, or of the models themselves where they are evaluated too.
    Latency is the sum of the teachers', one after the other, where all of them are evaluated; the sum of 99th
    percentiles is an upper bound. What a teacher lacks, its ensemble lacks.
    """
    by_hash = {model.member.manifest.hash: model for model in models}
    return [_summed(model, by_hash) for model in models]


def _summed(model: Evaluated, by_hash: Mapping[str, Evaluated]) -> Evaluated:
    told: list[dict[str, Any]] | None = model.member.manifest.summary.get("members")
    if model.member.manifest.kind != "knowledge" or not told:
        return model
    served = [by_hash.get(str(one.get("model"))) for one in told]
    sizes: dict[str, int | None] = {}
    for name in ("parameters", "bytes"):
        each = [
            one.get(name) if one.get(name) is not None or found is None else getattr(found, name)
            for one, found in zip(told, served, strict=True)
        ]
        sizes[name] = None if None in each else sum(int(size or 0) for size in each)
    timed = [found.latency for found in served if found is not None and found.latency]
    latency = _in_turn(timed) if len(timed) == len(told) else None
    return replace(model, parameters=sizes["parameters"], bytes=sizes["bytes"], latency=latency)


def _in_turn(timed: Sequence[Sequence[Latency]]) -> list[Latency]:
    """Batch by batch, the teachers' timings added up."""
    found: list[Latency] = []
    for together in zip(*timed, strict=True):
        first = together[0]
        total: Any = {name: sum(one[name] for one in together) for name in _SUMMED}
        encoding = {
            name: sum(one.get(name, 0.0) for one in together)
            for name in ("encoding", "encoding_p99")
            if any(name in one for one in together)
        }
        repeats = min(one["repeats"] for one in together)
        found.append(
            Latency(batch=first["batch"], **total, **encoding, repeats=repeats, threads=first["threads"])
        )
    return found
