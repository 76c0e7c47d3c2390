"""`ensemble`: several teachers' stores as one, by rank aggregation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from recdistill import artifacts
from recdistill.artifacts import save_arrays
from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.data.sequences import newcomers
from recdistill.errors import OptionError
from recdistill.evaluation.validate import list_validation
from recdistill.files import size_text
from recdistill.knowledge.base import Lists, Member
from recdistill.knowledge.ensemble import (
    aggregate,
    observed_importance,
    popularity_shares,
    rank_spread,
    users_of_items,
)
from recdistill.knowledge.members import MEMBERS, OBSERVED, TRAJECTORY
from recdistill.knowledge.teacher import TeacherKnowledge, load_knowledge
from recdistill.progress import Progress, Silent
from recdistill.steps.ensembleteachers import (
    EnsembleTeacher,
    data_beside,
    fitted,
    models_beside,
    open_teachers,
)
from recdistill.steps.fit import DataLike, ModelLike, open_data
from recdistill.wording import counted

_BLOCK = 1 << 16
_DEPTH = 500

Positive = Annotated[float, Field(gt=0)]


@validated
def ensemble(
    knowledge: Sequence[Path | str] | Mapping[str, Path | str],
    out: Path | str = "runs/ensemble",
    *,
    data: DataLike | None = None,
    beside: Sequence[ModelLike] = (),
    depth: Annotated[int, Field(ge=1)] | None = None,
    temperature: Positive = 10.0,
    weights: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None,
    consistency: Annotated[float, Field(ge=0)] = 0.0,
    debias: Annotated[float, Field(ge=0)] = 0.0,
    force: bool = False,
    progress: Progress | None = None,
) -> TeacherKnowledge:
    """Put several teachers' stores together as one, from which any method that reads lists can learn.

    An item's score is its summed importance, Σ over teachers of weight · e^{-rank / temperature}; see
    :mod:`recdistill.knowledge.ensemble` for the other options.

    Args:
        knowledge: the stores, one a teacher, all of the same data; a mapping names the teachers, else they are called
            by the last components of the paths.
        out: the knowledge directory to write.
        data: the prepared data that all were made from; by default a directory beside one of the stores.
        beside: models that are fitted at once (``itemknn``, ``ease``, ``popularity``), more teachers after the stores;
            they are fitted here, on the rows that the stores' teachers were fitted on.
        depth: ranks that count, and the length of the lists (paper: 100), or the depth that all have, if that is less;
            by default that.
        temperature: how fast importance falls with the rank (paper: 10).
        weights: of each teacher, in their order, greater than 0; by default all 1.
        consistency: weight of the term for items that a teacher ranked alike at all its states, at least 0.
        debias: how much popular items lose on which the teachers disagree, at least 0.
        force: replace another store in ``out``.
        progress: where stages are shown.

    Returns:
        The ensemble's knowledge, opened from ``out``. It has no embeddings.

    Raises:
        RecdistillError: bad options, stores of different data, no lists, or ``out`` holds something else.
    """
    shown = progress or Silent()
    names = list(knowledge) if isinstance(knowledge, Mapping) else None
    paths = [Path(path) for path in (knowledge.values() if isinstance(knowledge, Mapping) else knowledge)]
    opened = open_data(data) if data is not None else data_beside(paths)
    fitted_here = models_beside(beside)
    teachers = open_teachers(paths, names, opened, fitted_here)
    called = [*(teacher.name for teacher in teachers), *(model.model_name() for model in fitted_here)]
    if weights is not None and len(weights) != len(called):
        raise OptionError(f"weights: expected {len(called)}, one a teacher, found {len(weights)}")
    common = _common_depth(teachers, opened, depth, shown)
    options: dict[str, Any] = {
        "ensemble": called,
        "depth": common,
        "temperature": temperature,
        "weights": None if weights is None else list(weights),
        "consistency": consistency,
        "debias": debias,
    }
    if fitted_here:
        options["beside"] = [{"name": model.model_name(), **model.options} for model in fitted_here]
    stores = {  # by place: weights go by it too
        f"teacher:{place}": teacher.described["knowledge"] for place, teacher in enumerate(teachers)
    }
    with artifacts.step(
        out, kind="knowledge", options=options, inputs={"data": opened.hash} | stores, force=force
    ) as job:
        if job.reused:
            shown.note(f"{out}: already there, same inputs and options: reused")
        else:
            teachers += [fitted(model, opened, teachers[0].knowledge.on, shown) for model in fitted_here]
            made = put_together(teachers, options, shown)
            _save_lists(job.work, "top_items", made.top_items)
            _save_lists(job.work, "top_users", made.top_users)
            if made.observed is not None:
                save_arrays(job.work / OBSERVED, {"scores": made.observed})
            for place, member in enumerate(made.members):
                _save_member(job.work / MEMBERS / str(place), member)
            job.summary.update(
                {
                    **made.summary,
                    "on": list(teachers[0].knowledge.on),
                    "users": opened.num_users,
                    "items": opened.num_items,
                    "users_hash": opened.users.hash,
                    "items_hash": opened.items.hash,
                    "validation": lists_validation(made.top_items.ids, opened, teachers[0].knowledge.on),
                    "bytes": sum(f.stat().st_size for f in job.work.rglob("*") if f.is_file()),
                }
            )
    return load_knowledge(out, opened)


class Together(NamedTuple):
    """What several teachers give as one."""

    top_items: Lists
    top_users: Lists
    observed: Tensor | None
    members: list[Member]
    summary: dict[str, Any]


def put_together(teachers: Sequence[EnsembleTeacher], options: dict[str, Any], shown: Progress) -> Together:
    """The lists, the common order of observed items and the members of an ensemble with these options."""
    members, train = _members(teachers, options["depth"]), teachers[0].knowledge.train
    _say(teachers, members, options, train, shown)
    with shown.stage("ensemble", 3, "parts") as stage:
        lists = _top_items(members, train, options)
        stage.advance(1)
        users = _top_users(teachers, lists, train, options)
        stage.advance(1)
        observed = _observed(teachers, members, train, options, shown)
        stage.advance(1)
    kinds = ["top_items", "top_users", "trajectory", *(["observed_scores"] if observed is not None else [])]
    described = [
        {
            "name": member.name,
            "epochs": list(member.epochs),
            "depth": member.states[-1].shape[1],
            **one.described,
        }
        for one, member in zip(teachers, members, strict=True)
    ]
    summary = {"model": {"name": "ensemble"}, "score_scale": 1.0, "kinds": sorted(kinds), MEMBERS: described}
    return Together(lists, users, observed, members, summary)


def _common_depth(teachers: Sequence[EnsembleTeacher], data: Data, asked: int | None, shown: Progress) -> int:
    """The depth asked for, or the greatest stored; less where a teacher's lists, of all its states, are shorter."""
    stored = [teacher.knowledge.lists.get("top_items") for teacher in teachers]
    wanted = asked or max((lists.ids.shape[1] for lists in stored if lists is not None), default=_DEPTH)
    wanted = min(wanted, data.num_items)
    have = {
        teacher.name: teacher.knowledge.members(wanted)[0].states[0].shape[1]
        for teacher, lists in zip(teachers, stored, strict=True)
        if asked or lists is not None
    }
    shallow = min(have, key=lambda name: have[name], default="")
    if not shallow or have[shallow] >= wanted:
        return wanted
    told = f"depth {wanted} is asked for" if asked else f"the stores have depths up to {wanted}"
    shown.note(f"{told}, and {shallow} has {have[shallow]}: the common depth {have[shallow]} is used")
    return have[shallow]


