"""Several evaluations as one comparison: rows over model seeds and split seeds, with all pairs tested.

A user's values are averaged over the model seeds, and the pairs of rows are tested over the users. With several
splits the rows are compared by the splits' means instead: the users are the same people in each split, and no
more of them.

With one split these tests also decide whether a row has a share of the gap. Few splits' means show little: with
several, a row has one where its teacher beats the student alone in each split, by the tests of that split's own
evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from scipy import stats
from torch import Tensor

from recdistill.errors import ArtifactError
from recdistill.evaluation.comparison import LEVEL, Compared, Values, beats, gaps_closed, mean_values
from recdistill.evaluation.results import averaged_metrics
from recdistill.evaluation.significance import PERMUTATIONS, Bootstrap, holm, sign_flip_test

Json = dict[str, Any]

_SAME = ("split", "protocol", "negatives", "k", "masked", "history")
"""What evaluations must have in common to be averaged."""
_PAIRS_AT_ONCE = 64
_PERMUTATIONS_A_PAIR = 50  # so that the least p-value stays below 5 % after the correction

USERS = "paired permutation test over users, their values averaged over the model seeds"
SPLITS = "t-test over the splits' means, corrected for their shared rows (Nadeau and Bengio, 2003)"


@dataclass(frozen=True)
class SplitResult:
    """One split's evaluation.

    Attributes:
        seed: of the split.
        result: what `evaluate` returned.
        per_user: its table of users' values.
        rows: the models of each row, by the names that the evaluation gave them; the order is the table's.
        source: options and inputs of its data but for the seed, to be the same in all splits.
        test_ratio: evaluated rows over train rows.
    """

    seed: int
    result: Mapping[str, Any]
    per_user: pl.DataFrame
    rows: Mapping[str, Sequence[str]]
    source: Json
    test_ratio: float


def combine(
    splits: Sequence[SplitResult],
    metrics: Sequence[str],
    seed: int = 0,
    lineage: Mapping[str, tuple[str, str]] | None = None,
) -> Json:
    """Put the evaluations of one or more splits together.

    Args:
        splits: at least one.
        metrics: what is tested, each a family of its own.
        seed: of permutations and bootstrap.
        lineage: the rows of the teacher and of the student alone, by the names of the distilled rows.

    Returns:
        ``rows`` (name -> ``seeds``, ``splits``, ``metrics`` and ``gap_closed`` with mean and spread),
        ``tests`` (all pairs by every metric), ``how``, and what all evaluations share.

    Raises:
        ArtifactError: the evaluations are of different data, or were made by different protocols.
    """
    check_comparable(splits)
    names = [name for name in splits[0].rows if all(split.rows.get(name) for split in splits)]
    tested = [metric for metric in metrics if metric in splits[0].per_user.columns]
    rows = {name: _row(name, splits, seed) for name in names}
    tests: list[Compared] = []
    if len(splits) == 1:
        values = _values(splits[0], names, tested)
        for metric in tested:
            tests += _over_users(values, metric, seed)
        for name, shares in _shares(values, lineage or {}, tests, seed).items():
            rows[name]["gap_closed"] |= {m: one for m, one in shares.items() if m in rows[name]["gap_closed"]}
    else:
        for metric in tested:
            tests += _over_splits(splits, rows, metric)
    return {
        **{key: splits[0].result.get(key) for key in _SAME},
        "metrics": list(metrics),
        "split_seeds": [split.seed for split in splits],
        "rows": rows,
        "how": USERS if len(splits) == 1 else SPLITS,
        "tests": tests,
    }


def check_comparable(splits: Sequence[SplitResult]) -> None:
    """Refuse evaluations that cannot be averaged.

    Raises:
        ArtifactError: another source or preparation, another protocol, or one split twice.
    """
    first = splits[0]
    for split in splits[1:]:
        if split.source != first.source:
            raise ArtifactError(
                f"splits {first.seed} and {split.seed} are not of the same data",
                "a comparison needs one source, prepared alike but for the seed",
            )
        if split.result["data"] == first.result["data"]:
            raise ArtifactError(f"splits {first.seed} and {split.seed} are the same split")
        for key in _SAME:
            old, new = first.result.get(key), split.result.get(key)
            if old != new:
                raise ArtifactError(
                    f"splits {first.seed} and {split.seed} were evaluated differently: {key} {old} and {new}",
                    "evaluate all splits alike",
                )


def different(tests: Sequence[Mapping[str, Any]], metric: str) -> list[frozenset[str]]:
    """The pairs that differ significantly by ``metric``."""
    return [
        frozenset({str(test["a"]), str(test["b"])})
        for test in tests
        if test["metric"] == metric and test["p_holm"] < LEVEL
    ]


def _row(name: str, splits: Sequence[SplitResult], seed: int) -> Json:
    groups = [_group(split, split.rows[name], seed) for split in splits]
    first = groups[0]
    return {
        "seeds": len(splits[0].rows[name]),
        "splits": len(splits),
        "users": sum(split.result["models"][split.rows[name][0]]["num_users"] for split in splits),
        "evaluated": sum(split.result["users"]["evaluated"] for split in splits),
        "metrics": {
            metric: _over([group["metrics"].get(metric, {}) for group in groups], "mean")
            for metric in first["metrics"]
        },
        "gap_closed": {
            metric: _over([group["gap_closed"].get(metric, {}) for group in groups], "value")
            for metric in first["gap_closed"]
        },
    }


def _group(split: SplitResult, members: Sequence[str], seed: int) -> Mapping[str, Any]:
    """What the evaluation says of a row: its group there, as a row's models differ in the seed alone.

    Models of several rows may be alike but for the seed too (teachers that are, or a teacher with its student's
    options). Then the groups are others, and the row is put together from its models.
    """
    groups = cast("Mapping[str, Mapping[str, Any]]", split.result["groups"])
    group = next(group for group in groups.values() if members[0] in group["members"])
    if set(group["members"]) == set(members):
        return group
    each = [split.result["models"][member]["metrics"] for member in members]
    metrics = [name for name in each[0] if name in split.per_user.columns]
    values = mean_values([_by_model(split, metrics)[member] for member in members])
    num_users = len(next(iter(values.values())))
    bootstrap = Bootstrap(num_users, torch.Generator().manual_seed(seed))
    return {"metrics": averaged_metrics(each, values, bootstrap), "gap_closed": _mean_gaps(split, members)}


def _mean_gaps(split: SplitResult, members: Sequence[str]) -> Json:
    """The mean of the gaps that a row's models closed, by metric; none of a teacher."""
    gaps: list[Mapping[str, float | None]] = [
        split.result["gap_closed"].get(member, {}) for member in members
    ]
    found: Json = {}
    for metric in gaps[0]:
        known = [value for gap in gaps if (value := gap.get(metric)) is not None]
        reasons = split.result["gap_closed_reasons"].get(members[0], {})
        if len(known) == len(members):
            found[metric] = {"value": fmean(known), "interval": None, "reason": None}
        else:
            found[metric] = {"value": None, "interval": None, "reason": reasons.get(metric, "no value")}
    return found


