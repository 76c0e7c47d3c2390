"""The rows of a comparison: every student, by every method, from everything that it may learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recdistill import config
from recdistill.errors import OptionError
from recdistill.models.base import Recommender
from recdistill.models.cellnet import CellNet
from recdistill.searching.derivation import space
from recdistill.searching.options import SearchOptions
from recdistill.steps.fit import make_model, make_training
from recdistill.steps.methods import make_methods, preset_names
from recdistill.steps.origins import Origin, check_needs, check_student
from recdistill.steps.runtables import (
    NAME,
    Ensemble,
    alone_of,
    base_weight_of,
    check_keys,
    check_model,
    methods_of,
    names_of,
    split_model,
    table_of,
    tables_of,
)
from recdistill.steps.search import check_search

ALONE = "alone"

Table = dict[str, Any]


@dataclass(frozen=True)
class Teacher:
    """A ``[teacher]``: ``directory`` and ``knowledge`` are the names of its directories in a split's.

    One whose ``origin`` is given is not trained: the first is only its row's name, and the second is not made.
    """

    name: str
    model: Table
    training: Table
    seed: int
    origin: Origin

    @property
    def directory(self) -> str:
        return f"teacher-{self.name}" if self.name else "teacher"

    @property
    def knowledge(self) -> str:
        return f"knowledge-{self.name}" if self.name else "knowledge"


@dataclass(frozen=True)
class Row:
    """A student as a row of the comparison: one model a split and model seed.

    Attributes:
        name: unique in the comparison.
        model, training: what is trained, and how.
        teacher: what it learns from, a teacher or an ensemble; None where it is trained alone.
        methods: what it is distilled with.
        base_weight: weight of its own loss.
        search: how the model's architecture is searched for, with the ``variant``; empty where it is given.
        alone: the row of the same student trained alone; empty for that one itself.
    """

    name: str
    model: Table
    training: Table
    teacher: Teacher | Ensemble | None = None
    methods: tuple[Table, ...] = ()
    base_weight: float = 1.0
    search: Table = field(default_factory=dict[str, Any])
    alone: str = ""

    def directory(self, seed: int) -> str:
        """The name of its model's directory."""
        return f"{self.name}-seed-{seed}"

    @property
    def model_options(self) -> Table:
        """The model without its name."""
        return {key: value for key, value in self.model.items() if key != "name"}

    @property
    def search_options(self) -> Table:
        """The search without its variant."""
        return {key: value for key, value in self.search.items() if key != "variant"}

    @property
    def inherits(self) -> bool:
        """Whether it starts with the weights of its search."""
        init = self.search.get("init", SearchOptions().init)
        return bool(self.search) and self.search["variant"] != "random" and init == "inherit"


def rows_of(
    tree: Mapping[str, Any], teachers: Sequence[Teacher], ensembles: Sequence[Ensemble], alone: Table
) -> tuple[Row, ...]:
    """The rows of a compare file, those trained alone first, with every value checked.

    Args:
        tree: the file.
        teachers, ensembles: of the file.
        alone: what is different with the undistilled students.

    Raises:
        OptionError: the first thing that is wrong.
        MissingKnowledgeError: a method reads what no store of its teacher can hold.
    """
    students = tables_of(tree, "student") or [{}]
    methods = tables_of(tree, "method")
    if not methods:
        raise OptionError(
            "compare file: no [[method]] to compare",
            f'write [[method]] and name = "rrd"; methods: {", ".join(config.names("distillers"))}',
        )
    names = names_of(students, "student")
    if len(students) > 1 and (own := [key for key in alone if key != "training"]):
        raise OptionError(
            f"alone.{own[0]}: there are {len(students)} students, and an evaluation finds the undistilled one of each"
            " by its options",
            "compare one student, or leave it out",
        )
    rows: list[Row] = []
    distilled: list[Row] = []
    for name, student in zip(names, students, strict=True):
        check_model(student, f"student.{name}" if name else "student")
        model, training = split_model(student)
        rows.append(Row(_joined(ALONE, name), *alone_of(alone, model, training)))
        for table in methods:
            if name in _students(table, names):
                distilled += _method_rows(table, name, model, training, teachers, ensembles)
    rows += distilled
    _check_rows(rows, {source.directory for source in (*teachers, *ensembles)})
    return tuple(rows)


