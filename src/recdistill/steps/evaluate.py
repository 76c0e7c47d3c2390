"""`evaluate`: how well models rank, what they cost, and what distillation won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from recdistill import artifacts, config
from recdistill.artifacts import read_json, write_json, write_table
from recdistill.config import validated
from recdistill.data.prepared import Data
from recdistill.evaluation.candidates import Negatives, evaluation_negatives
from recdistill.evaluation.comparison import MAX_ALL_PAIRS
from recdistill.evaluation.ensembles import with_ensemble_costs
from recdistill.evaluation.latency import Latency, measure
from recdistill.evaluation.lineage import Member, reference_of, seed_groups, teacher_of
from recdistill.evaluation.protocol import Outcome, Task, make_task, rank_all, rank_sampled
from recdistill.evaluation.results import Evaluated, Lineage, num_users, per_user_table, summarise
from recdistill.evaluation.tables import table
from recdistill.models.base import Recommender
from recdistill.progress import Progress, Silent
from recdistill.steps.evaluable import (
    CUT_OFFS,
    NUM_NEGATIVES,
    Evaluable,
    check_member,
    members_of,
    open_member,
)
from recdistill.steps.fit import DataLike, open_data
from recdistill.steps.load import WEIGHTS
from recdistill.wording import counted

__all__ = ["FORMAT", "evaluate", "table"]

FORMAT = 1
"""Version of `metrics.json`."""


@validated
def evaluate(
    data: DataLike,
    models: Evaluable | Sequence[Evaluable] | Mapping[str, Evaluable],
    out: Path | str = "runs/evaluate",
    *,
    protocol: Literal["full", "sampled"] = "full",
    negatives: Annotated[int, Field(ge=1)] = NUM_NEGATIVES,
    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = CUT_OFFS,
    split: Literal["test", "valid"] = "test",
    mask: Literal["default", "seen", "none"] = "default",
    teacher: Path | str | None = None,
    alone: Path | str | None = None,
    latency: bool = True,
    seed: Annotated[int, Field(ge=0)] = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate models on the same users, compare them, and write ``metrics.json`` and ``per_user.parquet``.

    Args:
        data: a prepared data directory.
        models: model or knowledge directories (or models loaded from directories), at least one; a mapping names
            them, else they are called by the last components of their paths.
        out: the evaluation directory to write.
        protocol: ``full`` ranks all items; ``sampled`` each target among ``negatives`` items, which is not
            comparable.
        negatives: candidates drawn once a user by the data's seed, for ``sampled`` alone, at least 1.
        k: cut-offs, each at least 1.
        split: where the targets come from.
        mask: ``seen`` leaves out train (at test also valid) pairs, ``none`` nothing; ``default`` is
            ``seen`` for data in which nobody takes an item twice, else ``none``.
        teacher: the teacher that all are compared with; by default the one in a student's lineage.
        alone: the undistilled model; by default the one of the student's class and options.
        latency: measure milliseconds a request, about a second a model.
        seed: of permutation tests and bootstrap.
        device: where models score: ``auto``, ``cpu`` or ``cuda``.
        force: replace another evaluation in ``out``.
        progress: where stages are shown.

    Returns:
        The content of ``metrics.json``.

    Raises:
        OptionError: an option out of range, more negatives than some user has unobserved items, lists too
            short.
        DataError: no user has a row in the split.
        ArtifactError: something is missing, damaged, or made from other data.
    """
    opened, shown = open_data(data), progress or Silent()
    members, named_teacher, named_alone = members_of(models, teacher, alone)
    for member in members:
        check_member(member, opened, split)
    cut_offs = tuple(sorted(set(k)))
    options: dict[str, Any] = {
        "models": [member.name for member in members],
        "protocol": protocol,
        "negatives": negatives if protocol == "sampled" else None,
        "k": list(cut_offs),
        "split": split,
        "mask": mask,
        "teacher": None if named_teacher is None else named_teacher.name,
        "alone": None if named_alone is None else named_alone.name,
        "latency": latency,
    }
    inputs = {"data": opened.hash} | {f"model:{member.name}": member.manifest.hash for member in members}
    with artifacts.step(
        out, kind="evaluation", options=options, seed=seed, inputs=inputs, force=force
    ) as job:
        if job.reused:
            shown.note(f"{out}: already there, same inputs and options: reused")
        else:
            task = make_task(opened, split, mask, cut_offs)
            lineage = _lineage(members, named_teacher, named_alone)
            _say(task, protocol, members, shown)
            rows = len(seed_groups(members, lineage.teachers))
            if rows > MAX_ALL_PAIRS:
                shown.note(
                    f"{rows} models, seeds of one counted once: this evaluation tests each against the best alone; of"
                    f" {MAX_ALL_PAIRS} at most it tests all pairs"
                )
            drawn = evaluation_negatives(opened, negatives, task.users) if protocol == "sampled" else None
            done = _run(members, opened, task, drawn, lineage, device, latency, shown)
            result = _header(opened, task, protocol, negatives, members) | summarise(
                done, task, lineage, seed
            )
            write_json(job.work / "metrics.json", result)
            write_table(job.work / "per_user.parquet", per_user_table(done, task, opened.users))
            job.summary.update({"models": [member.name for member in members], "num_users": len(task.users)})
    found: dict[str, Any] = read_json(Path(out) / "metrics.json")
    return found


def _lineage(members: Sequence[Member], teacher: Member | None, alone: Member | None) -> Lineage:
    teachers: dict[str, Member | None] = {
        member.name: teacher_of(member, members)
        if teacher is None
        else (None if member in (teacher, alone) else teacher)
        for member in members
    }
    return Lineage(teachers, teacher, alone)