def _over(each: Sequence[Mapping[str, Any]], key: str) -> Json:
    """One split's number as it is, or the mean and the spread of several splits' numbers."""
    if len(each) == 1:
        found = {
            "mean": each[0].get(key),
            "spread": each[0].get("spread"),
            "interval": each[0].get("interval"),
        }
        return found | ({"reason": each[0]["reason"]} if each[0].get("reason") else {})
    known = [entry[key] for entry in each if entry.get(key) is not None]
    if len(known) < len(each):
        reasons = [str(entry.get("reason") or "no value") for entry in each if entry.get(key) is None]
        return {
            "mean": None,
            "spread": None,
            "reason": f"in {len(reasons)} of {len(each)} splits: {reasons[0]}",
        }
    return {"mean": fmean(known), "spread": stdev(known), "each": known}


def _values(split: SplitResult, names: Sequence[str], metrics: Sequence[str]) -> dict[str, Values]:
    """Each row's values of the users, averaged over the model seeds."""
    models = _by_model(split, metrics)
    return {name: mean_values([models[member] for member in split.rows[name]]) for name in names}


def _by_model(split: SplitResult, metrics: Sequence[str]) -> dict[str, Values]:
    wanted = split.per_user.select("model", *metrics)
    models: dict[str, Values] = {}
    for (model,), frame in wanted.group_by("model", maintain_order=True):
        models[str(model)] = {
            metric: torch.from_numpy(frame[metric].cast(pl.Float64).fill_null(np.nan).to_numpy().copy())
            for metric in metrics
        }
    return models


