"""Hand-made runs for the tests of the page: every directory as its step writes it, with numbers made up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recdistill.artifacts import step, write_json, write_table

NUM_USERS, NUM_ITEMS = 900, 2400
MEANS = {"teacher": 0.3012, "alone": 0.2451, "student": 0.2801, "popularity": 0.0871}
SIZES = {"teacher": (1_320_000, 5_280_344), "alone": (66_000, 264_344), "student": (66_000, 264_344)}


def make_data(out: Path) -> str:
    """A data directory without tables: the page reads its manifest alone."""
    with step(out, kind="data", options={"split": "random", "ratios": [0.8, 0.1, 0.1]}, seed=0) as job:
        job.summary.update(
            {"users": 1000, "items": NUM_ITEMS, "train": 80_000, "valid": 9_800, "test": 10_100, "rows": 99_900,
             "source": "interactions.parquet"}
        )  # fmt: skip
    return job.hash


def make_model(
    out: Path,
    inputs: Mapping[str, str],
    *,
    dim: int = 20,
    seed: int = 0,
    epochs: int = 40,
    distill: Sequence[Mapping[str, Any]] = (),
    teacher: str | None = None,
    name: str = "bpr",
    best: float = 0.28,
) -> str:
    """A model directory with a history of falling losses and a rising metric."""
    options: dict[str, Any] = {
        "model": {"name": name, "dim": dim},
        "training": {"epochs": 200, "batch_size": 2048, "learning_rate": 0.001, "weight_decay": 5e-7},
    }
    if distill:
        options["distill"] = list(distill)
    with step(out, kind="model", options=options, seed=seed, inputs=inputs) as job:
        terms = [name, *[str(one["method"]) for one in distill]]
        lines = [_epoch(epoch, terms, best, seed) for epoch in range(1, epochs + 1)]
        (job.work / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        job.summary.update({"best_epoch": max(1, epochs - 8), "epochs": epochs, "teacher": teacher})
    return job.hash


def _epoch(epoch: int, terms: Sequence[str], best: float, seed: int) -> dict[str, Any]:
    scale = {"de": 6.0, "rrd": 220.0}
    noise = 0.004 * math.sin(7 * epoch + seed)
    losses = {term: scale.get(term, 0.69) * (0.35 + 0.65 * math.exp(-epoch / 9)) for term in terms}
    metric = best * (1 - 0.9 * math.exp(-epoch / 8)) - max(0, epoch - 32) * 0.0006 + noise
    return {
        "epoch": epoch,
        "loss": sum(losses.values()),
        "losses": losses,
        "metric": {"ndcg@10": metric},
        "rows": 80_000,
        "rows_per_second": 400_000.0,
        "seconds": 0.21,
        "validation_seconds": 0.05,
    }


def estimate(mean: float | None, spread: float | None = None) -> dict[str, Any]:
    """A metric as an evaluation writes it."""
    if mean is None:
        return {"mean": None, "stderr": None, "n": 0, "interval": None}
    entry: dict[str, Any] = {
        "mean": mean,
        "stderr": 0.004,
        "n": NUM_USERS,
        "interval": [mean - 0.0079, mean + 0.0077],
    }
    return entry if spread is None else entry | {"spread": spread, "seeds": 3}


def metrics_of(mean: float, overlap: float | None) -> dict[str, Any]:
    """The metrics of one model around its NDCG@10."""
    found = {
        "recall@10": estimate(mean * 1.1),
        "recall@20": estimate(mean * 1.4),
        "ndcg@10": estimate(mean),
        "mrr@10": estimate(mean * 1.2),
        "tail_recall@20": estimate(mean * 0.4),
        "coverage@10": {"mean": 0.41, "stderr": None, "n": NUM_USERS, "interval": None},
    }
    return found if overlap is None else found | {"overlap@10": estimate(overlap)}


def latency(p50: float) -> list[dict[str, Any]]:
    """Timings of two batch sizes."""
    return [
        {
            "batch": batch, "p50": slow * p50, "p99": 2.1 * slow * p50, "scoring": 0.4 * slow * p50,
            "scoring_p99": 0.5 * slow * p50, "lists": 0.6 * slow * p50, "lists_p99": 1.6 * slow * p50,
            "repeats": 500, "threads": 2,
        }
        for batch, slow in ((1, 1), (256, 31))
    ]  # fmt: skip


def model_entry(path: Path, hash_: str, **changed: Any) -> dict[str, Any]:
    """A model in ``metrics.json``."""
    return {
        "path": str(path), "hash": hash_, "kind": "model", "options": {}, "seed": 0, "teacher": None,
        "num_users": NUM_USERS, "metrics": {}, "parameters": None, "bytes": None, "latency_ms": None,
    } | changed  # fmt: skip


def group_of(model: Mapping[str, Any], members: Sequence[str], gap: Mapping[str, Any]) -> dict[str, Any]:
    """A seed group of models that share one entry."""
    seeds = [0] * len(members)
    return {"members": list(members), "seeds": seeds, "metrics": model["metrics"], "gap_closed": gap}


def make_line(root: Path, *, epochs: int = 40) -> Path:
    """A run folder as ``run`` leaves it: data, teacher, knowledge, alone, student, popularity, evaluation."""
    data = make_data(root / "data")
    bases = {"data": data}
    hashes = {
        "teacher": make_model(root / "teacher", bases, dim=400, best=0.31, epochs=epochs),
        "alone": make_model(root / "alone", bases, best=0.25, epochs=epochs),
        "popularity": make_model(root / "popularity", bases, name="popularity", epochs=1),
    }
    with step(
        root / "knowledge", kind="knowledge", options={"depth": 500, "kinds": ["top_items"]},
        inputs={"data": data, "model": hashes["teacher"]},
    ) as job:  # fmt: skip
        pass
    methods = [{"method": "de", "weight": 0.01, "experts": 30}, {"method": "rrd", "weight": 0.001}]
    hashes["student"] = make_model(
        root / "student", {"data": data, "knowledge": job.hash}, distill=methods, teacher=hashes["teacher"],
        epochs=epochs,
    )  # fmt: skip
    write_evaluation(root / "evaluation", line_metrics(root, data, hashes), {"data": data} | hashes)
    return root


def line_metrics(root: Path, data: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    """The ``metrics.json`` of `make_line`."""
    model = {"name": "bpr", "dim": 20}
    details: dict[str, dict[str, Any]] = {
        "teacher": {"options": {"model": {"name": "bpr", "dim": 400}, "training": {}}},
        "alone": {"options": {"model": model, "training": {}}},
        "student": {
            "options": {"model": model, "training": {}, "distill": [{"method": "de"}, {"method": "rrd"}]},
            "teacher": "teacher",
        },
        "popularity": {"options": {"model": {"name": "popularity"}, "training": {}}},
    }
    speed = {"teacher": 0.83, "alone": 0.42, "student": 0.43, "popularity": 0.31}
    models: dict[str, Any] = {}
    for name, mean in MEANS.items():
        parameters, size = SIZES.get(name, (NUM_ITEMS, 9_712))
        models[name] = model_entry(
            root / name, hashes[name], metrics=metrics_of(mean, 0.55 if name == "student" else None),
            parameters=parameters, bytes=size, latency_ms=latency(speed[name]), **details[name],
        )  # fmt: skip
    gap = {"value": 0.6239, "interval": [0.512, 0.734], "reason": ""}
    groups = {
        name: group_of(model, [name], {"ndcg@10": gap} if name == "student" else {})
        for name, model in models.items()
    }
    names = list(MEANS)
    tests = [
        {"a": a, "b": b, "metric": metric, "difference": MEANS[a] - MEANS[b], "p": 1e-4, "p_holm": 6e-4, "n": NUM_USERS}
        for place, a in enumerate(names)
        for b in names[place + 1 :]
        for metric in ("ndcg@10", "recall@20")
    ]  # fmt: skip
    return header(data) | {
        "models": models,
        "groups": groups,
        "gap_closed": {"student": {"ndcg@10": 0.6239}},
        "gap_closed_reasons": {"student": {}},
        "tests": tests,
        "popularity_groups": {
            "items": [1900, 300, 120, 60, 20],
            "interactions": [16_000, 16_020, 15_990, 15_900, 16_090],
            "targets": [1_200, 1_800, 2_000, 2_300, 2_800],
            "models": {name: {"recall@20": _recalls(mean)} for name, mean in MEANS.items()},
        },
    }


def _recalls(mean: float) -> list[dict[str, Any]]:
    return [{"mean": mean * share, "n": 500} for share in (0.35, 0.8, 1.1, 1.4, 1.9)]


def header(data: str) -> dict[str, Any]:
    """The part of ``metrics.json`` above the models."""
    return {
        "format": 1, "data": data, "split": "test", "protocol": "full", "negatives": None, "k": [10, 20],
        "masked": ["train", "valid"], "history": ["train"], "num_items": NUM_ITEMS,
        "users": {"evaluated": NUM_USERS, "without_targets": 100, "without_train_rows": 0, "masked_targets": 0},
    }  # fmt: skip


def write_evaluation(
    out: Path, metrics: Mapping[str, Any], inputs: Mapping[str, str], options: Mapping[str, Any] | None = None
) -> None:
    """An evaluation directory with that ``metrics.json`` and per-user values around its means."""
    with step(out, kind="evaluation", options=dict(options or {"k": [10, 20]}), seed=0, inputs=inputs) as job:
        write_json(job.work / "metrics.json", metrics)
        draws = np.random.default_rng(0)
        frames = [
            pl.DataFrame({
                "model": [name] * NUM_USERS,
                "user_id": np.arange(NUM_USERS),
                "num_targets": np.full(NUM_USERS, 10),
                "ndcg@10": draws.beta(2, 5, NUM_USERS).round(1) * (model["metrics"]["ndcg@10"]["mean"] or 0),
            })
            for name, model in metrics["models"].items()
            if "ndcg@10" in model["metrics"]
        ]  # fmt: skip
        if frames:
            write_table(job.work / "per_user.parquet", pl.concat(frames))


def make_seeds(root: Path, seeds: int = 3) -> Path:
    """A run folder with several seeds of one student; gap and overlap are null, with their reasons."""
    data = make_data(root / "data")
    members = [f"student-{seed}" for seed in range(seeds)]
    methods = [{"method": "rrd"}]
    hashes = {
        name: make_model(root / name, {"data": data}, seed=seed, epochs=30, teacher="0" * 16, distill=methods)
        for seed, name in enumerate(members)
    }  # fmt: skip
    options = {"model": {"name": "bpr", "dim": 20}, "distill": methods}
    models = {
        name: model_entry(
            root / name, hashes[name], metrics=metrics_of(0.28 + 0.002 * seed, None), parameters=66_000,
            bytes=264_344, options=options, seed=seed,
        )
        for seed, name in enumerate(members)
    }  # fmt: skip
    reason = "its teacher (0000000000000000) is not among the models: add it, or name one with --teacher"
    group = {
        "members": members,
        "seeds": list(range(seeds)),
        "metrics": {name: estimate(one["mean"], 0.0021) for name, one in metrics_of(0.282, None).items()},
        "gap_closed": {"ndcg@10": {"value": None, "interval": None, "reason": reason}},
    }
    metrics = header(data) | {"models": models, "groups": {"student": group}, "tests": []}
    write_evaluation(root / "evaluation", metrics, {"data": data} | hashes)
    return root


OPERATIONS = ("conv3", "max3", "skip", "none")


def search_epochs(
    epochs: int, nodes: Sequence[Sequence[str]], cells: int, most_cells: int, budget: bool = False
) -> list[dict[str, Any]]:
    """The history of a search that comes to favour one operation an edge and one number of cells."""
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        sure = 0.25 + 0.68 * (epoch - 1) / max(epochs - 1, 1)
        rest = (1 - sure) / (len(OPERATIONS) - 1)
        entropy = -sure * math.log(sure) - (1 - sure) * math.log(rest)
        facts: dict[str, float] = {"temperature": 0.9**epoch, "entropy": entropy}
        facts |= {"price megabytes": 0.1 * epoch} if budget else {}
        facts |= {
            f"cells {n}": (0.6 if n == cells else 0.4 / (most_cells - 1)) for n in range(1, most_cells + 1)
        }
        for node, names in enumerate(nodes, start=1):
            for source, taken in enumerate(names):
                facts |= {
                    f"{node}<{source or 'input'} {name}": sure if name == taken else rest
                    for name in OPERATIONS
                }
        losses = {"supernet": 3 / epoch, "adarec": 1 / epoch, "cost-term": 0.1}
        lines.append(
            {
                "epoch": epoch, "loss": sum(losses.values()), "losses": losses, "seconds": 2.0,
                "metric": {"ndcg@10": 0.1},
                "facts": {"adarec": flow_facts(most_cells, 2), "cost-term": facts},
            }
        )  # fmt: skip
    return lines


def flow_facts(student: int, teacher: int) -> dict[str, float]:
    """A plan that moves all of the teacher's layers to the student's first."""
    found = {f"student {n}": 1 / student for n in range(1, student + 1)}
    found |= {f"teacher {n}": 1 / teacher for n in range(1, teacher + 1)}
    return found | {
        f"flow {i}>{j}": 1 / teacher if i == 1 else 0.0
        for i in range(1, student + 1)
        for j in range(1, teacher + 1)
    }


def make_search(
    out: Path,
    inputs: Mapping[str, str],
    *,
    nodes: Sequence[Sequence[str]] = (("conv3",), ("skip", "max3")),
    cells: int = 2,
    variant: str = "searched",
    seed: int = 0,
    epochs: int = 5,
    budget: bool = False,
) -> str:
    """A searched student's directory; a random one has no history of a search."""
    options: dict[str, Any] = {
        "model": {"name": "cellnet", "dim": 4, "max_length": 10},
        "training": {"epochs": 3},
        "search": {"cells": 3, "latency_batch": 1, "max_latency_ms": None, "max_megabytes": 0.5 if budget else None},
        "distill": [{"method": "adarec"}],
        "variant": variant,
    }  # fmt: skip
    takes = {"megabytes": 0.0042} | ({"latency_ms": 0.31} if budget else {})
    found: dict[str, Any] = {
        "architecture": {"nodes": [list(one) for one in nodes]},
        "cells": cells,
        "takes": takes,
    }
    with step(out, kind="model", options=options, seed=seed, inputs=inputs) as job:
        folder = job.work / "search"
        folder.mkdir()
        if variant != "random":
            found |= {"epochs": epochs, "best_epoch": epochs - 1, "seconds_per_epoch": 2.0}
            found["candidates"] = [{"metric": metric} for metric in (0.3, 0.2, 0.1)] if budget else []
            lines = search_epochs(epochs, nodes, cells, 3, budget)
            (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_json(folder / "architecture.json", found)
        training = [_epoch(epoch, ("cellnet", "adarec"), 0.2, seed) for epoch in range(1, 4)]
        for line in training:
            line["facts"] = {"adarec": flow_facts(cells, 2)}
        (job.work / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in training))
        job.summary.update({"best_epoch": 2, "epochs": 3, "parameters": 1050})
    return job.hash


