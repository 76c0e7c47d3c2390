"""What came out, in words: who is teacher and student, the sentence on top, the figures under it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recdistill.reporting import numbers
from recdistill.reporting.numbers import Missing
from recdistill.reporting.results import SIGNIFICANCE, Entry, Estimate, Evaluation

ABSENT = "–"
"""What a tile shows in place of a figure; its detail says why."""


@dataclass(frozen=True)
class Cast:
    """Who plays which part in an evaluation.

    Attributes:
        students: what is measured by a teacher, best first.
        teacher, alone: those of the best student, or why there is none.
        members: hashes of the models that ensembles were made from.
        undistilled: names of the models without distillation of all students.
        compared: by student, its own teacher and its own model without distillation, as far as they were evaluated.
    """

    students: tuple[Entry, ...]
    teacher: Entry | Missing
    alone: Entry | Missing
    members: frozenset[str] = frozenset()
    undistilled: frozenset[str] = frozenset()
    compared: Mapping[str, Sequence[Entry]] = field(default_factory=dict[str, Sequence[Entry]])

    @property
    def whose(self) -> str:
        """What the best student's teacher is called: ``teacher`` or ``ensemble``."""
        return (
            "teacher" if isinstance(self.teacher, Missing) or not self.teacher.first.teachers else "ensemble"
        )

    def role(self, entry: Entry) -> str:
        """One or two words for the table, or none."""
        if entry.first.teachers:
            return "ensemble"
        if entry is self.teacher or self.members & {member.hash for member in entry.members}:
            return "teacher"
        if entry.name in self.undistilled:
            return "trained alone"
        return "student" if entry in self.students else ""


@dataclass(frozen=True)
class Tile:
    """One figure in large print; a missing one has its reason in ``detail``."""

    label: str
    figure: str
    detail: str


@dataclass(frozen=True)
class Story:
    """The outcome in one sentence, in a few more, and in figures."""

    headline: str
    details: Sequence[str]
    tiles: Sequence[Tile]


def cast(
    evaluation: Evaluation, named_alone: str | None = None, members: frozenset[str] = frozenset()
) -> Cast:
    """Find the students, the best one's teacher, and the same model without distillation.

    Args:
        evaluation: what was evaluated.
        named_alone: the model without distillation, where the caller named one.
        members: hashes of the models that ensembles were made from.
    """
    metric = evaluation.primary
    students = sorted(
        (entry for entry in evaluation.entries if entry.gap_closed),
        key=lambda entry: -_mean(entry, metric),
    )
    if not students:
        none = Missing("no distilled model was evaluated")
        return Cast((), none, none, members)
    teachers = [evaluation.entry(one.first.teacher) if one.first.teacher else None for one in students]
    alone = [_alone(evaluation, student, named_alone) for student in students]
    teacher = teachers[0]
    return Cast(
        tuple(students),
        Missing("its teacher was not evaluated with it") if teacher is None else teacher,
        alone[0],
        members,
        frozenset(one.name for one in alone if not isinstance(one, Missing)),
        {
            student.name: [one for one in others if isinstance(one, Entry)]
            for student, *others in zip(students, teachers, alone, strict=True)
        },
    )


def _alone(evaluation: Evaluation, student: Entry, named: str | None) -> Entry | Missing:
    """The evaluation's own rule: the one named, else the undistilled model of the same class and options."""
    chosen = evaluation.entry(named) if named else None
    if chosen is not None:
        return chosen
    fitting = [
        entry
        for entry in evaluation.entries
        if not entry.first.distilled and entry.first.kind == "model" and _same(entry, student, "model")
    ]
    if len(fitting) > 1:
        fitting = [entry for entry in fitting if _same(entry, student, "training")] or fitting
    if len(fitting) == 1:
        return fitting[0]
    found = "several undistilled models fit" if fitting else "no undistilled model of its class was evaluated"
    return Missing(found)


def _same(one: Entry, other: Entry, part: str) -> bool:
    first, second = one.first.options.get(part), other.first.options.get(part)
    return first is not None and json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _mean(entry: Entry, metric: str) -> float:
    value = entry.value(metric)
    return float("-inf") if isinstance(value, Missing) else value.mean


