"""The file of `compare`: which data, teachers, students and methods, checked as a whole before the first step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from recdistill import config
from recdistill.errors import OptionError
from recdistill.evaluation.metrics import ACCURACY
from recdistill.models.cellnet import CellNet
from recdistill.searching.options import SearchOptions
from recdistill.steps.distill import make_methods, preset_names
from recdistill.steps.fit import make_model, make_training
from recdistill.steps.origins import Origin, check_needs, check_student, origin_of
from recdistill.steps.runtables import (
    NAME,
    Directory,
    Ensemble,
    base_weight_of,
    check_alone,
    check_keys,
    check_model,
    check_source,
    check_step,
    ensembles_of,
    methods_of,
    names_of,
    split_model,
    table_of,
    tables_of,
)
from recdistill.steps.search import check_search

ALONE = "alone"
REFIT = "-refit"
"""What the directories of refitted models end on."""

_TABLES = ("data", "teacher", "extract", "ensemble", "student", "alone", "method", "evaluate", "report")

_Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
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


@dataclass(frozen=True)
class Plan:
    """Everything a comparison does.

    Attributes:
        out: where its results go, as the file has it.
        seeds, split_seeds: of models, and of the data's splits.
        refit: whether everything is trained again on train and valid rows, for the epochs that were best.
        metrics: the columns of the table; the first one decides the order.
        data, extract, report: options of these steps.
        teachers: at least one.
        ensembles: of them.
        rows: the students, those trained alone first.
        evaluations: options by name; the first one is the table's.
    """

    out: str
    seeds: tuple[int, ...]
    split_seeds: tuple[int, ...]
    refit: bool
    metrics: tuple[str, ...]
    data: Table
    extract: Table
    report: Table
    teachers: tuple[Teacher, ...]
    ensembles: tuple[Ensemble, ...]
    rows: tuple[Row, ...]
    evaluations: Mapping[str, Table]


@config.validated
def _top(
    *,
    out: Directory = "runs/compare",
    seeds: _Seeds = (0,),
    split_seeds: _Seeds = (0,),
    refit: bool = False,
    metrics: tuple[str, ...] = (),
) -> tuple[str, tuple[int, ...], tuple[int, ...], bool, tuple[str, ...]]:
    return out, seeds, split_seeds, refit, metrics


def plan(tree: Mapping[str, Any]) -> Plan:
    """Check the content of a compare file and spell out what it asks for.

    Raises:
        OptionError: the first thing in it that is wrong.
        MissingKnowledgeError: a method reads what no store of its teacher can hold.
    """
    if "distill" in tree:
        raise OptionError(
            "compare file: no table or key 'distill'", "a method's parts are [[method.distill]] tables"
        )
    options = ("out", "seeds", "split_seeds", "refit", "metrics")
    check_keys(tree, (*_TABLES, *options), "compare file")
    given = {key: tree[key] for key in options if key in tree}
    out, seeds, split_seeds, refit, metrics = config.build(_top, given, "compare")
    for name, values in (("seeds", seeds), ("split_seeds", split_seeds)):
        if len(set(values)) < len(values):
            raise OptionError(f"compare.{name}: a seed is named twice, found {list(values)}")
    tables = {name: table_of(tree, name) for name in ("data", "extract", "alone", "report")}
    check_source(tables["data"], "compare file")
    for name in ("data", "extract", "report"):
        check_step(name, tables[name])
    check_alone(tables["alone"])
    evaluations = _evaluations(tables_of(tree, "evaluate"))
    if refit and any(chosen.get("split") == "valid" for chosen in evaluations.values()):
        raise OptionError(
            "evaluate.split is valid, and refit trains on the valid rows", "leave one of them out"
        )
    teachers = _teachers(tables_of(tree, "teacher") or [{}], seeds, split_seeds)
    for teacher in teachers:
        if refit and teacher.origin.given:
            raise OptionError(
                f"compare.refit: teachers are trained again too, and {teacher.origin.given} is given",
                "describe it as a [[teacher]] to train, or leave refit out",
            )
    ensembles = ensembles_of(tree, {teacher.name: teacher.origin for teacher in teachers})
    rows = _rows(tree, teachers, ensembles, tables["alone"].get("training", {}))
    if inherited := [row.name for row in rows if refit and _inherits(row.search)]:
        raise OptionError(
            f"method {inherited[0]}: search.init is inherit, and a refit begins without the search's weights:"
            " the epochs that were best after them are too few",
            'set init = "scratch" in [method.search]',
        )
    return Plan(
        out, seeds, split_seeds, refit, _metrics(metrics, next(iter(evaluations.values()))), tables["data"],
        tables["extract"], tables["report"], teachers, ensembles, rows, evaluations,
    )  # fmt: skip


def _teachers(tables: Sequence[Table], seeds: Sequence[int], splits: Sequence[int]) -> tuple[Teacher, ...]:
    names = names_of(tables, "teacher")
    found: list[Teacher] = []
    for name, table in zip(names, tables, strict=True):
        path = f"teacher.{name}" if name else "teacher"
        options = dict(table)
        origin = origin_of(options, path, splits)
        seed = options.pop("seed", seeds[0])
        if not isinstance(seed, int) or seed < 0:
            raise OptionError(f"teacher.seed: expected a whole number of at least 0, found {seed!r}")
        check_model(options, path)
        model, training = split_model(options)
        if origin.given and len(splits) > 1 and "{split}" not in origin.given:
            raise OptionError(
                f"{path}.knowledge: {origin.given} cannot be of all of the {len(splits)} splits",
                "name one of each with {split}, which stands for the split's seed",
            )
        if origin.given and origin.given in [one.origin.given for one in found]:
            raise OptionError(f"{path}.knowledge: {origin.given} is another teacher's too", "name each once")
        found.append(Teacher(name, model, training, seed, origin))
    return tuple(found)


def _rows(
    tree: Mapping[str, Any], teachers: Sequence[Teacher], ensembles: Sequence[Ensemble], alone: Table
) -> tuple[Row, ...]:
    students = tables_of(tree, "student") or [{}]
    methods = tables_of(tree, "method")
    if not methods:
        raise OptionError(
            "compare file: no [[method]] to compare",
            f'write [[method]] and name = "rrd"; methods: {", ".join(config.names("distillers"))}',
        )
    names = names_of(students, "student")
    rows: list[Row] = []
    distilled: list[Row] = []
    for name, student in zip(names, students, strict=True):
        check_model(student, f"student.{name}" if name else "student")
        model, training = split_model(student)
        rows.append(Row(_joined(ALONE, name), model, {**training, **alone}))
        for table in methods:
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
    known = ("name", "from", "preset", "distill", "training", "base_weight", "teachers", "search", "model")
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
        raise OptionError(
            f"method {name}: no preset '{table['preset']}'", f"presets: {', '.join(preset_names())}"
        )
    parts: Any = methods_of(tuned or table)
    search = _searched(table, name)
    made = make_methods(parts or str(table.get("preset", "adarec" if search else name)))
    resolved: tuple[Table, ...] = tuple({"method": one.method_name(), **one.options} for one in made)
    own = {**training, **table_of(tuned.get("student", {}), "training"), **table_of(table, "training")}
    make_training(own)
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
    config.build(SearchOptions, {k: v for k, v in search.items() if k != "variant"}, f"{name}.search")
    if "base_weight" in table or "from" in table:
        raise OptionError(f"method {name}: a search takes neither base_weight nor from", "leave them out")
    return search


def _inherits(search: Table) -> bool:
    """Whether a row's student starts with the weights of its search."""
    init = search.get("init", SearchOptions().init)
    return bool(search) and search["variant"] != "random" and init == "inherit"


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


