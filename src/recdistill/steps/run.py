"""`run`: the whole line from one TOML file, skipping the steps that are done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill import config
from recdistill.errors import OptionError
from recdistill.progress import Progress, Silent
from recdistill.signatures import did_you_mean
from recdistill.steps.distill import DEFAULT_PRESET, distill
from recdistill.steps.evaluate import evaluate
from recdistill.steps.extract import extract
from recdistill.steps.prepare import prepare
from recdistill.steps.report import report
from recdistill.steps.train import train

_TABLES = ("data", "teacher", "extract", "student", "alone", "distill", "evaluate", "report")
_HANDED = {"data", "model", "models", "methods", "out", "knowledge", "training", "progress", "runs", "force",
           "resume", "device", "seed", "source", "on", "teacher", "alone"}  # fmt: skip


@dataclass
class RunResult:
    """What a run made.

    Attributes:
        out: its directory.
        evaluation: the content of ``evaluation/metrics.json``.
        page: the report.
    """

    out: Path
    evaluation: dict[str, Any]
    page: Path


def run(
    source: Path | str | Mapping[str, Any],
    out: Path | str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Prepare, train a teacher, extract, train a student alone and distilled, evaluate, report.

    Args:
        source: a TOML file, or its content.
        out: the directory for everything; the file's ``out`` by default.
        overrides: values by dotted path, such as ``{"student.dim": 32}``.
        seed: of every step; the file's ``seed`` by default, else 0.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace steps whose options have changed.
        progress: where stages are shown.

    Raises:
        RecdistillError: an unknown key or value, or anything that a step refuses.
    """
    tree = dict(source) if isinstance(source, Mapping) else config.load_run_file(source)
    for path, value in (overrides or {}).items():
        config.assign(tree, path, value)
    with nullcontext() if isinstance(source, Mapping) else config.run_file_lines(source):
        tables = _checked(tree)
    root = Path(out or tree.get("out") or "runs/run")
    number = int(seed if seed is not None else tree.get("seed", 0))
    shown = progress or Silent()
    common: dict[str, Any] = {"force": force, "progress": shown}
    fitting: dict[str, Any] = {**common, "seed": number, "device": device, "resume": True}
    shown.note(f"run: {root}")
    data_options = dict(tables["data"])
    data = prepare(data_options.pop("source"), root / "data", seed=number, **data_options, **common)
    teacher_model, teacher_training = _split(tables["teacher"])
    teacher = train(data, teacher_model, root / "teacher", training=teacher_training, **fitting)
    knowledge = extract(data, teacher, root / "knowledge", device=device, **tables["extract"], **common)
    student_model, training = _split(tables["student"])
    alone_training = {**training, **tables["alone"].get("training", {})}
    alone = train(data, student_model, root / "alone", training=alone_training, **fitting)
    methods = tables["distill"] or DEFAULT_PRESET
    student = distill(data, knowledge, student_model, methods, root / "student", training=training, **fitting)
    found = evaluate(
        data, [teacher, alone, student], root / "evaluation", seed=number, **tables["evaluate"], **common
    )
    page = report([root], root / "report", **tables["report"], **common)
    return RunResult(root, found, page)


def out_of(source: Path | str, out: Path | None) -> Path:
    """The directory that a run file's results go to."""
    return Path(out or config.load_run_file(source).get("out") or "runs/run")


def _split(table: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model's table as ``make_model`` takes it, and its training options."""
    options = dict(table)
    training = dict(options.pop("training", {}))
    options.pop("name", None)
    return {"name": options.pop("model", "bpr"), **options}, training


def _checked(tree: dict[str, Any]) -> dict[str, Any]:
    """All tables, with every key checked before the first step runs."""
    known = (*_TABLES, "out", "seed")
    for key in tree:
        if key not in known:
            raise OptionError(f"run file: no table or key '{key}'", did_you_mean(key, known))
    if isinstance(tree.get("teacher"), list) and len(tree["teacher"]) > 1:
        raise OptionError(
            "run file: several teachers need an ensemble, which this version cannot build", "name one"
        )
    tables: dict[str, Any] = {name: tree.get(name, {}) for name in _TABLES}
    if isinstance(tables["teacher"], list):
        tables["teacher"] = tables["teacher"][0]
    if isinstance(tables["distill"], Mapping):
        tables["distill"] = [tables["distill"]]
    if "source" not in tables["data"]:
        raise OptionError(
            "run file: data.source is missing", "name the interactions, or pass --set data.source=PATH"
        )
    steps: dict[str, Callable[..., Any]] = {
        "data": prepare, "extract": extract, "evaluate": evaluate, "report": report
    }  # fmt: skip
    for name, step in steps.items():
        allowed = [p for p in inspect.signature(step).parameters if p not in _HANDED]
        for key in tables[name]:
            if key not in allowed and (name, key) != ("data", "source"):
                raise OptionError(f"{name}.{key}: unknown option", did_you_mean(key, allowed))
    _check_models(tables)
    return tables


def _check_models(tables: dict[str, Any]) -> None:
    from recdistill.steps.distill import make_methods
    from recdistill.steps.fit import make_model, make_training

    for name in ("teacher", "student"):
        model, training = _split(tables[name])
        make_model(model)
        make_training(training)
    extra = set(tables["alone"]) - {"training"}
    if extra:
        raise OptionError(
            f"alone.{sorted(extra)[0]}: unknown option",
            "alone takes a training table; the rest is the student's",
        )
    make_training(tables["alone"].get("training", {}))
    if tables["distill"]:
        make_methods(tables["distill"])
