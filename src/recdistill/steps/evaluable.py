"""What `evaluate` can rank by: models and stores, opened, or refused before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, OptionError
from recdistill.evaluation.candidates import evaluation_negatives
from recdistill.evaluation.lineage import Member, unique_names
from recdistill.evaluation.protocol import Task, make_task
from recdistill.evaluation.rankers import ListRanker, Ranker, StateRanker, model_ranker
from recdistill.knowledge.teacher import load_knowledge
from recdistill.models.base import Recommender
from recdistill.progress import Progress, Silent
from recdistill.steps.fit import pick_device
from recdistill.steps.load import load

CUT_OFFS = (5, 10, 20)
"""Cut-offs of an evaluation by default."""

NUM_NEGATIVES = 499
"""Candidates of a sampled evaluation by default."""

Evaluable = Recommender | Path | str


def check_rows(data: Data, options: Mapping[str, Any]) -> None:
    """Refuse, before anything is trained, an evaluation for which these data have no rows or too few candidates.

    Args:
        data: the prepared data.
        options: of ``evaluate``.

    Raises:
        DataError: no user has a row in the split.
        OptionError: more negatives than some user has unobserved items.
    """
    task = _task(data, options)
    if options.get("protocol") == "sampled":
        evaluation_negatives(data, options.get("negatives", NUM_NEGATIVES), task.users)


def _task(data: Data, options: Mapping[str, Any]) -> Task:
    cut_offs = tuple(sorted(set(options.get("k", CUT_OFFS))))
    return make_task(data, options.get("split", "test"), options.get("mask", "default"), cut_offs)


def check_given(data: Data, path: Path, options: Mapping[str, Any]) -> None:
    """Refuse a store or a model that ``evaluate`` could not rank by, before anything is trained.

    Args:
        data: the prepared data.
        path: its directory.
        options: of ``evaluate``.

    Raises:
        RecdistillError: it is damaged, of other data, or its lists are shorter than the metrics read.
    """
    member = Member(path.name, path, read_manifest(path, kind=("knowledge", "model")))
    made_from = member.manifest.inputs.get("data")
    if made_from != data.hash:
        raise ArtifactError(
            f"{path} was made from data {made_from}, not from {data.hash} at {data.path}",
            "make it again from this data, or set the options and the seed of the data that it was made from",
        )
    check_member(member, data, options.get("split", "test"))
    if member.manifest.kind == "model":
        return
    _store_ranker(member, data, _task(data, options), options.get("protocol") == "sampled", Silent())


def members_of(
    models: Evaluable | Sequence[Evaluable] | Mapping[str, Evaluable],
    teacher: Path | str | None,
    alone: Path | str | None,
) -> tuple[list[Member], Member | None, Member | None]:
    """Everything to evaluate, each directory once, and those named as teacher and undistilled model."""
    called: dict[Path, str] = {}
    if isinstance(models, Mapping):
        called = {_path(model).resolve(): name for name, model in models.items()}
        models = list(models.values())
    given = [models] if isinstance(models, Recommender | Path | str) else list(models)
    if not given:
        raise OptionError("no model to evaluate", "name at least one model or knowledge directory")
    paths = [_path(model) for model in given]
    named = [None if path is None else Path(path) for path in (teacher, alone)]
    distinct: dict[Path, Path] = {}
    for path in (*paths, *named):
        if path is not None:
            distinct.setdefault(path.resolve(), path)
    ordered = list(distinct.values())
    members = [
        Member(called.get(path.resolve(), name), path, read_manifest(path, kind=("model", "knowledge")))
        for name, path in zip(unique_names(ordered), ordered, strict=True)
    ]
    by_path = {member.path.resolve(): member for member in members}
    found = [None if path is None else by_path[path.resolve()] for path in named]
    return members, found[0], found[1]


def _path(model: Evaluable) -> Path:
    path = model.path if isinstance(model, Recommender) else Path(model)
    if path is None:
        raise OptionError("the model has no directory", "train it into one, or pass the directory")
    return path


def check_member(member: Member, data: Data, split: str) -> None:
    """Refuse what was made of other data or trained on the split that is asked for."""
    manifest = member.manifest
    seen = manifest.inputs.get("data")
    if seen != data.hash:
        raise ArtifactError(
            f"{member.path} was made from data {seen}, not from {data.hash}: it may know the answers",
            "evaluate it on the data directory it was made from, or make it again from this one",
        )
    if split in manifest.on:
        raise OptionError(f"{member.path} was trained on the {split} split", "evaluate it with --split test")


def open_member(
    member: Member, data: Data, task: Task, sampled: bool, device: str, shown: Progress
) -> tuple[Recommender | None, Ranker]:
    """The model (None for knowledge) and what ranks for it."""
    if member.manifest.kind == "model":
        model = load(member.path, device=str(pick_device(device)))
        users, items = model.vocabularies()
        if users.hash != data.users.hash or items.hash != data.items.hash:
            raise ArtifactError(
                f"{member.path} knows {len(users)} users and {len(items)} items, not those of {data.path}",
                "evaluate it on the data directory it was made from",
            )
        return model, model_ranker(model, task.histories if model.sequential else None)
    return None, _store_ranker(member, data, task, sampled, shown)


def _store_ranker(member: Member, data: Data, task: Task, sampled: bool, shown: Progress) -> Ranker:
    """A store's lists where they answer what is asked, else its scores if it has any."""
    knowledge = load_knowledge(member.path, data)
    frozen = knowledge.frozen if knowledge.can_score else None
    state = None if frozen is None else StateRanker(frozen)
    lists = knowledge.lists.get("top_items")
    if lists is None and state is None:
        raise OptionError(
            f"{member.path} holds neither top_items nor scores, so nothing can be ranked",
            "extract it again with --kinds top_items",
        )
    if state is not None and (lists is None or sampled):
        return state
    assert lists is not None
    maker = "ensemble" if "ensemble" in member.manifest.options else "extract"
    ranker = ListRanker(str(member.path), lists.ids, knowledge.train, maker)
    if sampled:
        return ranker
    try:
        ranker.check(task.users, task.ks[-1], task.masked)
    except OptionError as error:
        if state is None:
            raise
        shown.note(f"{error.message}; ranked by its scores instead")
        return state
    return ranker