def _tuned(path: str, name: str, model: Table) -> Table:
    """The tables of a ``best.toml``, which must be of a student like ours."""
    tree = config.load_run_file(path)
    if not tables_of(tree, "distill"):
        raise OptionError(f"method {name}: {path} has no [[distill]]", "it must come from tuning a student")
    theirs = make_model(split_model(table_of(tree, "student"))[0])
    ours = make_model(model)
    if (theirs.model_name(), theirs.options) != (ours.model_name(), ours.options):
        raise OptionError(
            f"method {name}: {path} is of {theirs.model_name()} {theirs.options},"
            f" the student is {ours.model_name()} {ours.options}",
            "compare students of one model",
        )
    return tree


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


def _evaluations(tables: Sequence[Table]) -> dict[str, Table]:
    """Options by name; several are told apart by their ``name``, or by their protocol."""
    found: dict[str, Table] = {}
    for table in tables or [{}]:
        check_step("evaluate", table, ("name",))
        options = dict(table)
        name = str(options.pop("name", options.get("protocol", "full")))
        if not NAME.fullmatch(name) or name in found:
            raise OptionError(f"evaluate.name: expected a name of its own, found '{name}'")
        found[name] = options
    return found


def _metrics(asked: tuple[str, ...], evaluation: Table) -> tuple[str, ...]:
    """The columns: those asked for, else NDCG@10 and Recall@20 or what is nearest to them."""
    cuts = sorted(int(k) for k in evaluation.get("k", (5, 10, 20)))
    if not asked:
        return (
            f"ndcg@{10 if 10 in cuts else cuts[-1]}",
            f"recall@{20 if 20 in cuts else cuts[-1]}",
        )
    for metric in asked:
        name, _, cut = metric.partition("@")
        if name not in ACCURACY or cut not in map(str, cuts):
            raise OptionError(
                f"compare.metrics: expected {', '.join(ACCURACY)} at one of evaluate.k = {cuts},"
                f" found '{metric}'"
            )
    return asked