def make_scene(root: Path, source: str, **search: Any) -> Path:
    """A run folder of one data set: data, a teacher, a searched student, an evaluation of both."""
    with step(
        root / "data", kind="data", options={"split": "leave-one-out"}, inputs={"source": source}
    ) as job:
        job.summary.update(
            {"users": 1000, "items": NUM_ITEMS, "train": 80_000, "source": f"sets/{source}.csv"}
        )
    data = {"data": job.hash}
    teacher = make_model(root / "teacher", data, dim=64, best=0.31, epochs=4, name="sasrec")
    searched = make_search(root / "searched", data | {"live": teacher}, **search)
    models = {
        name: model_entry(
            root / name, digest, metrics=metrics_of(mean, None), parameters=size, layer_parameters=size // 10,
            bytes=4 * size, latency_ms=[one | {"encoding": 0.2, "encoding_p99": 0.3} for one in latency(speed)],
        )
        for name, digest, mean, size, speed in (
            ("teacher", teacher, 0.3, 20_000, 1.5), ("searched", searched, 0.25, 1_050, 0.7),
        )
    }  # fmt: skip
    metrics = header(job.hash) | {"models": models, "tests": []}
    write_evaluation(root / "evaluation", metrics, data | {"teacher": teacher, "searched": searched})
    return root
