"""What the runs of a comparison took: a row each, and the means of those that differ in seed or split alone."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from recdistill.artifacts import read_manifest
from recdistill.reporting.runs import read_history
from recdistill.steps.search import FOLDER

Json = dict[str, Any]


def describe_run(name: str, split_seed: int, path: Path) -> Json:
    """A run as a row of ``runs.parquet``; its seconds have those of a search before it."""
    manifest = read_manifest(path)
    summary = manifest.summary
    epochs = [*read_history(path / FOLDER), *read_history(path)]
    return {
        "name": name,
        "split_seed": split_seed,
        "seed": manifest.seed,
        "path": str(path),
        "hash": manifest.hash,
        "epochs": summary["epochs"],
        "best_epoch": summary["best_epoch"],
        "best_metric": summary["best_metric"],
        "seconds_per_epoch": summary["seconds_per_epoch"],
        "seconds": sum(epoch.seconds or 0.0 for epoch in epochs),
        "validation_seconds": sum(epoch.validation_seconds or 0.0 for epoch in epochs),
        "parameters": summary["parameters"],
        "bytes": summary["bytes"],
    }


_COSTS = ("seconds_per_epoch", "epochs", "best_epoch", "seconds", "validation_seconds", "parameters", "bytes")


def mean_costs(name: str, runs: list[Json]) -> Json:
    """What a row's runs took, on average."""
    own = [run for run in runs if run["name"] == name]
    return {
        key: {
            "mean": fmean(run[key] for run in own),
            "spread": stdev(run[key] for run in own) if len(own) > 1 else None,
        }
        for key in _COSTS
    } | {"runs": len(own)}


def summed_costs(costs: list[Json], beside: list[Json]) -> Json:
    """What an ensemble took: all of its teachers; and their sizes, with those of the models fitted beside them."""
    summed: Json = {}
    for key in _COSTS:
        sizes = [member[key] for member in beside] if key in ("parameters", "bytes") else []
        summed[key] = {"mean": sum([*(cost[key]["mean"] for cost in costs), *sizes]), "spread": None}
    return summed | {"runs": sum(cost["runs"] for cost in costs)}