def _shares(
    values: Mapping[str, Values],
    lineage: Mapping[str, tuple[str, str]],
    tests: Sequence[Compared],
    seed: int,
) -> dict[str, dict[str, Json]]:
    """The rows' shares of the gap by the metrics tested, where these tests say that there is a gap."""
    known = {name: pair for name, pair in lineage.items() if {name, *pair} <= values.keys()}
    if not known or not tests:
        return {}
    metrics = list(dict.fromkeys(test["metric"] for test in tests))
    families = {metric: [test for test in tests if test["metric"] == metric] for metric in metrics}
    num_users = len(next(iter(values.values()))[metrics[0]])
    bootstrap = Bootstrap(num_users, torch.Generator().manual_seed(seed))
    found: dict[str, dict[str, Json]] = {}
    for name, (teacher, alone) in known.items():
        gaps = gaps_closed(values[name], values[teacher], values[alone], metrics, bootstrap)
        found[name] = {}
        for metric, gap in gaps.items():
            ahead, reason = beats(families[metric], teacher, alone, metric)
            share = (
                {"value": gap.value, "interval": gap.interval, "reason": gap.reason}
                if ahead
                else {"value": None, "interval": None, "reason": reason}
            )
            found[name][metric] = _over([share], "value")
    return found


def _over_users(values: Mapping[str, Values], metric: str, seed: int) -> list[Compared]:
    pairs = list(combinations(values, 2))
    permutations = max(PERMUTATIONS, _PERMUTATIONS_A_PAIR * len(pairs))
    differences: list[float] = []
    p_values: list[Tensor] = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        each = torch.stack([values[a][metric] - values[b][metric] for a, b in some], dim=1)  # (n, pairs)
        differences += each.nanmean(0).tolist()
        generator = torch.Generator().manual_seed(seed)
        p_values.append(sign_flip_test(each.nan_to_num(), generator, permutations))
    return _tests(pairs, metric, differences, torch.cat(p_values) if p_values else torch.empty(0))


def _over_splits(splits: Sequence[SplitResult], rows: Mapping[str, Json], metric: str) -> list[Compared]:
    """Compare rows by their means in each split.

    Train parts of random splits overlap, so their means vary less than those of independent data: the
    variance is multiplied by 1/n + test/train in place of 1/n.
    """
    means = {name: row["metrics"][metric].get("each") for name, row in rows.items()}
    pairs = [pair for pair in combinations(rows, 2) if all(means[name] is not None for name in pair)]
    factor = 1 / len(splits) + fmean(split.test_ratio for split in splits)
    differences: list[float] = []
    p_values: list[float] = []
    for a, b in pairs:
        each = np.subtract(means[a], means[b])
        mean, scale = float(each.mean()), float(np.sqrt(each.var(ddof=1) * factor))
        differences.append(mean)
        if scale > 0:
            p_values.append(float(2 * stats.t.sf(abs(mean) / scale, len(splits) - 1)))
        else:
            p_values.append(1.0 if mean == 0 else 0.0)
    return _tests(pairs, metric, differences, torch.tensor(p_values, dtype=torch.float64))


def _tests(
    pairs: Sequence[tuple[str, str]], metric: str, differences: Sequence[float], p_values: Tensor
) -> list[Compared]:
    found = zip(pairs, differences, p_values.tolist(), holm(p_values).tolist(), strict=True)
    return [
        Compared(a=a, b=b, metric=metric, difference=difference, p=p, p_holm=p_holm)
        for (a, b), difference, p, p_holm in found
    ]
