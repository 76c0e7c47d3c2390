"""The file of `compare`: which data, teachers, students and methods, checked as a whole before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from recdistill import config
from recdistill.errors import OptionError
from recdistill.evaluation.metrics import ACCURACY
from recdistill.steps.comparerows import Row, Table, Teacher, rows_of
from recdistill.steps.origins import origin_of
from recdistill.steps.runtables import (
    NAME,
    Directory,
    Ensemble,
    check_keys,
    check_model,
    check_source,
    check_step,
    ensembles_of,
    names_of,
    split_model,
    table_of,
    tables_of,
)

REFIT = "-refit"
"""What the directories of refitted models end on."""

TESTED = (*ACCURACY, "tail_recall")
"""What may be a column that is tested, at a cut-off."""

_TABLES = ("data", "teacher", "extract", "ensemble", "student", "alone", "method", "evaluate", "report")

_Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


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
    rows = rows_of(tree, teachers, ensembles, tables["alone"])
    if inherited := [row.name for row in rows if refit and row.inherits]:
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
        if name not in TESTED or cut not in map(str, cuts):
            raise OptionError(
                f"compare.metrics: expected {', '.join(TESTED)} at one of evaluate.k = {cuts},"
                f" found '{metric}'"
            )
    return asked
