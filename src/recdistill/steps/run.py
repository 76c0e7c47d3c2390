"""`run`: the whole line from one TOML file, skipping the steps that are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.directories import MANIFEST
from recdistill.errors import OptionError
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.progress import Progress, Silent
from recdistill.steps.distill import check_validates, distill, open_knowledge
from recdistill.steps.ensemble import ensemble
from recdistill.steps.evaluable import check_given, check_rows
from recdistill.steps.evaluate import evaluate
from recdistill.steps.extract import DEPTH as EXTRACTED
from recdistill.steps.extract import extract
from recdistill.steps.methods import make_methods
from recdistill.steps.origins import (
    Origin,
    check_depths,
    check_ensemble,
    check_needs,
    check_reads,
    check_student,
    origin_of,
)
from recdistill.steps.report import report
from recdistill.steps.runtables import (
    alone_of,
    base_weight_of,
    check_keys,
    check_model,
    check_source,
    check_step,
    ensembles_of,
    lines_of,
    methods_of,
    names_of,
    place_of,
    prepare_source,
    read_tree,
    split_model,
    table_of,
    tables_of,
)
from recdistill.steps.train import train

_TABLES = ("data", "teacher", "extract", "ensemble", "student", "alone", "distill", "evaluate", "report")
_REPEATED = ("teacher", "distill", "ensemble")


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
    """Prepare, train teachers, extract, put several together, train a student alone and distilled, evaluate, report.

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
    tree = read_tree(source, overrides)
    with lines_of(source):
        place, own = place_of(tree, "run")
        number = own if seed is None else seed
        tables = _checked(tree, number)
    root = Path(out or place)
    shown = progress or Silent()
    common: dict[str, Any] = {"force": force, "progress": shown}
    fitting: dict[str, Any] = {**common, "seed": number, "device": device, "resume": True}
    shown.note(f"run: {root}")
    data_options = dict(tables["data"])
    data = prepare_source(data_options.pop("source"), root / "data", seed=number, **data_options, **common)
    check_rows(data, tables["evaluate"])
    evaluated, knowledge = _teachers(tables, data, root, fitting, common)
    student_model, training = split_model(tables["student"])
    alone_model, alone_training = alone_of(tables["alone"], student_model, training)
    train(data, alone_model, root / "alone", training=alone_training, **fitting)
    methods = tables["distill"] or None
    fitting |= {"training": training, "base_weight": base_weight_of(tree, "distill")}
    distill(data, knowledge, student_model, methods, root / "student", **fitting)
    models = {**evaluated, "alone": root / "alone", "student": root / "student"}
    named = None if alone_model == student_model else root / "alone"
    found = evaluate(
        data, models, root / "evaluation", seed=number, alone=named, **tables["evaluate"], **common
    )
    page = report([root], root / "report", **tables["report"], **common)
    return RunResult(root, found, page)


def _teachers(
    tables: Mapping[str, Any], data: Data, root: Path, fitting: Mapping[str, Any], common: Mapping[str, Any]
) -> tuple[dict[str, Path], TeacherKnowledge]:
    """Train and extract every teacher that is not given, and put them together.

    Returns:
        what is to be evaluated, and what to learn from.
    """
    evaluated: dict[str, Path] = {}
    learned: dict[str, Path] = {}
    origins: dict[str, Origin] = tables["origins"]
    for origin in origins.values():
        if origin.given:
            path = origin.given_at(fitting["seed"])
            check_validates(read_manifest(path, kind=("knowledge", "model")).on, "a run")
            check_given(data, path, tables["evaluate"])
    for chosen in tables["ensemble"]:
        stores = [origins[name].given_at(fitting["seed"]) for name in chosen.teachers if origins[name].given]
        usual = chosen.options.get("depth", tables["extract"].get("depth", EXTRACTED))
        opened = [open_knowledge(path, data) for path in stores]
        check_ensemble(data, opened, usual, make_methods(tables["distill"]) if tables["distill"] else [])
    learns_from_one = tables["distill"] and not tables["ensemble"]
    for name, origin in origins.items() if learns_from_one else ():
        store = root / (f"knowledge-{name}" if name else "knowledge")
        if not origin.given and not origin.live and not (store / MANIFEST).exists():
            model = split_model(tables["teacher"][name])[0]["name"]
            check_depths(data, model, tables["extract"], EXTRACTED, make_methods(tables["distill"]))
    for name, origin in origins.items():
        called = f"teacher-{name}" if name else "teacher"
        if origin.given:
            learned[name] = evaluated[called] = origin.given_at(fitting["seed"])
            continue
        path = evaluated[called] = root / called
        learned[name] = path if origin.live else root / (f"knowledge-{name}" if name else "knowledge")
        model, training = split_model(tables["teacher"][name])
        train(data, model, path, training=training, **fitting)
        if not origin.live:
            options = {**tables["extract"], "device": fitting["device"], **common}
            extract(data, path, learned[name], **options)
    knowledge = next(iter(learned.values()))
    for chosen in tables["ensemble"]:
        knowledge = root / chosen.directory
        members = {name or "teacher": learned[name] for name in chosen.teachers}
        ensemble(members, knowledge, data=data, **chosen.options, **common)
        evaluated[chosen.directory] = knowledge
    opened = open_knowledge(knowledge, data)
    if tables["distill"]:
        check_reads(opened, make_methods(tables["distill"]))
    return evaluated, opened


def _checked(tree: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """All tables, with every key checked before the first step runs."""
    check_keys(tree, (*_TABLES, "out", "seed", "base_weight"), "run file")
    base_weight_of(tree, "distill")
    tables: dict[str, Any] = {name: table_of(tree, name) for name in _TABLES if name not in _REPEATED}
    teachers = tables_of(tree, "teacher") or [{}]
    tables["teacher"] = dict(zip(names_of(teachers, "teacher"), teachers, strict=True))
    paths = {name: f"teacher.{name}" if name else "teacher" for name in tables["teacher"]}
    origins = {name: origin_of(table, paths[name], [number]) for name, table in tables["teacher"].items()}
    tables["origins"] = origins
    several = len(teachers) > 1 and "ensemble" not in tree
    tables["ensemble"] = ensembles_of({**tree, "ensemble": {}} if several else tree, origins)
    if len(tables["ensemble"]) > 1:
        raise OptionError("ensemble: a run has one ensemble", "compare several with recdistill compare")
    tables["distill"] = methods_of(tree)
    check_source(tables["data"], "run file")
    for name in ("data", "extract", "evaluate", "report"):
        check_step(name, tables[name])
    for name, table in tables["teacher"].items():
        check_model(table, paths[name])
    check_model(tables["student"], "student")
    alone_of(tables["alone"], *split_model(tables["student"]))
    made = make_methods(tables["distill"]) if tables["distill"] else []
    check_student(made, split_model(tables["student"])[0])
    origin = next(iter(origins.values()))
    if tables["ensemble"]:
        check_needs(made, None, "distill")
    elif not origin.given:  # what is given is opened before anything is trained
        check_needs(made, split_model(teachers[0])[0], "distill", origin.live)
    return tables
