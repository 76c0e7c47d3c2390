"""Who taught whom, and which models differ in nothing but the seed: read off the manifests."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from recdistill.artifacts import Manifest

_SEED_NUMBER = re.compile(r"[-_. ]*(s|seed)?[-_. ]*\d+$")
_SOURCES = ("knowledge", "live")
"""Names of the inputs that a student learns from beside the data."""


@dataclass(frozen=True, eq=False)
class Member:
    """One evaluated directory: a model, or knowledge.

    Attributes:
        name: unique name in the results.
        path: its directory, as given.
        manifest: its manifest.
    """

    name: str
    path: Path
    manifest: Manifest

    @property
    def model_options(self) -> Any:
        """Class and options of the model, None for knowledge."""
        if self.manifest.kind != "model" or "model" not in self.manifest.options:
            return None
        found = self.manifest.summary.get("model_options", {})  # of a searched student: its architecture
        return {**self.manifest.options["model"], **found}

    @property
    def distilled(self) -> bool:
        """Whether it learned from a teacher."""
        return bool(self.manifest.options.get("distill"))


class SeedGroup(NamedTuple):
    """Models that are alike but for the seed; most often one alone.

    Attributes:
        name: unique name among the groups.
        members: its models, in the order given.
    """

    name: str
    members: tuple[Member, ...]

    def __contains__(self, member: object) -> bool:
        return any(member is other for other in self.members)


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The last component of each path; the whole path where two agree."""
    short = [path.resolve().name for path in paths]
    times = Counter(short)
    return [name if times[name] == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def teacher_of(member: Member, members: Sequence[Member]) -> Member | None:
    """The teacher in a student's lineage: the model that its manifest names by hash, else the knowledge."""
    for digest in sources(member):
        for other in members:
            if other.manifest.hash == digest and other is not member:
                return other
    return None


def reference_of(member: Member, teachers: Mapping[str, Member | None]) -> Member | None:
    """The model whose lists a model's are compared with: its teacher; without one, the teacher of the others.

    An undistilled model is compared with its students' teacher too, as what they started from. Where there
    are several teachers, it is the one of the same seed; none if that leaves a choice.

    Args:
        member: the model.
        teachers: the teacher of each model by name, None where unknown.
    """
    own = teachers.get(member.name)
    found = list({teacher.name: teacher for teacher in teachers.values() if teacher is not None}.values())
    if own is not None or member in found:
        return own
    if len(found) > 1:
        found = [teacher for teacher in found if teacher.manifest.seed == member.manifest.seed]
    return found[0] if len(found) == 1 else None


def sources(member: Member) -> list[str]:
    """The hashes a student's teacher may be known by: the model's, then those of the knowledge it read."""
    inputs = member.manifest.inputs
    known = (member.manifest.summary.get("teacher"), *(inputs.get(name) for name in _SOURCES))
    return [digest for digest in known if digest]


def seed_groups(members: Sequence[Member], teachers: Mapping[str, Member | None]) -> list[SeedGroup]:
    """Group models whose kind, options and data are the same and whose teachers are of one group.

    Args:
        members: what is evaluated.
        teachers: the teacher of each, by name.

    Returns:
        the groups, in the order of their first members. Models of one group have different seeds; where
        that is not so (the same model twice, students of several stores of one teacher) each stands alone.
    """
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(_key(member, teachers, len(members)), []).append(member)
    parts: list[list[Member]] = []
    for alike in found.values():
        seeds = {member.manifest.seed for member in alike}
        parts += (
            [alike] if len(seeds) == len(alike) and _one_source(alike) else [[member] for member in alike]
        )
    parts.sort(key=lambda part: members.index(part[0]))
    taken = {member.name for member in members}
    groups: list[SeedGroup] = []
    for part in parts:
        name = part[0].name if len(part) == 1 else _common_name(part, taken)
        taken.add(name)
        groups.append(SeedGroup(name, tuple(part)))
    return groups


def _key(member: Member, teachers: Mapping[str, Member | None], depth: int) -> str:
    manifest = member.manifest
    teacher = teachers.get(member.name)
    # a chain of teachers is no longer than the number of models, unless somebody named a teacher of itself
    source = _key(teacher, teachers, depth - 1) if teacher is not None and depth else ""
    others = {name: digest for name, digest in manifest.inputs.items() if not (source and name in _SOURCES)}
    return json.dumps([manifest.kind, manifest.options, others, source], sort_keys=True, default=str)


def _one_source(alike: Sequence[Member]) -> bool:
    """Whether students of one teacher read the same knowledge: another depth is more than another seed."""
    stores: dict[object, list[str]] = {}
    known = [sources(member) for member in alike]
    return all(stores.setdefault(digests[0], digests) == digests for digests in known if digests)


def _common_name(members: Sequence[Member], taken: set[str]) -> str:
    """What the members' names share, without the seeds' numbers: student-0 and student-1 are ``student``."""
    last = {member.path.resolve().name for member in members}
    bare = last if len(last) == 1 else {_SEED_NUMBER.sub("", name) for name in last}
    shared = bare.pop() if len(bare) == 1 else ""
    return (
        shared if shared and shared not in taken else f"{members[0].name} and {len(members) - 1} more seeds"
    )


class Alone(NamedTuple):
    """The undistilled counterpart of a student, or why there is none."""

    group: SeedGroup | None
    reason: str


def alone_of(student: SeedGroup, groups: Sequence[SeedGroup], named: Member | None = None) -> Alone:
    """Find the undistilled models of the student's class and options.

    Where several groups fit (trained with different settings), the one trained as the student was is taken.

    Args:
        student: the distilled models.
        groups: everything evaluated.
        named: the model the caller named instead.
    """
    if named is not None:
        return Alone(next(group for group in groups if named in group), "")
    model = student.members[0]
    fitting = [
        group
        for group in groups
        if not group.members[0].distilled
        and group.members[0].model_options is not None
        and group.members[0].model_options == model.model_options
    ]
    if len(fitting) > 1:
        training = model.manifest.options.get("training")
        same = [group for group in fitting if group.members[0].manifest.options.get("training") == training]
        fitting = same or fitting
    if len(fitting) == 1:
        return Alone(fitting[0], "")
    if not fitting:
        return Alone(
            None, "no undistilled model of its class and options is among the models (--alone names another)"
        )
    several = ", ".join(group.name for group in fitting)
    return Alone(None, f"several undistilled models fit ({several}): name one with --alone")