def _sequential(member: Member) -> bool:
    """Whether it is a model that reads histories in order."""
    if member.manifest.kind != "model":
        return False
    model: dict[str, Any] = member.manifest.options["model"]
    return config.find("models", model["name"]).sequential


def _sequence_history(task: Task) -> list[str]:
    return ["train", "valid"] if task.split == "test" else ["train"]


def _history(members: Sequence[Member]) -> list[str]:
    """The splits by which models know users that read no sequences: with valid rows if all were fitted on these."""
    fitted = {member.manifest.on for member in members if not _sequential(member)}
    return list(fitted.pop()) if len(fitted) == 1 else ["train"]


def _say(task: Task, protocol: str, members: Sequence[Member], shown: Progress) -> None:
    without = task.train.num_users - len(task.users)
    masked = " and ".join(task.masked_splits) or "nothing"
    left_out = counted(without, "without one is not counted", "without one are not counted")
    ranked = f"{counted(len(task.users), 'user')} with a {task.split} row; {left_out}"
    shown.note(f"{ranked}; {counted(task.num_cold, 'has', 'have')} no train row")
    if task.num_masked_targets:
        rows = counted(task.num_masked_targets, f"{task.split} row is", f"{task.split} rows are")
        shown.note(f"{rows} masked, and so no targets")
    if task.num_newcomers:
        shown.note(
            f"{counted(task.num_newcomers, 'user')} without train rows: "
            "the last row is the target, the others are their history"
        )
        if alone := task.num_cold - task.num_newcomers:
            shown.note(f"{counted(alone, 'user')} more with one row alone, of whom nothing is known")
    history = " and ".join(_history(members))
    if sequential := [member.name for member in members if _sequential(member)]:
        read = f"{' and '.join(_sequence_history(task))} for {', '.join(sequential)}"
        history = read if len(sequential) == len(members) else f"{read}, {history} for all others"
    shown.note(f"{protocol} ranking, masked: {masked}; history: {history}")
    refitted = [member.name for member in members if "valid" in member.manifest.on]
    if 0 < len(refitted) < len(members):
        shown.note(f"fitted on valid rows too, which the others have not seen: {', '.join(refitted)}")


def _run(
    members: Sequence[Member],
    data: Data,
    task: Task,
    negatives: Negatives | None,
    lineage: Lineage,
    device: str,
    latency: bool,
    shown: Progress,
) -> list[Evaluated]:
    """Evaluate one model after the other, teachers before their students."""
    references = {member.name: reference_of(member, lineage.teachers) for member in members}
    teaching = {reference.name for reference in references.values() if reference is not None}
    done: dict[str, Evaluated] = {}
    # lists that are too short are found before the models are ranked
    stores_first = sorted(members, key=lambda member: member.manifest.kind == "model")
    for member in _references_first(stores_first, references):
        reference = references[member.name]
        with shown.stage(f"evaluate {member.name}", len(task.users), "users") as stage:
            model, ranker = open_member(member, data, task, negatives is not None, device, shown)
            if negatives is not None:
                outcome = rank_sampled(ranker, task, negatives, advance=stage.advance)
            else:
                outcome = rank_all(
                    ranker,
                    task,
                    teacher_lists=None if reference is None else done[reference.name].outcome.lists,
                    keep_lists=member.name in teaching,
                    advance=stage.advance,
                )
        lacking = len(task.users) - num_users(outcome.values)
        if lacking:
            without = counted(lacking, "user has", "users have")
            shown.note(f"{without} no list in {member.name}: its means are over the others")
        timed = measure(model) if latency and model is not None else None
        done[member.name] = _evaluated(member, outcome, reference, model, timed)
    return with_ensemble_costs([done[member.name] for member in members])


def _references_first(members: Sequence[Member], references: Mapping[str, Member | None]) -> list[Member]:
    ordered: list[Member] = []

    def add(member: Member) -> None:
        if member not in ordered:
            reference = references[member.name]
            if reference is not None:
                add(reference)
            ordered.append(member)

    for member in members:
        add(member)
    return ordered


def _evaluated(
    member: Member,
    outcome: Outcome,
    reference: Member | None,
    model: Recommender | None,
    timed: list[Latency] | None,
) -> Evaluated:
    overlaps = any(name.startswith("overlap@") for name in outcome.values)
    compared = reference.name if reference is not None and overlaps else None
    if model is None:
        return Evaluated(member, outcome, compared)
    size = (member.path / WEIGHTS).stat().st_size
    sizes = model.num_parameters(), size, timed, model.num_layer_parameters()
    return Evaluated(member, outcome, compared, *sizes)


def _header(
    data: Data, task: Task, protocol: str, negatives: int, members: Sequence[Member]
) -> dict[str, Any]:
    """The part of `metrics.json` that does not depend on the models."""
    return {
        "format": FORMAT,
        "data": data.hash,
        "split": task.split,
        "protocol": protocol,
        "negatives": negatives if protocol == "sampled" else None,
        "k": list(task.ks),
        "masked": list(task.masked_splits),
        "history": _history(members),
        **({"sequence_history": _sequence_history(task)} if any(map(_sequential, members)) else {}),
        "num_items": task.num_items,
        "users": {
            "evaluated": len(task.users),
            "without_targets": task.train.num_users - len(task.users),
            "without_train_rows": task.num_cold,
            "masked_targets": task.num_masked_targets,
            **({"newcomers": task.num_newcomers} if task.num_newcomers else {}),
        },
    }