def _members(teachers: Sequence[EnsembleTeacher], depth: int) -> list[Member]:
    found: list[Member] = []
    for teacher in teachers:
        (member,) = teacher.knowledge.members(depth)
        found.append(member._replace(name=teacher.name))
    return found


def _say(
    teachers: Sequence[EnsembleTeacher],
    members: Sequence[Member],
    options: dict[str, Any],
    train: Interactions,
    shown: Progress,
) -> None:
    depth = options["depth"]
    told = ", ".join(f"{member.name} ({len(member.states)})" for member in members)
    size = sum(state.nbytes for member in members for state in member.states) + 8 * depth * (
        train.num_users + train.num_items
    )
    shown.note(f"ensemble of {told}; in brackets the states; depth {depth}, about {size_text(size)} of lists")
    if len(members) == 1:
        shown.note(f"a single teacher: the ensemble ranks as {members[0].name} does")
    if options["consistency"] and all(len(member.states) == 1 for member in members):
        shown.note("consistency changes nothing: no teacher has more than one state")
    models = Counter(teacher.model for teacher in teachers)
    for teacher, member in zip(teachers, members, strict=True):
        if models[teacher.model] > 1:
            shown.note(
                f"{member.name} is not the only store of its model, which counts as often as it has stores"
            )
        files = (
            0 if teacher.path is None else len(list((teacher.path / TRAJECTORY).glob("epoch-*.safetensors")))
        )
        if files > len(member.states):
            shown.note(
                f"{member.name} has {counted(files - len(member.states), 'repeated state')}: once is enough"
            )
        without = int(((member.states[-1] < 0).all(1) & (train.user_counts < train.num_items)).sum())
        if without:
            rest = "the other teachers decide" if len(members) > 1 else "nothing is learned of them"
            shown.note(f"{counted(without, 'user has', 'users have')} no list in {member.name}: {rest}")


