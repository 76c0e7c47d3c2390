"""How it was measured, from what, with which options and where: what the page lists under its results."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from recdistill.reporting import numbers
from recdistill.reporting.results import Evaluation
from recdistill.reporting.runs import Collection, Directory

_PACKAGES = (
    "recdistill",
    "torch",
    "numba",
    "numpy",
    "scipy",
    "polars",
    "pyarrow",
    "safetensors",
    "matplotlib",
)


@dataclass(frozen=True)
class Fact:
    """A term and what it is."""

    term: str
    text: str


@dataclass(frozen=True)
class Step:
    """A directory: what it is, what it was made from, and the options it was made with."""

    name: str
    kind: str
    hash: str
    path: str
    inputs: Sequence[Fact]
    facts: Sequence[Fact]
    options: Sequence[str]


def protocol(evaluation: Evaluation, data: Directory | None) -> list[Fact]:
    """What was ranked for whom, what was left out, and how it was counted."""
    items = f"{evaluation.num_items:,}"
    if evaluation.protocol == "full":
        ranked = f"full: all {items} items of the catalogue compete for every user"
    else:
        drawn = "sampled items" if evaluation.negatives is None else f"{evaluation.negatives:,} sampled items"
        ranked = (
            f"{evaluation.protocol}: each target competes with {drawn} of {items}; "
            "not comparable with full ranking"
        )
    masked = " and ".join(evaluation.masked)
    return [
        Fact("Data", _data(evaluation, data)),
        Fact("Split", evaluation.split),
        Fact("Ranking", ranked),
        Fact("Left out of the lists", f"what the user took in {masked}" if masked else "nothing"),
        Fact("Users", _users(evaluation.users)),
        Fact("History read by the models", _history(evaluation)),
        Fact("Equal scores", "ranked by a fixed hash of the item's id, the same for every model"),
        *_definitions(evaluation),
    ]


def _history(evaluation: Evaluation) -> str:
    read = " and ".join(evaluation.history) or "not recorded"
    if not evaluation.sequence_history:
        return read
    return f"{' and '.join(evaluation.sequence_history)} by sequence models, {read} by others"


def _data(evaluation: Evaluation, data: Directory | None) -> str:
    """Where the interactions came from and how many there are, as far as the data's manifest is at hand."""
    if data is None:
        return f"{evaluation.data}; its directory is not at hand, so its source and size are not known"
    summary = data.manifest.summary
    counts = [f"{summary[key]:,} {key}" for key in ("users", "items") if isinstance(summary.get(key), int)]
    rows = [
        f"{name} {summary[name]:,}"
        for name in ("train", "valid", "test")
        if isinstance(summary.get(name), int)
    ]
    told = [f"{summary.get('source', data.name)} ({data.manifest.hash})", " × ".join(counts), ", ".join(rows)]
    return "; ".join(part for part in told if part)


def _users(users: Mapping[str, int]) -> str:
    """The counts of users; those that the evaluation did not record are named."""
    told = [f"{users['evaluated']:,} with a target, each counted once"]
    for key, text in (
        ("without_targets", "without a target, not counted"),
        ("without_train_rows", "of those counted without a train row"),
    ):
        told.append(f"{users[key]:,} {text}" if key in users else f"not recorded: how many {text}")
    if users.get("newcomers"):
        told.append(
            f"{users['newcomers']:,} of these by their last row alone, their other rows being their history"
        )
    if users.get("masked_targets"):
        told.append(
            f"{users['masked_targets']:,} rows of the split are left out of the lists and so no targets"
        )
    return "; ".join(told)


def _definitions(evaluation: Evaluation) -> list[Fact]:
    known = {
        "ndcg": "gain 1 for a target, discounted by log2(rank + 1), over that of the best possible list",
        "recall": "targets in the top k, divided by the number of targets",
        "precision": "targets in the top k, divided by k",
        "hit": "1 where a target is in the top k",
        "mrr": "1 / rank of the first target in the top k, else 0",
        "coverage": "share of the catalogue that is in anybody's top k",
        "tail_recall": "recall among the least popular items: the group called tail",
        "overlap": "share of the teacher's top k that is in the model's",
        "popularity_lift": "mean train count of the recommended items, over that of what the users took",
    }
    found = dict.fromkeys(metric.partition("@")[0] for metric in evaluation.metrics)
    return [Fact(numbers.metric_name(name), known[name]) for name in found if name in known]


def steps(collection: Collection) -> list[Step]:
    """Every directory of the page in the order of making, each after those that it was made from."""
    waiting = sorted(collection.all, key=lambda one: (one.manifest.created, one.name))
    ordered: list[Directory] = []
    while waiting:
        made = {one.manifest.hash for one in ordered}
        unmade = {one.manifest.hash for one in waiting}
        ready = [one for one in waiting if not unmade & set(one.manifest.inputs.values()) - made]
        ordered += ready or waiting
        waiting = [one for one in waiting if one not in ordered]
    return [_step(directory, collection) for directory in ordered]


def _step(directory: Directory, collection: Collection) -> Step:
    manifest = directory.manifest
    # what data were prepared from are files, not a directory that could be at hand
    external = manifest.kind == "data"
    inputs = [
        Fact(name, digest if external else _source(digest, collection))
        for name, digest in manifest.inputs.items()
    ]
    facts = [
        Fact("seed", "none" if manifest.seed is None else str(manifest.seed)),
        Fact("took", numbers.seconds(manifest.seconds)),
        Fact("made", manifest.created[:16].replace("T", " ") + " UTC"),
        Fact("by", f"recdistill {manifest.version}, format {manifest.format}"),
    ]
    options = [f"{name} = {numbers.plain(value)}" for name, value in flat(manifest.options).items()]
    return Step(directory.name, manifest.kind, manifest.hash, str(directory.path), inputs, facts, options)


def _source(digest: str, collection: Collection) -> str:
    found = collection.find(digest)
    return f"{digest} ({found.name})" if found else f"{digest} (not at hand)"


def flat(options: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested options by dotted path; tables in a list count from 1.

    >>> flat({"model": {"dim": 20}, "distill": [{"method": "rrd"}]})
    {'model.dim': 20, 'distill.1.method': 'rrd'}
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            found |= flat(cast("Mapping[str, Any]", value), name)
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in cast("list[object]", value)):
            entries = enumerate(cast("list[object]", value), start=1)
            found |= flat({str(number): entry for number, entry in entries}, name)
        else:
            found[name] = value
    return found


def environment() -> list[Fact]:
    """The machine that this page is made on: versions, processor, cores."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = os.cpu_count()
    count = f"{cores or 'unknown'}" if usable is None or usable == cores else f"{usable} of {cores} usable"
    facts = [
        Fact("Python", platform.python_version()),
        Fact("System", f"{platform.system()} {platform.machine()}"),
        Fact("Processor", _processor()),
        Fact("Cores", count),
    ]
    for package in _PACKAGES:
        try:
            facts.append(Fact(package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            facts.append(Fact(package, "not installed"))
    return facts


def _processor() -> str:
    """The processor's name, which is what latencies depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
