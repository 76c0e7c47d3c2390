"""`tune`: search the options of a model, its methods and its training, by the validation metric alone."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recdistill import artifacts, config
from recdistill.artifacts import Manifest, read_json, read_manifest, write_json, write_table
from recdistill.data.prepared import Data
from recdistill.distillers.base import Objective
from recdistill.errors import ArtifactError, DataError, OptionError
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.models.base import Recommender
from recdistill.progress import Progress, Silent
from recdistill.runfiles import toml_text
from recdistill.steps.distill import make_methods, open_knowledge
from recdistill.steps.extract import extract
from recdistill.steps.fit import make_model, make_training, make_validator, open_data, pick_device
from recdistill.steps.prepare import prepare
from recdistill.steps.train import train
from recdistill.steps.tunefile import Setting, TunePlan, out_of, tune_plan
from recdistill.training import loop

if TYPE_CHECKING:
    import optuna

__all__ = ["TuneResult", "out_of", "tune"]

FORMAT = 1
"""Version of `tuning.json`."""
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
    _optuna()
    tree: Json = (
        json.loads(json.dumps(source)) if isinstance(source, Mapping) else config.load_run_file(source)
    )
    for path, value in (overrides or {}).items():
        config.assign(tree, path, value)
    if seed is not None:
        tree["seed"] = seed
    with nullcontext() if isinstance(source, Mapping) else config.run_file_lines(source):
        plan = tune_plan(tree)
    root, shown = Path(out or plan.out), progress or Silent()
    data, knowledge = _inputs(plan, root, device, force, shown)
    found = _search(plan, data, knowledge, root / "tuning", device, force, shown)
    page = _report(plan, found, root, shown)
    return TuneResult(root, found, root / "tuning" / BEST, page)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise OptionError("tune needs optuna", "pip install 'recdistill[tune]'") from None
    return optuna


def _inputs(
    plan: TunePlan, root: Path, device: str, force: bool, shown: Progress
) -> tuple[Data, TeacherKnowledge | None]:
    """The data, and the teacher's knowledge if something is distilled."""
    common: Json = {"force": force, "progress": shown}
    options = dict(plan.data)
    if "path" in options:
        data = open_data(str(options["path"]))
    else:
        data = prepare(options.pop("source"), root / "data", seed=plan.seed, **options, **common)
    if not plan.setting.methods:
        return data, None
    if plan.knowledge is not None:
        return data, open_knowledge(plan.knowledge, data)
    from recdistill.steps.runtables import split_model

    model, training = split_model(plan.teacher)
    teacher = train(
        data, model, root / "teacher", training=training, seed=plan.seed, device=device, resume=True, **common
    )
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
        for method in make_methods(plan.setting.methods):
            knowledge.require(method.needs, method.method_name())
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
            with _quiet():
                search = _Study(plan, data, knowledge, journal, device, shown)
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


@contextmanager
def _quiet() -> Generator[None]:
    """Optuna's own messages off: progress says what there is to say."""
    import warnings

    logging = _optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=_optuna().exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)