def tell(evaluation: Evaluation, roles: Cast) -> Story:
    """The story of one evaluation."""
    if not roles.students:
        return _without_student(evaluation)
    student = roles.students[0]
    headline = _headline(evaluation, roles, student)
    # without a share of the gap the headline says itself how the student stands to the one trained alone
    unsaid = not isinstance(student.gap(evaluation.primary), Missing)
    gain = _gain(evaluation, roles, student) if unsaid else ""
    return Story(headline, [gain] if gain else [], _tiles(evaluation, roles, student))


def _without_student(evaluation: Evaluation) -> Story:
    metric = evaluation.primary
    ranked = sorted(evaluation.entries, key=lambda entry: -_mean(entry, metric))
    best, value = ranked[0], ranked[0].value(metric)
    name = numbers.metric_name(metric)
    figure = value.reason if isinstance(value, Missing) else numbers.metric(value.mean)
    first = (
        f"{best.name} reaches {name} {figure}."
        if len(ranked) == 1
        else f"{best.name} ranks best of {len(ranked)} models, with {name} {figure}."
    )
    return Story(first, ["No distilled model was evaluated, so no share of a gap is given."], ())


def _headline(evaluation: Evaluation, roles: Cast, student: Entry) -> str:
    metric = evaluation.primary
    name = numbers.metric_name(metric)
    several = len(roles.students)
    who = "The student" if several == 1 else f"The best of {several} students, {student.name},"
    mine = student.value(metric)
    if isinstance(mine, Missing):
        return f"{who} has no {name}: {mine.reason}."
    gap = student.gap(metric)
    told = _against(evaluation, roles.alone, student) if isinstance(gap, Missing) else ""
    if isinstance(roles.teacher, Missing):
        return f"{who} reaches {name} {numbers.metric(mine.mean)}{told}; {roles.teacher.reason}."
    theirs = roles.teacher.value(metric)
    if isinstance(theirs, Missing) or theirs.mean <= 0:
        unknown = f"its {roles.whose}'s is unknown or zero"
        return f"{who} reaches {name} {numbers.metric(mine.mean)}{told}; {unknown}."
    share = mine.mean / theirs.mean
    verb = "keeps" if share < 1 else "reaches"
    size = _ratio(student.parameters, roles.teacher.parameters)
    small = "" if isinstance(size, Missing) else f" with {numbers.percent(size)} of its parameters"
    rest = f"; with {numbers.metric(mine.mean)} it is{told[1:]}" if told else closed(gap, roles.whose)
    more = _no_more(evaluation, roles.teacher, student) if share > 1 else ""
    return f"{who} {verb} {numbers.percent(share)} of the {roles.whose}'s {name}{more}{small}{rest}."


def _no_more(evaluation: Evaluation, teacher: Entry, student: Entry) -> str:
    """That a student above its teacher is not so significantly; nothing where it is."""
    test = evaluation.test(student.name, teacher.name, evaluation.primary)
    if test is None:
        return " (the difference was not tested)"
    if test.significant:
        return ""
    return f" (not significantly more: {numbers.probability(test.p_holm)}, corrected)"


def _against(evaluation: Evaluation, alone: Entry | Missing, student: Entry) -> str:
    metric = evaluation.primary
    if isinstance(alone, Missing):
        return ""
    mine, other = student.value(metric), alone.value(metric)
    if isinstance(mine, Missing) or isinstance(other, Missing):
        return ""
    test = evaluation.test(student.name, alone.name, metric)
    return against(alone.name, mine.mean, other.mean, None if test is None else test.p_holm)


def against(name: str, mine: float, other: float, p_holm: float | None) -> str:
    """How a student stands to the one trained alone: ``, 0.0076 below alone (0.1070), not significantly (…)``.

    Args:
        name: of the one trained alone.
        mine, other: the values of the two.
        p_holm: of their difference, corrected; None where it was not tested.
    """
    size = numbers.metric(abs(mine - other))
    theirs = f"{name} ({numbers.metric(other)})"
    level = float(size) == 0
    where = f"level with {theirs}" if level else f"{size} {'above' if mine > other else 'below'} {theirs}"
    if p_holm is None:
        return f", {where}, which was not tested"
    verdict = ("" if p_holm < SIGNIFICANCE else "not ") + (
        "significantly different" if level else "significantly"
    )
    return f", {where}, {verdict} ({numbers.probability(p_holm)}, corrected)"


