"""`tune`: search the options of a model, its methods and its training, by the validation metric alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recdistill import artifacts
from recdistill.artifacts import Manifest, read_json, read_manifest, write_json, write_table
from recdistill.data.prepared import Data
from recdistill.directories import MANIFEST
from recdistill.errors import ArtifactError, DataError
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.progress import Progress, Silent
from recdistill.runfiles import toml_text
from recdistill.steps.distill import check_validates, note_teacher, note_undecided, open_knowledge
from recdistill.steps.extract import DEPTH as EXTRACTED
from recdistill.steps.extract import extract
from recdistill.steps.fit import open_data
from recdistill.steps.methods import make_methods
from recdistill.steps.origins import check_depths, check_reads
from recdistill.steps.runtables import lines_of, prepare_source, read_tree, split_model
from recdistill.steps.train import train
from recdistill.steps.trials import Study, quiet, require_optuna
from recdistill.steps.tunefile import TunePlan, tune_plan

__all__ = ["TuneResult", "tune"]

JOURNAL = "journal.log"
"""Optuna's own file of trials."""
BEST = "best.toml"

Json = dict[str, Any]


@dataclass
class TuneResult:
    """What a search found.

    Attributes:
        out: its directory.
        tuning: the content of ``tuning/tuning.json``.
        best: ``tuning/best.toml``, tables for a run file, or for ``from`` in a compare file.
        page: the report.
    """

    out: Path
    tuning: Json
    best: Path
    page: Path