def _method_rows(
    table: Table,
    student: str,
    model: Table,
    training: Table,
    teachers: Sequence[Teacher],
    ensembles: Sequence[Ensemble],
) -> list[Row]:
    """One method, for one student and everything that it learns from."""
    name = str(table.get("name") or table.get("preset") or "")
    known = (
        "name", "from", "preset", "distill", "training", "base_weight", "teachers", "students", "search", "model",
    )  # fmt: skip
    for key in set(table) - set(known):
        if name in config.names("distillers") and key in config.option_names(config.find("distillers", name)):
            raise OptionError(
                f"method {name}: '{key}' is an option of the method, not of the row",
                f'write [[method.distill]] below it, with method = "{name}" and {key} = {table[key]!r}',
            )
    check_keys(table, known, "method")
    if not NAME.fullmatch(name):
        raise OptionError(
            f"method.name: expected letters, digits and - _ . +, found '{name}'",
            "it names the row and its directories",
        )
    if len({"from", "preset", "distill"} & set(table)) > 1:
        raise OptionError(f"method {name} has several of from, preset and [[method.distill]]", "give one")
    tuned = _tuned(str(table["from"]), name, model) if "from" in table else {}
    if table.get("preset", "") not in ("", *preset_names()):
        method = table["preset"] in config.names("distillers")
        raise OptionError(
            f"method {name}: no preset '{table['preset']}'",
            f'it is a method: write [[method.distill]] and method = "{table["preset"]}"'
            if method
            else f"presets: {', '.join(preset_names())}",
        )
    parts: Any = methods_of(tuned or table)
    search = _searched(table, name)
    made = make_methods(parts or str(table.get("preset", "adarec" if search else name)))
    resolved: tuple[Table, ...] = tuple({"method": one.method_name(), **one.options} for one in made)
    own = {**training, **table_of(tuned.get("student", {}), "training"), **table_of(table, "training")}
    make_training(own, f"method.{name}.training")
    weight = base_weight_of(table if "base_weight" in table else tuned, name)
    if search:
        model = {"name": CellNet.model_name(), **table_of(table, "model")}
    check_student(made, model, name)
    sources = _sources(table, name, teachers, ensembles)
    for _, teacher in sources:
        if isinstance(teacher, Ensemble):
            check_needs(made, None, name)
        elif not teacher.origin.given:  # what is given is opened before anything is trained
            check_needs(made, teacher.model, name, teacher.origin.live)
    return [
        Row(
            _joined(name, student, shown),
            model,
            own,
            teacher,
            resolved,
            weight,
            search,
            _joined(ALONE, student),
        )
        for shown, teacher in sources
    ]


def _searched(table: Table, name: str) -> Table:
    """The ``[method.search]`` of a row, its values checked; empty where nothing is searched.

    Raises:
        OptionError: a wrong value, or one that a search does not take.
    """
    if "search" not in table:
        if "model" in table:
            raise OptionError(
                f"method {name}: [method.model] is that of a searched student, and nothing is searched",
                "give the student its options, or add [method.search]",
            )
        return {}
    search = {"variant": "searched", **table_of(table, "search")}
    check_search(search["variant"], table_of(table, "model"), f"{name}.model")
    own = {k: v for k, v in search.items() if k != "variant"}
    options = config.build(SearchOptions, own, f"{name}.search")
    space(options.operations, options.causal)
    if "base_weight" in table or "from" in table:
        raise OptionError(f"method {name}: a search takes neither base_weight nor from", "leave them out")
    return search


def _sources(
    table: Table, method: str, teachers: Sequence[Teacher], ensembles: Sequence[Ensemble]
) -> list[tuple[str, Teacher | Ensemble]]:
    """What a method learns from, and how its row shows that: the ensembles, or all teachers where there are none.

    A single one is not shown, but those that ``teachers`` names beside it are.
    """
    usual: Sequence[Teacher | Ensemble] = ensembles or teachers
    known = {source.name: source for source in (*teachers, *ensembles)}
    chosen: Any = table.get("teachers", [source.name for source in usual])
    if not isinstance(chosen, list) or not chosen or any(name not in known for name in chosen):
        raise OptionError(
            f"method {method}: teachers: expected a list of some of {', '.join(name for name in known if name)},"
            f" found {chosen!r}"
        )
    return [
        ("" if len(usual) == 1 and known[name] is usual[0] else name, known[name])
        for name in dict.fromkeys(map(str, chosen))
    ]


def _students(table: Table, known: Sequence[str]) -> list[str]:
    """The students that a method is for: all, or those that ``students`` names."""
    chosen: Any = table.get("students", list(known))
    if not isinstance(chosen, list) or not chosen or any(name not in known for name in chosen):
        raise OptionError(
            f"method {table.get('name', '')}: students: expected a list of names of [[student]] tables"
            f"{': ' if any(known) else ''}{', '.join(filter(None, known))}, found {chosen!r}"
        )
    return [str(name) for name in chosen]


def _tuned(path: str, name: str, model: Table) -> Table:
    """The tables of a ``best.toml``, which must be of a student like ours."""
    tree = config.load_run_file(path)
    if not tables_of(tree, "distill"):
        raise OptionError(f"method {name}: {path} has no [[distill]]", "it must come from tuning a student")
    theirs = make_model(split_model(table_of(tree, "student"))[0])
    ours = make_model(model)
    if (theirs.model_name(), theirs.options) != (ours.model_name(), ours.options):
        raise OptionError(
            f"method {name}: {path} is of {_named(theirs)}, and a student is {_named(ours)}",
            'compare students of that model, or name those in the method: students = ["..."]',
        )
    return tree


def _named(model: Recommender) -> str:
    return " ".join([model.model_name(), *(f"{name}={value}" for name, value in model.options.items())])


def _joined(*names: str) -> str:
    return "-".join(name for name in names if name)


def _check_rows(rows: Sequence[Row], taken: set[str]) -> None:
    """Rows need names of their own, and must differ in more than their names."""
    by_name = set(taken)
    by_content: dict[str, str] = {}
    for row in rows:
        if row.name in by_name:
            raise OptionError(f"two rows are called '{row.name}'", "give the methods other names")
        by_name.add(row.name)
        if row.teacher is None:
            continue
        model, training = make_model(row.model), make_training(row.training)
        content = [
            model.model_name(),
            model.options,
            training.options,
            row.teacher.name,
            row.methods,
            row.search,
        ]
        key = json.dumps([*content, row.base_weight], sort_keys=True)
        if key in by_content:
            raise OptionError(
                f"methods {by_content[key]} and {row.name} are the same", "change an option, or remove one"
            )
        by_content[key] = row.name
