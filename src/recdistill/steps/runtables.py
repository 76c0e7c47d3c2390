"""What the files of `run`, `compare` and `tune` share: their tables, checked before anything is made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recdistill import config
from recdistill.data.prepared import Data
from recdistill.data.readers import NoSourceError
from recdistill.errors import OptionError
from recdistill.steps.distill import ObjectiveOptions
from recdistill.steps.ensemble import ensemble
from recdistill.steps.ensembleteachers import models_beside
from recdistill.steps.evaluate import evaluate
from recdistill.steps.extract import extract
from recdistill.steps.fit import make_model, make_training
from recdistill.steps.origins import Origin
from recdistill.steps.prepare import prepare
from recdistill.steps.report import report
from recdistill.wording import did_you_mean

ENSEMBLE = "ensemble"
NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
"""What names of directories look like."""

Directory = Annotated[str, Field(min_length=1)]

_HANDED = {"data", "model", "models", "methods", "out", "knowledge", "training", "progress", "runs", "force",
           "resume", "device", "seed", "source", "on", "teacher", "alone"}  # fmt: skip
_STEPS: dict[str, Callable[..., Any]] = {
    "data": prepare, "extract": extract, "ensemble": ensemble, "evaluate": evaluate, "report": report
}  # fmt: skip


def read_tree(source: Path | str | Mapping[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of a file, with other values in place of its own.

    Args:
        source: a TOML file, or its content, of which a copy is made, in TOML's types.
        overrides: values by dotted path.

    Raises:
        OptionError: the file cannot be read, or a path leads through something that is no table.
    """
    tree = _copy(source) if isinstance(source, Mapping) else config.load_run_file(source)
    for path, value in (overrides or {}).items():
        config.assign(tree, path, value)
    return tree


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def lines_of(source: Path | str | Mapping[str, Any]) -> AbstractContextManager[None]:
    """Add file and line to the option errors of the block, where there is a file."""
    return nullcontext() if isinstance(source, Mapping) else config.run_file_lines(source)


def out_of(file: Path, out: Path | None, overrides: Mapping[str, Any], default: Path) -> Path:
    """Where the results of a file go: ``out``, else where the file or an override says, else ``default``.

    An ``out`` that is wrong is left to the plan to refuse.
    """
    found = out or read_tree(file, overrides).get("out")
    return Path(found) if found and isinstance(found, str | Path) else default


@config.validated
def _place(*, out: Directory, seed: Annotated[int, Field(ge=0)] = 0) -> tuple[str, int]:
    return out, seed


def place_of(tree: Mapping[str, Any], verb: str) -> tuple[Path, int]:
    """The keys ``out`` and ``seed`` of a file, ``runs/VERB`` and 0 where it has none.

    Raises:
        OptionError: one of them has a wrong value.
    """
    given = {key: tree[key] for key in ("out", "seed") if key in tree}
    out, seed = config.build(_place, {"out": f"runs/{verb}", **given}, verb)
    return Path(out), seed


