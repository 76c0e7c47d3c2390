"""What an evaluation says of its models: the contents of `metrics.json` and `per_user.parquet`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from recdistill.data.vocabulary import Vocabulary
from recdistill.evaluation.comparison import (
    Gap,
    Test,
    Trio,
    Values,
    beats,
    gaps_closed,
    headline,
    mean_values,
    paired_tests,
    pairs,
    trios,
)
from recdistill.evaluation.latency import Latency
from recdistill.evaluation.lineage import Member, SeedGroup, seed_groups, sources
from recdistill.evaluation.popularity import NUM_GROUPS
from recdistill.evaluation.protocol import Outcome, Task
from recdistill.evaluation.significance import Bootstrap, interval

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One model with what was measured.

    Attributes:
        member: the model.
        outcome: its metrics.
        reference: name of the model that its lists were compared with, or None.
        parameters: numbers it stores; of an ensemble, its teachers together; None for other knowledge.
        bytes: size of its weights file, likewise.
        latency: timings, or None.
        layer_parameters: numbers beside its embeddings; of models alone.
    """

    member: Member
    outcome: Outcome
    reference: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    latency: list[Latency] | None = None
    layer_parameters: int | None = None


@dataclass(frozen=True)
class Lineage:
    """Who is measured by whom.

    Attributes:
        teachers: the teacher of each model by name, None where unknown.
        named_teacher, named_alone: what the caller named for all, or None.
    """

    teachers: Mapping[str, Member | None]
    named_teacher: Member | None = None
    named_alone: Member | None = None


def summarise(models: Sequence[Evaluated], task: Task, lineage: Lineage, seed: int) -> Json:
    """The part of `metrics.json` that depends on the models.

    Args:
        models: all evaluated models, on the same users.
        task: what was asked of them.
        lineage: who is measured by whom.
        seed: of permutations and bootstrap.

    Returns:
        ``models``, ``groups``, ``gap_closed``, ``gap_closed_reasons``, ``tests``, ``popularity_groups``.
    """
    values: dict[str, Values] = {model.member.name: model.outcome.values for model in models}
    groups = seed_groups([model.member for model in models], lineage.teachers)
    by_group = {group.name: mean_values([values[m.name] for m in group.members]) for group in groups}
    students = trios(groups, lineage.teachers, lineage.named_teacher, lineage.named_alone)
    tests = _tests(by_group, students, seed)
    bootstrap = Bootstrap(len(task.users), torch.Generator().manual_seed(seed))
    gaps: dict[str, dict[str, Gap]] = {}
    group_gaps: dict[str, dict[str, Gap]] = {}
    for trio in students:
        group_gaps[trio.student.name] = _gaps(trio, trio.student.members, values, tests, bootstrap)
        for member in trio.student.members:
            gaps[member.name] = _gaps(trio, (member,), values, tests, bootstrap)
    described = {model.member.name: _describe(model, lineage.teachers, bootstrap) for model in models}
    return {
        "models": described,
        "groups": {
            group.name: {
                **_describe_group(group, described, by_group[group.name], bootstrap),
                "gap_closed": {
                    metric: {"value": gap.value, "interval": gap.interval, "reason": gap.reason}
                    for metric, gap in group_gaps.get(group.name, {}).items()
                },
            }
            for group in groups
        },
        "gap_closed": {name: {m: gap.value for m, gap in found.items()} for name, found in gaps.items()},
        "gap_closed_reasons": {
            name: {m: gap.reason for m, gap in found.items() if gap.value is None}
            for name, found in gaps.items()
        },
        "tests": tests,
        "popularity_groups": _popularity_groups(models, task),
    }


def per_user_table(models: Sequence[Evaluated], task: Task, users: Vocabulary) -> pl.DataFrame:
    """A row a model and user: ``model, user_id, num_targets``, a column a metric; null for none."""
    ids = users.ids(task.users).alias("user_id")
    num_targets = pl.Series("num_targets", task.targets.user_counts[task.users].numpy(), dtype=pl.Int32)
    frames = [
        pl.DataFrame(
            [ids, num_targets]
            + [
                pl.Series(name, column.numpy(), dtype=pl.Float64).fill_nan(None)
                for name, column in model.outcome.values.items()
            ]
        ).select(pl.lit(model.member.name).alias("model"), pl.all())
        for model in models
    ]
    return pl.concat(frames, how="diagonal", rechunk=False)


def metric_summaries(values: Values, bootstrap: Bootstrap) -> dict[str, Json]:
    """Mean, standard error, number of users and 95 % bootstrap interval of each metric.

    Args:
        values: (n,) float64 a metric, NaN where a user has no value.
        bootstrap: draws of these users.

    Returns:
        an entry a metric; numbers that do not exist are None.
    """
    drawn = bootstrap.means(torch.stack(list(values.values()), dim=1))
    found: dict[str, Json] = {}
    for (name, column), samples in zip(values.items(), drawn.T, strict=True):
        known = column[~column.isnan()]
        n = len(known)
        found[name] = {
            "mean": float(known.mean()) if n else None,
            "stderr": float(known.std()) / math.sqrt(n) if n > 1 else None,
            "n": n,
            "interval": interval(samples) if n > 1 else None,
        }
    return found