def tune(
    source: Path | str | Mapping[str, Any],
    out: Path | str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> TuneResult:
    """Search options by the validation metric; test rows are never opened.

    The first trial has the file's own values. Trials train in memory; what they reached is in a journal, so
    that the same call goes on after a kill with the trial that was interrupted, and with more trials if the
    file asks for more. Trial n depends on the seed and the n − 1 before it, and not on interruptions.

    Args:
        source: a TOML file, or its content.
        out: the directory for everything; the file's ``out`` by default.
        overrides: values by dotted path, such as ``{"tune.trials": 20}``.
        seed: of the sampler and of every trial; the file's ``seed`` by default, else 0.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace a search of another space.
        progress: where stages and trials are shown.

    Raises:
        OptionError: optuna is not installed, an unknown key or value, or no trial came to an end.
        RecdistillError: anything that a step refuses.
    """
    require_optuna()
    tree = read_tree(source, overrides)
    if seed is not None:
        tree["seed"] = seed
    with lines_of(source):
        plan = tune_plan(tree)
    root, shown = Path(out or plan.out), progress or Silent()
    data, knowledge = _inputs(plan, root, device, force, shown)
    found = _search(plan, data, knowledge, root / "tuning", device, force, shown)
    page = _report(plan, found, root, shown)
    return TuneResult(root, found, root / "tuning" / BEST, page)


def _inputs(
    plan: TunePlan, root: Path, device: str, force: bool, shown: Progress
) -> tuple[Data, TeacherKnowledge | None]:
    """The data, and the teacher's knowledge if something is distilled."""
    common: Json = {"force": force, "progress": shown}
    options = dict(plan.data)
    if "path" in options:
        data = open_data(str(options["path"]))
    else:
        data = prepare_source(options.pop("source"), root / "data", seed=plan.seed, **options, **common)
    if not plan.setting.methods:
        return data, None
    if plan.origin.given:
        return data, open_knowledge(plan.origin.given_at(plan.seed), data)
    model, training = split_model(plan.teacher)
    if not plan.origin.live and not (root / "knowledge" / MANIFEST).exists():
        check_depths(data, model["name"], plan.extract, EXTRACTED, make_methods(plan.setting.methods))
    fitting: Json = {"seed": plan.seed, "device": device, "resume": True, **common}
    teacher = train(data, model, root / "teacher", training=training, **fitting)
    if plan.origin.live:
        return data, open_knowledge(root / "teacher", data)
    return data, extract(data, teacher, root / "knowledge", device=device, **plan.extract, **common)


def _search(
    plan: TunePlan,
    data: Data,
    knowledge: TeacherKnowledge | None,
    out: Path,
    device: str,
    force: bool,
    shown: Progress,
) -> Json:
    """The trials that are left, and everything that they found."""
    if not data.valid.num_pairs:
        raise DataError("the data has no valid rows to tune on", "prepare it with a valid split")
    if knowledge is not None:  # what is missing is said before the first trial
        methods = make_methods(plan.setting.methods)
        check_reads(knowledge, methods)
        check_validates(knowledge.on, "tuning")
        note_undecided(knowledge, shown)
        note_teacher(knowledge, methods, shown)
    options: Json = {
        **{k: v for k, v in plan.options.options.items() if k not in ("trials", "timeout")},
        "model": plan.setting.model,
        "training": plan.setting.training,
        "distill": list(plan.setting.methods),
        "base_weight": plan.setting.base_weight,
        "space": {dimension.key: dimension.text() for dimension in plan.space},
    }
    inputs = {"data": data.hash}
    if knowledge is not None and knowledge.manifest is not None:
        inputs["knowledge"] = knowledge.manifest.hash
    done = _done(out, artifacts.fingerprint("tuning", options, plan.seed, inputs))
    extend = done is not None and int(done.summary["trials"]) < plan.options.trials
    with artifacts.step(
        out, kind="tuning", options=options, seed=plan.seed, inputs=inputs, force=force or extend, resume=True
    ) as job:
        if job.reused:
            shown.note(f"{out}: already there, same inputs and options: reused")
        else:
            journal = job.work / JOURNAL
            if extend and not journal.exists():
                shutil.copy2(out / JOURNAL, journal)
            with quiet():
                search = Study(plan, data, knowledge, journal, device, shown)
                search.run()
                found = search.found()
            write_json(job.work / "tuning.json", found)
            (job.work / BEST).write_text(_best_toml(plan, found, out), encoding="utf-8")
            write_table(job.work / "trials.parquet", _trial_table(plan, found))
            job.summary.update(
                trials=len(found["trials"]), best=found["best"]["value"], metric=found["metric"]
            )
    return read_json(out / "tuning.json")


def _done(out: Path, digest: str) -> Manifest | None:
    """The manifest of the same search, if it is there already."""
    try:
        found = read_manifest(out, kind="tuning")
    except ArtifactError:
        return None  # nothing there, or something that the step will refuse by name
    return found if found.hash == digest else None


def _trial_table(plan: TunePlan, found: Json) -> pl.DataFrame:
    """A row a trial; an option is a column of its full name, lists and the like as JSON."""
    rows: list[Json] = []
    for trial in found["trials"]:
        values = {one.key: one.label(trial["values"].get(one.key)) for one in plan.space}
        rows.append({key: value for key, value in trial.items() if key != "values"} | values)
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def _best_toml(plan: TunePlan, found: Json, out: Path) -> str:
    """The best trial's setting as tables of a run file."""
    best = found["best"]
    pairs = {(one.component, one.option): best["values"][one.key] for one in plan.space}
    setting = plan.setting.with_values(pairs)
    model = {"model": setting.model["name"], **{k: v for k, v in setting.model.items() if k != "name"}}
    target = plan.options.target
    tree: Json = {}
    if setting.base_weight != 1.0:
        tree["base_weight"] = setting.base_weight
    if target == "alone":
        tree |= {"student": model, "alone": {"training": setting.training}}
    else:
        tree[target] = {**model, "training": setting.training}
    if setting.methods:
        tree["distill"] = list(setting.methods)
    reached = f"{found['metric']} {best['value']:.4f} on valid rows, epoch {best['best_epoch']}"
    head = f"# trial {best['number']} of {len(found['trials'])} in {out}: {reached}"
    return f"{head}\n{toml_text(tree)}"


def _report(plan: TunePlan, found: Json, root: Path, shown: Progress) -> Path:
    """``report/report.html``; it is made again where there are more trials."""
    from recdistill.reporting.charts import can_draw
    from recdistill.reporting.tuning import render_tuning

    out = root / "report"
    tuning = read_manifest(root / "tuning")
    options: Json = {
        "title": plan.report.get("title"), "charts": can_draw(), "trials": len(found["trials"])
    }  # fmt: skip

    def write(force: bool) -> None:
        with artifacts.step(
            out, kind="report", options=options, inputs={"tuning": tuning.hash}, force=force
        ) as job:
            if not job.reused:
                best = (root / "tuning" / BEST).read_text(encoding="utf-8")
                page = render_tuning(found, best, options["title"])
                (job.work / "report.html").write_text(page, encoding="utf-8")
                job.summary["bytes"] = len(page)

    try:
        write(False)
    except ArtifactError:
        write(True)
    del shown
    return out / "report.html"