def _top_items(members: Sequence[Member], train: Interactions, options: dict[str, Any]) -> Lists:
    parts: list[Lists] = []
    for start in range(0, train.num_users, _BLOCK):
        states = [tuple(state[start : start + _BLOCK] for state in member.states) for member in members]
        parts.append(
            aggregate(
                [each[-1] for each in states],
                train.num_items,
                options["depth"],
                temperature=options["temperature"],
                weights=options["weights"],
                spreads=[rank_spread(each) for each in states] if options["consistency"] else None,
                consistency=options["consistency"],
                popularity=popularity_shares(train.item_counts) if options["debias"] else None,
                debias=options["debias"],
            )
        )
    return Lists(torch.cat([part.ids for part in parts]), torch.cat([part.scores for part in parts]))


def _top_users(
    teachers: Sequence[EnsembleTeacher], lists: Lists, train: Interactions, options: dict[str, Any]
) -> Lists:
    """The teachers' lists of users, by importance alone; where one has none, those on whose lists an item stands."""
    theirs = [teacher.knowledge.lists.get("top_users") for teacher in teachers]
    stored = [each.ids for each in theirs if each is not None]
    if len(stored) < len(teachers):
        return users_of_items(lists, train.num_items, min(options["depth"], train.num_users))
    depth = min(options["depth"], *(ids.shape[1] for ids in stored))
    return aggregate(
        stored, train.num_users, depth, temperature=options["temperature"], weights=options["weights"]
    )


def _observed(
    teachers: Sequence[EnsembleTeacher],
    members: Sequence[Member],
    train: Interactions,
    options: dict[str, Any],
    shown: Progress,
) -> Tensor | None:
    """The common order of each user's observed items, from the teachers that have one."""
    weights = options["weights"] or [1.0] * len(teachers)
    known = [
        (member.observed_scores, weight)
        for member, weight in zip(members, weights, strict=True)
        if member.observed_scores is not None
    ]
    lacking = [member.name for member in members if member.observed_scores is None]
    if lacking and known:
        shown.note(f"no observed_scores in {', '.join(lacking)}: the other teachers order the observed items")
    elif lacking:
        shown.note(
            "no teacher has observed_scores: the ensemble has none, which hetcomp reads, unless hetcomp.observed=none"
        )
    if not known:
        return None
    return observed_importance(
        [scores for scores, _ in known],
        train.indptr,
        temperature=options["temperature"],
        weights=[weight for _, weight in known],
    )


def lists_validation(ids: Tensor, data: Data, on: Sequence[str]) -> dict[str, float]:
    """Metrics of stored lists on the valid rows, measured as the teachers' are while they train.

    Empty where that is something else than a ranking of such lists: there are no valid rows, or the teachers were
    fitted on them, users take items again in valid or test rows alone, or some users' valid rows have histories of
    their own.
    """
    targets, earlier = newcomers(data.valid, data.train)
    if data.has_repeats != data.train.has_repeats or earlier is not None or "valid" in on:
        return {}
    return list_validation(ids, data.train.unlisted, targets)


def _save_lists(folder: Path, kind: str, lists: Lists) -> None:
    save_arrays(folder / f"{kind}.safetensors", {"ids": lists.ids.int(), "scores": lists.scores})


def _save_member(folder: Path, member: Member) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for epoch, ids in zip(member.epochs, member.states, strict=True):
        save_arrays(folder / f"epoch-{epoch:06d}.safetensors", {"ids": ids})
    if member.observed_scores is not None:
        save_arrays(folder / OBSERVED, {"scores": member.observed_scores})