def _tests(by_group: Mapping[str, Values], students: Sequence[Trio], seed: int) -> list[Test]:
    metrics = headline(next(iter(by_group.values())))
    chosen_by = "ndcg@10" if "ndcg@10" in metrics else metrics[-1]
    needed = [
        (trio.teacher.name, trio.alone.name)
        for trio in students
        if trio.teacher is not None and trio.alone is not None and trio.teacher.name != trio.alone.name
    ]
    return paired_tests(by_group, metrics, pairs(by_group, chosen_by, needed), seed)


def _describe(model: Evaluated, teachers: Mapping[str, Member | None], bootstrap: Bootstrap) -> Json:
    member, outcome = model.member, model.outcome
    manifest = member.manifest
    teacher = teachers.get(member.name)
    covered = num_users(outcome.values)
    totals = {
        name: {"mean": value, "stderr": None, "n": covered, "interval": None}
        for name, value in outcome.totals.items()
    }
    return {
        "path": str(member.path),
        "hash": manifest.hash,
        "kind": manifest.kind,
        "options": manifest.options,
        "seed": manifest.seed,
        "teacher": None if teacher is None else teacher.name,
        "overlap_with": model.reference,
        "num_users": covered,
        "metrics": metric_summaries(outcome.values, bootstrap) | totals,
        "parameters": model.parameters,
        "layer_parameters": model.layer_parameters,
        "bytes": model.bytes,
        "latency_ms": model.latency,
    }


def _describe_group(
    group: SeedGroup, described: Mapping[str, Json], values: Values, bootstrap: Bootstrap
) -> Json:
    """The metrics of the users' values averaged over seeds, with the spread of the seeds' means."""
    members = [described[member.name]["metrics"] for member in group.members]
    return {
        "members": [member.name for member in group.members],
        "seeds": [member.manifest.seed for member in group.members],
        "metrics": averaged_metrics(members, values, bootstrap),
    }


def averaged_metrics(members: Sequence[Json], values: Values, bootstrap: Bootstrap) -> Json:
    """The metrics of several models as one.

    Args:
        members: the metrics of each, by name.
        values: the users' values, averaged over the models.
        bootstrap: draws of these users.

    Returns:
        by metric that all have: what :func:`metric_summaries` says of the averaged values, the ``spread`` of the
        models' means, and their number as ``seeds``.
    """
    first = members[0]
    averaged = metric_summaries(values, bootstrap) if len(members) > 1 else first
    metrics: Json = {}
    for name, entry in first.items():
        means = [metrics_of[name]["mean"] for metrics_of in members if name in metrics_of]
        if len(means) < len(members):
            continue
        known = torch.tensor([mean for mean in means if mean is not None], dtype=torch.float64)
        mean = float(known.mean()) if len(known) else None
        metrics[name] = {
            **averaged.get(name, {**entry, "mean": mean}),  # coverage has no values of users
            "spread": float(known.std()) if len(known) > 1 else None,
            "seeds": len(members),
        }
    return metrics


def _gaps(
    trio: Trio,
    students: Sequence[Member],
    values: Mapping[str, Values],
    tests: Sequence[Test],
    bootstrap: Bootstrap,
) -> dict[str, Gap]:
    """The gap that some of a group's models closed, by each headline metric.

    One model alone is measured by its own teacher and by the undistilled model of its own seed, if there is
    one; by the means over all seeds else.
    """
    student = mean_values([values[member.name] for member in students])
    metrics = headline(student)
    if trio.teacher is None or trio.alone is None:
        return {metric: Gap(None, None, trio.reason) for metric in metrics}
    seeds = {member.manifest.seed for member in students}
    teachers = [
        member for member in trio.teacher.members if _taught(member, students)
    ] or trio.teacher.members
    same_seed = [
        member for member in trio.alone.members if member.manifest.seed in seeds
    ] or trio.alone.members
    teacher = mean_values([values[member.name] for member in teachers])
    alone = mean_values([values[member.name] for member in same_seed])
    found = gaps_closed(student, teacher, alone, metrics, bootstrap)
    for metric in metrics:
        ahead, reason = beats(tests, trio.teacher.name, trio.alone.name, metric)
        if not ahead:
            found[metric] = Gap(None, None, reason)
    return found


def _taught(teacher: Member, students: Sequence[Member]) -> bool:
    return any(teacher.manifest.hash in sources(student) for student in students)


def _popularity_groups(models: Sequence[Evaluated], task: Task) -> Json:
    """Recall by popularity group, least popular first, averaged over the users with a target in the group."""
    counts = task.train.item_counts
    shown: Json = {
        "items": torch.bincount(task.groups, minlength=NUM_GROUPS).tolist(),
        "interactions": [int(counts[task.groups == group].sum()) for group in range(NUM_GROUPS)],
        "targets": torch.bincount(task.groups[task.targets.items.long()], minlength=NUM_GROUPS).tolist(),
        "models": {},
    }
    for model in models:
        recall = model.outcome.group_recall
        shown["models"][model.member.name] = {
            f"recall@{k}": [
                {"mean": None if math.isnan(mean) else mean, "n": n}
                for mean, n in zip(each.nanmean(0).tolist(), (~each.isnan()).sum(0).tolist(), strict=True)
            ]
            for k, each in recall.items()
        }
    return shown


def num_users(values: Values) -> int:
    """Users with any value: all of the task but those that a store does not cover."""
    return int((~torch.stack(list(values.values()), dim=1).isnan().all(1)).sum())