def check_keys(tree: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Refuse a key at the top of a file that is not known.

    Raises:
        OptionError: names the nearest known one.
    """
    for key in tree:
        if key not in known:
            hint = did_you_mean(key, known) or f"known: {', '.join(known)}"
            if key == "training":
                hint = "each model has its own: student.training, teacher.training, alone.training"
            elif key in ("device", "force", "json"):
                hint = f"it is no option of a file: pass --{key}"
            raise OptionError(f"{what}: no table or key '{key}'", hint)


def table_of(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table ``[name]``, empty where there is none.

    Raises:
        OptionError: it is no table.
    """
    found = tree.get(name, {})
    if not isinstance(found, Mapping):
        raise OptionError(f"{name}: expected a table [{name}], found {found!r}")
    return dict(found)


def tables_of(tree: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The tables ``[[name]]``, also where it is written as a single ``[name]``.

    Raises:
        OptionError: something among them is no table.
    """
    found = tree.get(name, [])
    several = found if isinstance(found, list) else [found]
    for entry in several:
        if not isinstance(entry, Mapping):
            raise OptionError(f"{name}: expected tables [[{name}]], found {entry!r}")
    return [dict(entry) for entry in several]


def methods_of(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables ``[[distill]]``.

    Raises:
        OptionError: one of them names no method.
    """
    tables = tables_of(tree, "distill")
    for table in tables:
        if "method" not in table:
            raise OptionError(
                f"distill: a table names no method, it has {', '.join(table) or 'nothing'}",
                "options are those of a [[distill]] with method = NAME; those of a preset cannot be changed",
            )
    return tables


def check_step(name: str, table: Mapping[str, Any], also: Iterable[str] = ()) -> None:
    """Refuse an option that the step behind ``[data]``, ``[extract]``, ``[ensemble]``, ``[evaluate]`` or ``[report]``
    lacks, and a value that it would refuse.

    Args:
        name: the table.
        table: its content.
        also: keys that are allowed beside the step's options.

    Raises:
        OptionError: names the nearest option, or the values allowed.
    """
    allowed = [p for p in inspect.signature(_STEPS[name]).parameters if p not in _HANDED]
    allowed += ["source"] if name == "data" else []
    allowed += also
    for key in table:
        if key not in allowed:
            near = did_you_mean(key, allowed)
            raise OptionError(f"{name}.{key}: unknown option", near or f"{name} has {', '.join(allowed)}")
    config.check_given(_STEPS[name], {k: v for k, v in table.items() if k not in also}, name)


def names_of(tables: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """The names of several teachers or students; a single one needs none, and its name is not shown.

    Raises:
        OptionError: one has no name, or two have the same.
    """
    if len(tables) == 1:
        return [""]
    names = [str(table.get("name", "")) for table in tables]
    for name in names:
        if not NAME.fullmatch(name):
            raise OptionError(f"{what}.name: expected letters, digits and - _ . +, found '{name}'")
    if len(set(names)) < len(names):
        raise OptionError(f"{what}.name: two have the same name, found {', '.join(names)}")
    return names


@dataclass(frozen=True)
class Ensemble:
    """An ``[ensemble]``: teachers whose stores are put together.

    Attributes:
        name: unique among ensembles and teachers.
        teachers: the names of its teachers.
        options: of the step.
    """

    name: str
    teachers: tuple[str, ...]
    options: dict[str, Any]

    @property
    def directory(self) -> str:
        """The name of its store's directory."""
        return self.name if self.name == ENSEMBLE else f"{ENSEMBLE}-{self.name}"


def ensembles_of(tree: Mapping[str, Any], origins: Mapping[str, Origin]) -> tuple[Ensemble, ...]:
    """The ensembles of a file: its ``[ensemble]`` table, or several ``[[ensemble]]`` with a ``name`` each.

    Args:
        tree: the file.
        origins: of its teachers, by name; an ensemble takes all, or those that it names.

    Raises:
        OptionError: an unknown option or teacher, one without a store, or a name that is taken.
    """
    teachers = list(origins)
    found: list[Ensemble] = []
    for table in tables_of(tree, ENSEMBLE):
        check_step(ENSEMBLE, table, ("name", "teachers"))
        options = dict(table)
        name = str(options.pop("name", ENSEMBLE))
        chosen = options.pop("teachers", list(teachers))
        if not NAME.fullmatch(name) or name in (*teachers, *(one.name for one in found)):
            raise OptionError(f"ensemble.name: expected a name of its own, found '{name}'")
        if not isinstance(chosen, list) or not chosen or len(set(map(str, chosen))) < len(chosen):
            raise OptionError(f"ensemble.teachers: expected a list of teachers, each once, found {chosen!r}")
        for teacher in map(str, chosen):
            if teacher not in teachers:
                raise OptionError(
                    f"ensemble.teachers: no teacher '{teacher}'", f"teachers: {', '.join(teachers) or 'one'}"
                )
            if origins[teacher].live:
                raise OptionError(
                    f"ensemble.teachers: {teacher} is read live, and an ensemble puts stores together",
                    "give its store, or name the other teachers",
                )
        beside = [model.model_name() for model in models_beside(options.get("beside", []))]
        if taken := sorted({*beside} & {*map(str, chosen)}):
            raise OptionError(f"ensemble.beside: {taken[0]} is the name of a teacher already")
        weights, number = options.get("weights"), len(chosen) + len(beside)
        if isinstance(weights, list) and len(weights) != number:
            raise OptionError(f"ensemble.weights: expected {number}, one a teacher, found {len(weights)}")
        found.append(Ensemble(name, tuple(map(str, chosen)), options))
    return tuple(found)


def check_source(table: Mapping[str, Any], what: str) -> None:
    """Refuse a ``[data]`` table without a source."""
    if "source" not in table:
        raise OptionError(
            f"{what}: data.source is missing", "name the interactions, or pass --set data.source=PATH"
        )


def prepare_source(source: Any, out: Path, **options: Any) -> Data:
    """Prepare the interactions that a file names.

    Raises:
        NoSourceError: nothing is there, with the option that names another place; or what ``prepare`` raises.
    """
    try:
        return prepare(source, out, **options)
    except NoSourceError as error:
        hint = "pass --set data.source=PATH, or change the file's data.source"
        raise NoSourceError(error.message, hint) from error


def split_model(table: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model's table as ``make_model`` takes it, and its training options."""
    options = dict(table)
    training = dict(options.pop("training", {}))
    options.pop("name", None)
    return {"name": options.pop("model", "bpr"), **options}, training


def check_model(table: Mapping[str, Any], path: str) -> None:
    """Build a model and its training options, for the errors, which call its table ``path``."""
    model, training = split_model(table)
    make_model(model, path)
    make_training(training, f"{path}.training")


def alone_of(
    alone: Mapping[str, Any], model: Mapping[str, Any], training: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The undistilled student, and how it is trained: the student's own, with what ``[alone]`` changes.

    Args:
        alone: the table, model options such as dropout beside ``training``.
        model, training: the student's.

    Raises:
        OptionError: an unknown or wrong option, or one that makes another model of it.
    """
    own = {key: value for key, value in alone.items() if key != "training"}
    for key in ("model", "dim"):
        if key in own:
            raise OptionError(
                f"alone.{key}: the undistilled student is the student itself, trained for itself",
                "alone takes options such as dropout, and a training table",
            )
    changed = {**training, **alone.get("training", {})}
    make_model({**model, **own}, "alone")
    make_training(changed, "alone.training")
    return {**model, **own}, changed


def base_weight_of(table: Mapping[str, Any], path: str) -> float:
    """The key ``base_weight`` of a table, 1 where it has none."""
    given = {key: value for key, value in table.items() if key == "base_weight"}
    return config.build(ObjectiveOptions, given, path).base_weight
