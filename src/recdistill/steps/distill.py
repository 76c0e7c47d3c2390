"""`distill`: a student that learns from its data and from a teacher's knowledge."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recdistill import config
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.distillers.base import Distiller, Objective
from recdistill.distillers.rrd import RRD
from recdistill.errors import OptionError
from recdistill.knowledge.teacher import TeacherKnowledge, live, load_knowledge
from recdistill.models.base import Recommender
from recdistill.progress import Progress, Silent
from recdistill.steps.fit import DataLike, ModelLike, fit, make_model, make_training, open_data
from recdistill.steps.load import check_trained_on, load
from recdistill.steps.origins import check_reads, check_trainable
from recdistill.training.options import TrainingOptions
from recdistill.wording import did_you_mean

DEFAULT_PRESET = "recommended"
LISTS_PRESET = "recommended-lists"

MethodLike = Distiller | str | Mapping[str, Any]


class ObjectiveOptions:
    """The weight that is no method's.

    Args:
        base_weight: of the model's own loss, at least 0.
    """

    @config.validated
    def __init__(self, *, base_weight: Annotated[float, Field(ge=0)] = 1.0) -> None:
        self.base_weight = base_weight


def distill(
    data: DataLike,
    knowledge: TeacherKnowledge | Path | str,
    model: ModelLike = "bpr",
    methods: MethodLike | Sequence[MethodLike] | None = None,
    out: Path | str = "runs/distill",
    *,
    training: TrainingOptions | Mapping[str, Any] | None = None,
    base_weight: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Recommender:
    """Train a student on its own loss plus distillation losses.

    Args:
        data: a prepared data directory.
        knowledge: a teacher's store, or the directory of a model to read live. The student is trained on the splits
            that the teacher was fitted on: one of a refitted teacher on train and valid rows, without validation.
        model: the student: an unbuilt model, its name, or a table of its name and options.
        methods: methods and presets by name, tables with ``method`` and options, or instances; they add up. By default
            the preset ``recommended``, as far as the knowledge goes.
        out: the model directory to write.
        training: how to train.
        base_weight: weight of the student's own loss, at least 0.
        seed: of initialisation and draws.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace another model in ``out``.
        resume: continue an interrupted run.
        progress: where stages are shown.

    Returns:
        The student, loaded from ``out``.

    Raises:
        RecdistillError: bad options or data, missing knowledge, or ``out`` holds something else.
    """
    opened = open_data(data)
    config.build(ObjectiveOptions, {"base_weight": base_weight}, "distill")
    student = make_model(model)
    check_trainable(type(student))
    teacher = knowledge if isinstance(knowledge, TeacherKnowledge) else open_knowledge(knowledge, opened)
    progress = progress or Silent()
    note_teacher(teacher, progress)
    distillers = make_methods(default_methods(teacher, progress) if methods is None else methods)
    check_reads(teacher, distillers)
    inputs, teacher_hash = lineage_of(teacher)
    return fit(
        opened,
        student,
        Objective(distillers, teacher, base_weight),
        make_training(training),
        out,
        distill=[{"method": d.method_name(), **d.options} for d in distillers],
        inputs=inputs,
        lineage={"teacher": teacher_hash},
        on=teacher.on,
        seed=seed,
        device=device,
        force=force,
        resume=resume,
        progress=progress,
    )


def note_teacher(knowledge: TeacherKnowledge, progress: Progress) -> None:
    """Say what is odd about a teacher: users without an order, or that valid rows are no longer held out."""
    if undecided := knowledge.num_undecided():
        progress.note(
            f"the teacher scores all items alike for {undecided:,} of {knowledge.num_users:,} users:"
            " their lists are in the order of the ids"
        )
    if "valid" in knowledge.on:
        progress.note("the teacher was fitted on train and valid rows: so is the student")


def check_validates(on: Sequence[str], what: str) -> None:
    """Refuse a teacher that knows the valid rows for something that chooses by them.

    Args:
        on: the splits that it was fitted on.
        what: chooses, such as "a search".

    Raises:
        OptionError: it was fitted on valid rows too.
    """
    if "valid" in on:
        raise OptionError(
            f"the teacher was fitted on valid rows too, by which {what} chooses",
            "name a teacher of the train rows; then distil what was found from the refitted one",
        )


def lineage_of(knowledge: TeacherKnowledge) -> tuple[dict[str, str], str | None]:
    """What a student is made from, for its manifest, and the hash of the teacher's model.

    Raises:
        OptionError: the knowledge was never written.
    """
    manifest = knowledge.manifest
    if manifest is None:
        raise OptionError("the knowledge has no directory", "pass the path of a store or of a model")
    if manifest.kind == "knowledge":
        return {"knowledge": manifest.hash}, manifest.inputs.get("model")
    return {"live": manifest.hash}, manifest.hash


def default_methods(knowledge: TeacherKnowledge, progress: Progress) -> list[dict[str, Any]]:
    """The preset ``recommended`` as tables, or ``recommended-lists`` where the knowledge has no scores.

    Lists are read to the depth that is stored. What differs from ``recommended`` is said.
    """
    tables = method_tables(DEFAULT_PRESET)
    if (
        any(not made.needs <= knowledge.kinds for made in make_methods(tables))
        and "top_items" in knowledge.kinds
    ):
        progress.note(f"the method is {LISTS_PRESET}: the knowledge has no scores for {DEFAULT_PRESET}")
        tables = method_tables(LISTS_PRESET)
    have = knowledge.list_depth("top_items")
    for table, made in zip(tables, make_methods(tables), strict=True):
        for option in ("depth", "num_interesting") if isinstance(made, RRD) else ("k",):
            wanted = int(made.options[option])
            if have is not None and wanted > have:
                progress.note(f"{table['method']}.{option} is {have}, as deep as the lists are, not {wanted}")
                table[option] = have
    return tables


def open_knowledge(path: Path | str, data: Data) -> TeacherKnowledge:
    """A store, or a model read live, over the users and items of ``data``."""
    manifest = read_manifest(path, kind=("knowledge", "model"))
    if manifest.kind == "knowledge":
        return load_knowledge(path, data)
    check_trained_on(manifest, path, data)
    teacher = live(load(path), data.fitted(manifest.on))
    teacher.manifest = manifest
    return teacher


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    folder = resources.files("recdistill.presets")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def method_tables(methods: MethodLike | Sequence[MethodLike]) -> list[dict[str, Any]]:
    """Presets and names spelled out as tables with ``method`` and options, in order."""
    several = [methods] if isinstance(methods, (str, Mapping, Distiller)) else list(methods)
    tables: list[dict[str, Any]] = []
    for entry in several:
        if isinstance(entry, Distiller):
            tables.append({"method": entry.method_name(), **entry.options})
        elif isinstance(entry, str) and entry.lower().replace("_", "-") in preset_names():
            name = entry.lower().replace("_", "-")
            text = (resources.files("recdistill.presets") / f"{name}.toml").read_text(encoding="utf-8")
            tables.extend(tomllib.loads(text)["distill"])
        else:
            tables.append({"method": entry} if isinstance(entry, str) else dict(entry))
    if not tables:
        raise OptionError("no method to distil with", f"methods: {', '.join(config.names('distillers'))}")
    return tables


def find_method(name: str) -> type[Any]:
    """The class of a method.

    Raises:
        OptionError: no such method; presets are named too.
    """
    wanted, methods, presets = name.lower().replace("_", "-"), config.names("distillers"), preset_names()
    if wanted in methods:
        return config.find("distillers", name)
    near = did_you_mean(wanted, [*presets, *methods])
    raise OptionError(
        f"no method is called '{name}'",
        f"{near} methods: {', '.join(methods)}; presets: {', '.join(presets)}".strip(),
    )


def make_methods(methods: MethodLike | Sequence[MethodLike]) -> list[Distiller]:
    """The distillers that ``methods`` name, in order."""
    made: list[Distiller] = []
    for table in method_tables(methods):
        chosen = dict(table)
        name = str(chosen.pop("method", ""))
        if name.lower().replace("_", "-") in preset_names():
            made.extend(make_methods(name))
            continue
        built = config.build(find_method(name), chosen, name)
        assert isinstance(built, Distiller)
        made.append(built)
    return made
