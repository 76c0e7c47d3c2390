"""The trials of a search: optuna draws the values, a journal keeps what they reached."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.data.prepared import Data
from recdistill.distillers.base import Objective
from recdistill.errors import DataError, MissingKnowledgeError, OptionError, OutOfMemoryError, memory_told
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.models.base import Recommender
from recdistill.progress import Progress
from recdistill.steps.fit import make_model, make_training, make_validator, pick_device
from recdistill.steps.methods import make_methods
from recdistill.steps.tunefile import Setting, TunePlan
from recdistill.training import loop
from recdistill.wording import counted

if TYPE_CHECKING:
    import optuna

FORMAT = 1
"""Version of `tuning.json`."""

Json = dict[str, Any]


def require_optuna() -> Any:
    """The module optuna.

    Raises:
        OptionError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise OptionError(
            "tune needs optuna", "pip install 'recdistill[tune]' (from a checkout: pip install '.[tune]')"
        ) from None
    return optuna


@contextmanager
def quiet() -> Generator[None]:
    """Optuna's own messages off: progress says what there is to say."""

    logging = require_optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=require_optuna().exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)


class Study:
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
        optuna = require_optuna()
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
        pruners, options = require_optuna().pruners, self.plan.options
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
            self.shown.note(f"tune: {counted(done, 'trial is', 'trials are')} done already")
        with self.shown.stage("tune", options.trials, "trials") as stage:
            stage.skip(done)
            while done < options.trials:
                if options.timeout is not None and time.monotonic() - started >= options.timeout:
                    self.shown.note(f"tune: no time is left after {counted(done, 'trial')}")
                    break
                self._trial(done)
                done += 1
                stage.advance(1, **self._best_shown())

    def _trial(self, number: int) -> None:
        """Ask for values, train, and record what was reached."""
        samplers = require_optuna().samplers
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
            with memory_told():
                result = self._train(setting, trial)
            value: float | None = result.best_metric
            trial.set_user_attr("best_epoch", result.best_epoch)
            trial.set_user_attr("epochs", len(result.history))
            trial.set_user_attr("seconds", round(time.monotonic() - started, 3))
            self.study.tell(trial, value)
            reason = ""
        except (
            loop.TrainingDiverged, OptionError, DataError, MissingKnowledgeError, OutOfMemoryError, _Pruned
        ) as error:  # fmt: skip
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
                f"none of {counted(len(trials), 'trial')} came to an end",
                reasons[0] if reasons else "give it more time",
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
        importance = require_optuna().importance
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
