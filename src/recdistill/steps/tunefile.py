"""The file of `tune`: what is trained, which options are searched, and how long, checked as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from recdistill import config
from recdistill.config import validated
from recdistill.distillers.base import term_names
from recdistill.errors import OptionError
from recdistill.steps.distill import ObjectiveOptions
from recdistill.steps.methods import DEFAULT_PRESET, make_methods, method_tables
from recdistill.steps.origins import Origin, check_needs, check_student, origin_of
from recdistill.steps.runtables import (
    alone_of,
    base_weight_of,
    check_keys,
    check_model,
    check_source,
    check_step,
    methods_of,
    place_of,
    split_model,
    table_of,
    tables_of,
)
from recdistill.steps.space import Components, Dimension, read_space
from recdistill.training.options import TrainingOptions

Table = dict[str, Any]
Target = Literal["student", "alone", "teacher"]

_TABLES = ("data", "teacher", "extract", "student", "alone", "distill", "evaluate", "report")


class TuneOptions:
    """How to search.

    Args:
        target: what is trained: the distilled ``student``, the student ``alone``, or the ``teacher``.
        trials: how many, those of earlier calls counted, at least 1.
        timeout: seconds after which no further trial starts, above 0; no limit without it.
        startup_trials: drawn at random before the sampler learns from them, at least 1.
        pruning: stop trials that are below the median of the others at the same epoch.
        pruning_trials: finished trials before any is stopped, at least 1.
        pruning_epochs: epochs that every trial may train, at least 0.
    """

    @validated
    def __init__(
        self,
        *,
        target: Target = "student",
        trials: Annotated[int, Field(ge=1)] = 50,
        timeout: Annotated[float, Field(gt=0)] | None = None,
        startup_trials: Annotated[int, Field(ge=1)] = 10,
        pruning: bool = True,
        pruning_trials: Annotated[int, Field(ge=1)] = 5,
        pruning_epochs: Annotated[int, Field(ge=0)] = 10,
    ) -> None:
        self.target: Target = target
        self.trials, self.timeout, self.startup_trials = trials, timeout, startup_trials
        self.pruning, self.pruning_trials, self.pruning_epochs = pruning, pruning_trials, pruning_epochs

    options: dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What one trial trains.

    Attributes:
        model: its table, with ``name``.
        training: its training options.
        methods: tables with ``method``; none where nothing is distilled.
        base_weight: of the model's own loss.
    """

    model: Table
    training: Table
    methods: tuple[Table, ...] = ()
    base_weight: float = 1.0

    def names(self) -> list[str]:
        """The methods' names as keys have them: ``rrd``, ``rrd.2``."""
        return term_names([str(table["method"]) for table in self.methods])

    def components(self) -> Components:
        """What of it can be searched."""
        found: dict[str, tuple[Callable[..., Any], Table]] = {
            "model": (config.find("models", str(self.model["name"])), _without(self.model, "name")),
            "training": (TrainingOptions, self.training),
        }
        for name, table in zip(self.names(), self.methods, strict=True):
            factory = config.find("distillers", str(table["method"]))
            found[name] = (factory, _without(table, "method"))
        if self.methods:
            found["objective"] = (ObjectiveOptions, {"base_weight": self.base_weight})
        return found

    def value(self, dimension: Dimension) -> Any:
        """What it has for a dimension, defaults filled in."""
        factory, options = self.components()[dimension.component]
        return config.resolve(factory, options, dimension.component)[dimension.option]

    def with_values(self, values: Mapping[tuple[str, str], Any]) -> Setting:
        """It with other values, by component and option."""

        def changed(component: str, table: Table) -> Table:
            return table | {option: value for (name, option), value in values.items() if name == component}

        methods = [changed(name, table) for name, table in zip(self.names(), self.methods, strict=True)]
        weight = values.get(("objective", "base_weight"), self.base_weight)
        return Setting(
            changed("model", self.model), changed("training", self.training), tuple(methods), float(weight)
        )


@dataclass(frozen=True)
class TunePlan:
    """Everything that a search does.

    Attributes:
        out: where its results go, as the file has it.
        seed: of the sampler and of every trial.
        data, teacher, extract: their tables; ``data.path`` stands for data that is there already.
        origin: where the teacher's knowledge comes from.
        setting: what is trained, as the file has it.
        space: what is searched.
        options: how.
    """

    out: Path
    seed: int
    data: Table
    teacher: Table
    extract: Table
    origin: Origin
    setting: Setting
    space: list[Dimension]
    options: TuneOptions
    report: Table = field(default_factory=dict[str, Any])


def tune_plan(tree: Mapping[str, Any]) -> TunePlan:
    """Check the content of a tune file and spell out what it asks for.

    Raises:
        OptionError: the first thing in it that is wrong.
    """
    check_keys(tree, (*_TABLES, "out", "seed", "base_weight", "tune", "space"), "tune file")
    out, seed = place_of(tree, "tune")
    options = config.build(TuneOptions, table_of(tree, "tune"), "tune")
    tables = {name: table_of(tree, name) for name in _TABLES if name not in ("distill", "teacher")}
    teachers = tables_of(tree, "teacher") or [{}]
    if len(teachers) > 1:
        raise OptionError("tune file: several teachers, expected one", "remove the others")
    data = tables["data"]
    if "path" not in data:
        check_source(data, "tune file")
    check_step("data", data, ("path",))
    check_step("extract", tables["extract"])
    check_step("evaluate", tables["evaluate"])
    check_step("report", tables["report"])
    origin = origin_of(teachers[0], "teacher", [seed])
    if origin.given and options.target == "teacher":
        raise OptionError("teacher.knowledge: it is no teacher to train", "leave it out")
    check_model(teachers[0], "teacher")
    check_model(tables["student"], "student")
    alone_of(tables["alone"], *split_model(tables["student"]))
    setting = _setting(tree, options.target, teachers[0], tables)
    if setting.methods:
        check_student(make_methods(setting.methods), setting.model)
    if setting.methods and not origin.given:
        check_needs(make_methods(setting.methods), split_model(teachers[0])[0], "distill", origin.live)
    space = read_space(table_of(tree, "space"), setting.components())
    return TunePlan(
        out, seed, data, teachers[0], tables["extract"], origin, setting, space, options, tables["report"]
    )


def _setting(tree: Mapping[str, Any], target: Target, teacher: Table, tables: Mapping[str, Table]) -> Setting:
    model, training = split_model(tables["student"])
    methods = method_tables(methods_of(tree) or DEFAULT_PRESET)
    setting = Setting(model, training, tuple(methods), base_weight_of(tree, "distill"))
    for name, (factory, chosen) in setting.components().items():
        config.resolve(factory, chosen, name)
    if target == "teacher":
        return Setting(*split_model(teacher))
    if target == "alone":
        return Setting(*alone_of(tables["alone"], model, training))
    return setting


def _without(table: Mapping[str, Any], key: str) -> Table:
    return {name: value for name, value in table.items() if name != key}