class _Study:
    """The trials, one after the other."""

    def __init__(
        self,
        plan: TunePlan,
        data: Data,
        knowledge: TeacherKnowledge | None,
        journal: Path,
        device: str,
        shown: Progress,
    ) -> None:
        optuna = _optuna()
        self.plan, self.data, self.knowledge, self.shown = plan, data, knowledge, shown
        self.device = pick_device(device)
        self.states = optuna.trial.TrialState
        backend = optuna.storages.journal.JournalFileBackend(str(_mended(journal)))
        self.study: optuna.Study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
            pruner=self._pruner(),
        )
        training = make_training(plan.setting.training)
        self.metric = training.validate_metric
        self.validate = make_validator(data, training)
        for trial in self.study.get_trials(deepcopy=False):  # of a killed run: it is drawn again, the same
            if trial.state == self.states.RUNNING:
                self.study.tell(trial.number, state=self.states.FAIL)

    def _pruner(self) -> optuna.pruners.BasePruner:
        pruners, options = _optuna().pruners, self.plan.options
        if not options.pruning:
            return pruners.NopPruner()
        return pruners.MedianPruner(
            n_startup_trials=options.pruning_trials, n_warmup_steps=options.pruning_epochs
        )

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that came to an end, in order; what was killed does not count."""
        ended = (self.states.COMPLETE, self.states.PRUNED)
        return self.study.get_trials(deepcopy=False, states=ended)

    def run(self) -> None:
        """Trials until there are enough, or no time is left."""
        options, started = self.plan.options, time.monotonic()
        done = len(self.finished())
        if done:
            self.shown.note(f"tune: {done} trials are done already")
        with self.shown.stage("tune", options.trials, "trials") as stage:
            stage.advance(done)
            while done < options.trials:
                if options.timeout is not None and time.monotonic() - started >= options.timeout:
                    self.shown.note(f"tune: no time is left after {done} trials")
                    break
                self._trial(done)
                done += 1
                stage.advance(1, **self._best_shown())

    def _trial(self, number: int) -> None:
        """Ask for values, train, and record what was reached."""
        samplers = _optuna().samplers
        self.study.sampler = samplers.TPESampler(  # new for each trial: a resumed search draws the same
            seed=(self.plan.seed * 1_000_003 + number) % 2**32,
            n_startup_trials=self.plan.options.startup_trials,
        )
        if number == 0 and not self.study.get_trials(deepcopy=False, states=(self.states.WAITING,)):
            self.study.enqueue_trial(self._own_values())
        trial, started = self.study.ask(), time.monotonic()
        values = {(one.component, one.option): one.suggest(trial) for one in self.plan.space}
        setting = self.plan.setting.with_values(values)
        try:
            result = self._train(setting, trial)
            value: float | None = result.best_metric
            trial.set_user_attr("best_epoch", result.best_epoch)
            trial.set_user_attr("epochs", len(result.history))
            trial.set_user_attr("seconds", round(time.monotonic() - started, 3))
            self.study.tell(trial, value)
            reason = ""
        except (loop.TrainingDiverged, OptionError, _Pruned) as error:
            reason = str(error)
            value = error.value if isinstance(error, _Pruned) else None
            trial.set_user_attr("reason", reason)
            trial.set_user_attr("seconds", round(time.monotonic() - started, 3))
            self.study.tell(trial, state=self.states.PRUNED)
        self._say(number, value, reason, time.monotonic() - started)

    def _own_values(self) -> Json:
        """The file's values of what is searched, as far as they lie in the space."""
        known = [(one, self.plan.setting.value(one)) for one in self.plan.space]
        return {one.key: one.label(value) for one, value in known if one.holds(value)}

    def _train(self, setting: Setting, trial: optuna.Trial) -> loop.Result:
        training = make_training(setting.training)
        calls = 0
        best = float("-inf")

        def validate(model: Recommender) -> float:
            nonlocal calls, best
            value = self.validate(model)
            calls += 1
            best = max(best, value)
            epoch = min(calls * training.validate_every, training.epochs)
            trial.report(value, epoch)
            if trial.should_prune():
                raise _Pruned(f"stopped at epoch {epoch}: below the median of the other trials", best)
            return value

        return loop.train(
            make_model(setting.model),
            Objective(make_methods(setting.methods), self.knowledge, setting.base_weight)
            if setting.methods
            else Objective(),
            self.data.train,
            training,
            validate,
            seed=self.plan.seed,
            device=self.device,
        )

    def _best_shown(self) -> dict[str, object]:
        complete = [trial for trial in self.finished() if trial.state == self.states.COMPLETE]
        values = [trial.value for trial in complete if trial.value is not None]
        return {f"best {self.metric}": f"{max(values):.4f}"} if values else {}

    def _say(self, number: int, value: float | None, reason: str, seconds: float) -> None:
        last = self.finished()[-1]
        told = ", ".join(f"{name} {_shown(entry)}" for name, entry in last.params.items())
        reached = "no value" if value is None else f"{value:.4f}"
        why = f"; {reason}" if reason else ""
        self.shown.note(f"trial {number + 1}: {self.metric} {reached}, {seconds:.1f} s: {told}{why}")

    def found(self) -> Json:
        """Everything that the trials found.

        Raises:
            OptionError: none came to a value.
        """
        trials = [self._describe(place, trial) for place, trial in enumerate(self.finished(), start=1)]
        complete = [trial for trial in trials if trial["state"] == "complete"]
        if not complete:
            reasons = [trial["reason"] for trial in trials if trial["reason"]]
            raise OptionError(
                f"none of {len(trials)} trials came to an end", reasons[0] if reasons else "give it more time"
            )
        best = max(complete, key=lambda trial: trial["value"])  # of equal ones the first
        return {
            "format": FORMAT,
            "target": self.plan.options.target,
            "metric": self.metric,
            "seed": self.plan.seed,
            "space": {one.key: one.text() for one in self.plan.space},
            "best": best,
            "first": trials[0],
            "importances": self._importances(len(complete)),
            "trials": trials,
        }

    def _describe(self, place: int, trial: optuna.trial.FrozenTrial) -> Json:
        whole = trial.state == self.states.COMPLETE
        reached = list(trial.intermediate_values.values())
        dimensions = {one.key: one for one in self.plan.space}
        return {
            "number": place,
            "state": "complete" if whole else ("pruned" if reached else "failed"),
            "value": trial.value if whole else (max(reached) if reached else None),
            "best_epoch": trial.user_attrs.get("best_epoch"),
            "epochs": trial.user_attrs.get("epochs") or max(trial.intermediate_values, default=0),
            "seconds": trial.user_attrs.get("seconds"),
            "reason": trial.user_attrs.get("reason", ""),
            "values": {name: dimensions[name].value(entry) for name, entry in trial.params.items()},
        }

    def _importances(self, complete: int) -> dict[str, float]:
        """The share of each option in what separates the best trials from the others (PED-ANOVA)."""
        if complete < 4 or len(self.plan.space) < 2:
            return {}
        importance = _optuna().importance
        try:
            found = importance.get_param_importances(
                self.study, evaluator=importance.PedAnovaImportanceEvaluator()
            )
        except (ValueError, RuntimeError, ZeroDivisionError):  # all values alike
            return {}
        return {name: round(float(share), 4) for name, share in found.items()}


class _Pruned(Exception):
    """A trial that is not worth going on with."""

    def __init__(self, message: str, value: float) -> None:
        super().__init__(message)
        self.value = value


def _mended(journal: Path) -> Path:
    """The journal without a last line that a kill cut short, and without its lock."""
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink()
    if journal.exists():
        text = journal.read_bytes()
        if not text.endswith(b"\n"):
            journal.write_bytes(text[: text.rfind(b"\n") + 1])
    return journal


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
