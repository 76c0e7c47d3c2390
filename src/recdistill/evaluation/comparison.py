"""Models against each other: paired tests over the shared users, and the share of the gap closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from recdistill.evaluation.lineage import Member, SeedGroup, alone_of, sources
from recdistill.evaluation.significance import Bootstrap, holm, interval, sign_flip_test
from recdistill.wording import counted

MAX_ALL_PAIRS = 6
"""With more models than this each is tested against the best one only."""
LEVEL = 0.05

Values = Mapping[str, Tensor]
"""Metric -> (n,) float64 values of the same users, NaN where a user has none."""


class Compared(TypedDict):
    """Two models or rows compared by a metric.

    Attributes:
        a, b: what is compared.
        metric: the metric.
        difference: mean of ``a - b``.
        p: two-sided.
        p_holm: corrected for its family of tests.
    """

    a: str
    b: str
    metric: str
    difference: float
    p: float
    p_holm: float


class Test(Compared):
    """One paired permutation test of two groups; its family is all tests of the evaluation.

    Attributes:
        n: users that both have, over whom the difference is averaged.
    """

    n: int


class Gap(NamedTuple):
    """The share of the teacher-student gap that one model closed, by one metric.

    Attributes:
        value: ``(student - alone) / (teacher - alone)``, None where that means nothing.
        interval: its 95 % bootstrap interval.
        reason: why there is no value.
    """

    value: float | None
    interval: tuple[float, float] | None
    reason: str = ""


def headline(names: Iterable[str]) -> list[str]:
    """The metrics that are tested: ndcg and recall at every cut-off."""
    return [name for name in names if name.partition("@")[0] in ("ndcg", "recall")]


def mean_values(members: Sequence[Values]) -> dict[str, Tensor]:
    """Each user's values averaged over the seeds."""
    shared = [name for name in members[0] if all(name in values for values in members)]
    return {name: torch.stack([values[name] for values in members]).nanmean(0) for name in shared}


def pairs(
    groups: Mapping[str, Values], metric: str, also: Iterable[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """The pairs to test: all of them up to 6 groups, else each against the one with the best mean.

    Args:
        groups: values of each group.
        metric: what the best is chosen by.
        also: pairs to be tested in any case, in the order (a, b).
    """
    if len(groups) <= MAX_ALL_PAIRS:
        chosen = list(combinations(groups, 2))
    else:
        best = max(groups, key=lambda name: float(groups[name][metric].nanmean()))
        chosen = [(best, name) for name in groups if name != best]
    known = {frozenset(pair) for pair in chosen}
    return chosen + [pair for pair in dict.fromkeys(also) if frozenset(pair) not in known]


def paired_tests(
    groups: Mapping[str, Values], metrics: Sequence[str], chosen: Sequence[tuple[str, str]], seed: int
) -> list[Test]:
    """Test the chosen pairs by each metric; one family, corrected after Holm.

    Args:
        groups: values of each group, of the same users.
        metrics: what is compared.
        chosen: pairs of groups.
        seed: of the permutations.
    """
    family = [(a, b, metric) for a, b in chosen for metric in metrics]
    if not family:
        return []
    each = torch.stack([groups[a][metric] - groups[b][metric] for a, b, metric in family], dim=1)  # (n, m)
    p_values = sign_flip_test(each.nan_to_num(), torch.Generator().manual_seed(seed))
    shared = (~each.isnan()).sum(0)
    found = zip(
        family,
        each.nanmean(0).tolist(),
        p_values.tolist(),
        holm(p_values).tolist(),
        shared.tolist(),
        strict=True,
    )
    return [
        Test(a=a, b=b, metric=metric, difference=difference, p=p, p_holm=p_holm, n=n)
        for (a, b, metric), difference, p, p_holm, n in found
    ]


class Trio(NamedTuple):
    """A student with what it is measured by.

    Attributes:
        student: the distilled models.
        teacher: the group of their teachers, or None.
        alone: the undistilled group, or None.
        reason: why there is no teacher or no undistilled model.
    """

    student: SeedGroup
    teacher: SeedGroup | None
    alone: SeedGroup | None
    reason: str


def trios(
    groups: Sequence[SeedGroup],
    teachers: Mapping[str, Member | None],
    named_teacher: Member | None,
    named_alone: Member | None,
) -> list[Trio]:
    """The students among the groups; with both others named, every further group counts as one."""
    found: list[Trio] = []
    for group in groups:
        first = group.members[0]
        is_other = any(named is not None and named in group for named in (named_teacher, named_alone))
        if is_other or not (first.distilled or (named_teacher is not None and named_alone is not None)):
            continue
        taught_by = teachers.get(first.name)
        teacher = next((other for other in groups if taught_by in other), None)
        alone, reason = alone_of(group, groups, named_alone)
        if teacher is None:
            digest = next(iter(sources(first)), "not named in its manifest")
            reason = f"its teacher ({digest}) is not among the models: add it, or name one with --teacher"
        found.append(Trio(group, teacher, alone, reason))
    return found


def gaps_closed(
    student: Values, teacher: Values, alone: Values, metrics: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Gap]:
    """The share of the gap closed by each metric, with its interval.

    Args:
        student, teacher, alone: values of the same users; users that lack one of the three are left out.
        metrics: what the share is computed of.
        bootstrap: draws of these users.
    """
    each = torch.stack([torch.stack([s[m] for m in metrics]) for s in (student, teacher, alone)])  # (3, m, n)
    each = each.masked_fill(each.isnan().any(0), torch.nan)
    means = each.nanmean(2)
    drawn = bootstrap.means(each.flatten(0, 1).T).view(-1, 3, len(metrics))
    samples = (drawn[:, 0] - drawn[:, 2]) / (drawn[:, 1] - drawn[:, 2])
    found: dict[str, Gap] = {}
    for place, metric in enumerate(metrics):
        won, gap = float(means[0, place] - means[2, place]), float(means[1, place] - means[2, place])
        if gap > 0:
            found[metric] = Gap(won / gap, interval(samples[:, place]))
        else:
            reason = (
                "the teacher does not beat the undistilled model" if gap <= 0 else "no user has all three"
            )
            found[metric] = Gap(None, None, reason)
    return found


def beats(tests: Sequence[Compared], winner: str, loser: str, metric: str) -> tuple[bool, str]:
    """Whether ``winner`` is better significantly (corrected p below .05), and the reason if not.

    Args:
        tests: one family, for all of which the p-values are corrected.
        winner, loser: what is compared.
        metric: by what.
    """
    for test in tests:
        if test["metric"] == metric and {test["a"], test["b"]} == {winner, loser}:
            ahead = test["difference"] if test["a"] == winner else -test["difference"]
            if ahead > 0 and test["p_holm"] < LEVEL:
                return True, ""
            return False, (
                f"{winner} does not beat {loser} significantly "
                f"(difference {ahead:+.4f}, p {test['p_holm']:.3f} corrected for {counted(len(tests), 'test')})"
            )
    return False, f"{winner} is {loser} itself"