def closed(gap: Estimate | Missing, whose: str) -> str:
    """The share of the gap that distillation closed, as the end of a sentence; nothing without one."""
    if isinstance(gap, Missing):
        return ""
    share = numbers.percent(gap.mean)
    if gap.low is not None and gap.high is not None and gap.low <= 0 <= gap.high:
        return f"; distillation closed no measurable part of the gap ({share}, an interval around zero)"
    if gap.mean < 0:
        return f"; distillation widened the gap to the {whose} ({share} closed)"
    if gap.mean > 1:
        return f"; distillation closed the whole gap to the {whose} and more ({share})"
    return f"; distillation closed {share} of the gap"


def _gain(evaluation: Evaluation, roles: Cast, student: Entry) -> str:
    """Whether the student differs from the same model without distillation."""
    metric = evaluation.primary
    if isinstance(roles.alone, Missing):
        return ""
    test = evaluation.test(student.name, roles.alone.name, metric)
    mine, other = student.value(metric), roles.alone.value(metric)
    if test is None or isinstance(mine, Missing) or isinstance(other, Missing):
        return ""
    difference = test.difference if test.a == student.name else -test.difference
    verdict = "significant" if test.significant else "not significant"
    return (
        f"The difference to the same model trained alone, {numbers.metric(difference, difference=True)} "
        f"{numbers.metric_name(metric)}, is statistically {verdict} "
        f"({numbers.probability(test.p_holm)}, corrected for all comparisons)."
    )


def _ratio(part: float | Missing, whole: float | Missing) -> float | Missing:
    if isinstance(part, Missing):
        return part
    if isinstance(whole, Missing):
        return Missing(f"of the teacher: {whole.reason}")
    return part / whole if whole > 0 else Missing("the teacher has none")


def _tiles(evaluation: Evaluation, roles: Cast, student: Entry) -> list[Tile]:
    metric = evaluation.primary
    name = numbers.metric_name(metric)
    gap = student.gap(metric)
    tiles = [_kept(student, roles, metric), _gap_tile(gap)]
    teacher = roles.teacher
    if isinstance(teacher, Missing):
        return [Tile(f"of the teacher's {name}", ABSENT, teacher.reason), *tiles[1:]]
    label = f"of the {roles.whose}'s parameters"
    size = _ratio(student.parameters, teacher.parameters)
    sizes = [student.parameters, teacher.parameters]
    tiles.append(
        Tile(label, ABSENT, size.reason)
        if isinstance(size, Missing)
        else Tile(
            label,
            numbers.percent(size),
            " against ".join(numbers.count(one) for one in sizes if not isinstance(one, Missing)),
        )
    )
    tiles.append(_speed(student, teacher, roles.whose))
    return tiles


def _kept(student: Entry, roles: Cast, metric: str) -> Tile:
    teacher, whose = roles.teacher, roles.whose
    label = f"of the {whose}'s {numbers.metric_name(metric)}"
    if isinstance(teacher, Missing):
        return Tile(label, ABSENT, teacher.reason)
    mine, theirs = student.value(metric), teacher.value(metric)
    if isinstance(mine, Missing):
        return Tile(label, ABSENT, mine.reason)
    if isinstance(theirs, Missing) or theirs.mean <= 0:
        return Tile(label, ABSENT, f"the {whose}'s is unknown or zero")
    detail = f"{numbers.metric(mine.mean)} against {numbers.metric(theirs.mean)}"
    return Tile(label, numbers.percent(mine.mean / theirs.mean), detail)


def _gap_tile(gap: Estimate | Missing) -> Tile:
    label = "of the gap closed by distillation"
    if isinstance(gap, Missing):
        return Tile(label, ABSENT, gap.reason)
    detail = (
        "no interval"
        if gap.low is None or gap.high is None
        else f"95 % interval {numbers.percent(gap.low)} to {numbers.percent(gap.high)}"
    )
    return Tile(label, numbers.percent(gap.mean), detail)


def _speed(student: Entry, teacher: Entry, whose: str) -> Tile:
    label = f"the {whose}'s speed, one user at a time"
    mine, theirs = student.latency(1), teacher.latency(1)
    if isinstance(mine, Missing) or isinstance(theirs, Missing):
        reason = mine.reason if isinstance(mine, Missing) else f"of the teacher: {theirs.reason}"  # pyright: ignore
        return Tile(label, ABSENT, reason)
    if mine.p50 <= 0:
        return Tile(label, ABSENT, "too fast to be measured")
    detail = f"{numbers.milliseconds(mine.p50)} against {numbers.milliseconds(theirs.p50)} ms (median)"
    return Tile(label, f"{numbers.times(theirs.p50 / mine.p50)}×", detail)
