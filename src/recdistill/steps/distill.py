"""`distill`: a student that learns from its data and from a teacher's knowledge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recdistill import config
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.distillers.base import Distiller, Objective
from recdistill.errors import OptionError
from recdistill.knowledge.teacher import TeacherKnowledge, live, load_knowledge
from recdistill.models.base import Recommender
from recdistill.progress import Progress, Silent
from recdistill.steps.fit import DataLike, ModelLike, fit, make_model, make_training, open_data
from recdistill.steps.load import check_trained_on, load
from recdistill.steps.methods import MethodLike, make_methods
from recdistill.steps.origins import check_reads, check_trainable
from recdistill.steps.recipe import default_methods, with_beside
from recdistill.training.options import TrainingOptions


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
    beside: str | None = None,
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
        beside: a model that is fitted at once, such as ``itemknn``, whose lists are put together with the teacher's; or
            ``none``. By default ItemKNN, where no method is named, the teacher has a store, and the valid rows are
            ranked better by both.
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
    note_undecided(teacher, progress)
    if methods is None or beside is not None:
        teacher = with_beside(teacher, opened, beside, progress)
    distillers = make_methods(default_methods(teacher, progress) if methods is None else methods)
    check_reads(teacher, distillers)
    note_teacher(teacher, distillers, progress)
    inputs, teacher_hash = lineage_of(teacher)
    return fit(
        opened,
        student,
        Objective(distillers, teacher, base_weight),
        make_training(training),
        out,
        distill=[{"method": d.method_name(), **d.options} for d in distillers],
        beside=teacher.beside,
        inputs=inputs,
        lineage={"teacher": teacher_hash},
        on=teacher.on,
        seed=seed,
        device=device,
        force=force,
        resume=resume,
        progress=progress,
    )


def note_undecided(knowledge: TeacherKnowledge, progress: Progress) -> None:
    """Say for how many users the teacher has no order."""
    if undecided := knowledge.num_undecided():
        order = "as the store has it" if knowledge.elsewhere is not None else "that of the ids"
        progress.note(
            f"the teacher scores all items alike for {undecided:,} of {knowledge.num_users:,} users: the order of"
            f" their lists is {order}, and methods that read scores learn nothing of them"
        )


def note_teacher(knowledge: TeacherKnowledge, methods: Sequence[Distiller], progress: Progress) -> None:
    """Say what is odd about what is learnt from: lists that are empty or have no order, valid rows not held out.

    Args:
        knowledge: the teacher's.
        methods: what reads it.
        progress: where it is said.
    """
    for kind, of in (("top_items", "users"), ("top_users", "items")):
        read = any(kind in method.needs for method in methods)
        if read and (empty := knowledge.num_unlisted(kind)):
            progress.note(
                f"{empty:,} of {knowledge.num_rows(kind):,} {of} have no list: nothing is learnt of them from lists"
            )
    read = any("top_users" in method.needs for method in methods)
    if read and (undecided := knowledge.num_undecided("top_users")):
        progress.note(
            f"the teacher scores all users alike for {undecided:,} of {knowledge.num_items:,} items: nothing is learnt"
            " of the order of their users"
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


def open_knowledge(path: Path | str, data: Data) -> TeacherKnowledge:
    """A store, or a model read live, over the users and items of ``data``."""
    manifest = read_manifest(path, kind=("knowledge", "model"))
    if manifest.kind == "knowledge":
        return load_knowledge(path, data)
    check_trained_on(manifest, path, data)
    teacher = live(load(path), data.fitted(manifest.on))
    teacher.manifest = manifest
    return teacher
