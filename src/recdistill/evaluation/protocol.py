"""The two protocols: full ranking over all items, and ranking among sampled candidates.

A `Task` fixes who is ranked against what, so that every model is asked the same. Memory is one block of
users beside the per-user values (and the lists, where another model is compared with them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.data.sequences import newcomers
from recdistill.errors import DataError
from recdistill.evaluation.candidates import Negatives, candidate_ranks
from recdistill.evaluation.metrics import (
    Coverage,
    Hits,
    find_hits,
    group_recall,
    hit_metrics,
    overlap,
    rank_metrics,
)
from recdistill.evaluation.popularity import (
    NUM_GROUPS,
    list_popularity,
    popularity_groups,
    profile_popularity,
)
from recdistill.evaluation.rankers import Ranker, blocks
from recdistill.ops import Rows

Split = Literal["valid", "test"]
Mask = Literal["default", "seen", "none"]
Advance = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of every model.

    Attributes:
        split: where the targets come from.
        users: (n,) int64 ascending, the users with at least one target.
        targets: the pairs to be found.
        masked_splits: the splits whose pairs are not ranked.
        masked: their pairs, or None.
        train: the train interactions, for popularity.
        ks: ascending cut-offs.
        num_masked_targets: pairs of the split that are masked, and so are no targets.
        known: what sequence models read as histories, to be joined: train, valid at test, and the earlier rows of
            users without train rows.
        num_newcomers: users without train rows whose last row is the target and whose other rows are their history.
    """

    split: Split
    users: Tensor
    targets: Interactions
    masked_splits: tuple[str, ...]
    masked: Interactions | None
    train: Interactions
    ks: tuple[int, ...]
    num_masked_targets: int = 0
    known: tuple[Interactions, ...] = ()
    num_newcomers: int = 0

    @property
    def num_items(self) -> int:
        return self.train.num_items

    @property
    def num_cold(self) -> int:
        """Users with a target and without a train row."""
        return int((self.train.user_counts[self.users] == 0).sum())

    @cached_property
    def histories(self) -> Interactions:
        """What sequence models read."""
        return self.known[0].union(*self.known[1:]) if self.known else self.train

    @cached_property
    def groups(self) -> Tensor:
        """(I,) int64: the popularity group of each item."""
        return popularity_groups(self.train.item_counts)

    @cached_property
    def profile(self) -> float:
        """Mean popularity of what the users took in train."""
        return profile_popularity(self.train, self.users)


def make_task(data: Data, split: Split, mask: Mask, ks: Sequence[int]) -> Task:
    """Read the targets of a split and decide what is masked.

    Args:
        data: prepared data.
        split: ``test``, or ``valid``.
        mask: ``seen`` masks train (and valid, at test), ``none`` nothing; ``default`` is ``seen`` for data
            in which nobody takes an item twice, else ``none``.
        ks: cut-offs, each at least 1.

    Raises:
        DataError: no user has a target.
    """
    if mask == "default":
        mask = "none" if data.has_repeats else "seen"
    names = () if mask == "none" else ("train", "valid") if split == "test" else ("train",)
    parts = [data.split(name) for name in names]
    targets, earlier = newcomers(data.split(split), data.train)
    if parts and earlier is not None:
        parts.append(earlier)
    masked = parts[0].union(*parts[1:]) if parts else None
    known = (data.train, data.valid) if split == "test" else (data.train,)
    num_pairs = targets.num_pairs
    if masked is not None:
        targets = _without(targets, masked)
    users = (targets.user_counts > 0).nonzero().squeeze(1)
    if not len(users):
        found = f"{num_pairs} rows, all of them masked" if num_pairs else "no rows"
        raise DataError(
            f"expected users with a {split} row, found {found} in the {split} split of {data.path}",
            f"prepare the data with a {split} split" if not num_pairs else "use --mask none",
        )
    return Task(
        split=split,
        users=users,
        targets=targets,
        masked_splits=names,
        masked=masked,
        train=data.train,
        ks=tuple(sorted(set(ks))),
        num_masked_targets=num_pairs - targets.num_pairs,
        known=known if earlier is None else (*known, earlier),
        num_newcomers=0 if earlier is None else int((earlier.user_counts > 0).sum()),
    )


def _without(targets: Interactions, masked: Interactions) -> Interactions:
    seen = masked.contains(targets.users, targets.items)
    if not bool(seen.any()):
        return targets
    kept = ~seen
    return Interactions.from_events(
        targets.users[kept], targets.items[kept], targets.num_users, targets.num_items
    )


@dataclass
class Outcome:
    """What one model reached.

    Attributes:
        values: metric -> (n,) float64, one value a user of the task, NaN where the user has none.
        totals: metrics of all lists together (coverage).
        group_recall: cut-off -> (n, groups) float64.
        lists: (n, max k) int32 if asked for.
    """

    values: dict[str, Tensor]
    totals: dict[str, float] = field(default_factory=lambda: {})
    group_recall: dict[int, Tensor] = field(default_factory=lambda: {})
    lists: Tensor | None = None


def rank_all(
    ranker: Ranker,
    task: Task,
    *,
    teacher_lists: Tensor | None = None,
    keep_lists: bool = False,
    advance: Advance | None = None,
) -> Outcome:
    """Rank all items for every user of the task.

    Args:
        ranker: what is evaluated.
        task: who is ranked against what.
        teacher_lists: (n, max k) lists of the teacher for the same users, for ``overlap@k``.
        keep_lists: keep this model's lists, for its students.
        advance: told the number of users done, block after block.
    """
    deepest = task.ks[-1]
    coverage = Coverage(task.num_items, task.ks)
    parts: list[dict[str, Tensor]] = []
    recalls: list[Tensor] = []
    lists = torch.empty(len(task.users), deepest, dtype=torch.int32) if keep_lists else None
    start = 0
    for users in blocks(task.users):
        end = start + len(users)
        ids = ranker.top(users, deepest, task.masked)  # (b, k)
        targets = task.targets.rows(users)
        hits = find_hits(ids, targets)
        values = hit_metrics(hits, task.ks)
        values["popularity_lift"] = list_popularity(ids, task.train.item_counts) / task.profile
        if teacher_lists is not None:
            values |= overlap(ids, teacher_lists[start:end], task.ks, task.num_items)
        recall = _recall_by_group(hits, targets, task)
        # targets are never masked, so a list is empty only where a store does not cover the user
        uncovered = ids[:, 0] < 0
        for value in (*values.values(), recall):
            value[uncovered] = torch.nan
        parts.append(values)
        recalls.append(recall)
        coverage.add(ids)
        if lists is not None:
            lists[start:end] = ids
        if advance is not None:
            advance(len(users))
        start = end
    return _outcome(parts, recalls, task, coverage.value(), lists)


def rank_sampled(
    ranker: Ranker, task: Task, negatives: Negatives, *, advance: Advance | None = None
) -> Outcome:
    """Rank each target among its user's negatives; equal scores by smaller item id, as in full ranking.

    The other targets of a user are no candidates, and nothing else is masked: negatives are in none of the
        splits.

    Args:
        ranker: what is evaluated.
        task: who is ranked against what.
        negatives: the candidates of each user.
        advance: told the number of users done, block after block.
    """
    parts: list[dict[str, Tensor]] = []
    recalls: list[Tensor] = []
    for users, drawn in negatives.blocks(task.users):
        targets = task.targets.rows(users)
        row, items = targets.pairs
        ranks = candidate_ranks(ranker, users, row, items, drawn)
        parts.append(rank_metrics(ranks, targets.indptr, task.ks))
        recalls.append(_recall_by_group(Hits(row, ranks, items, targets.indptr.diff()), targets, task))
        if advance is not None:
            advance(len(users))
    return _outcome(parts, recalls, task)


def _recall_by_group(hits: Hits, targets: Rows, task: Task) -> Tensor:
    """(n, cut-offs, groups) float64."""
    each = [group_recall(hits, targets, task.groups, NUM_GROUPS, k) for k in task.ks]
    return torch.stack(each, dim=1)


def _outcome(
    parts: Sequence[dict[str, Tensor]],
    recalls: Sequence[Tensor],
    task: Task,
    totals: dict[str, float] | None = None,
    lists: Tensor | None = None,
) -> Outcome:
    """The blocks laid end to end."""
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    recall = torch.cat(list(recalls))
    values |= {f"tail_recall@{k}": recall[:, place, 0].clone() for place, k in enumerate(task.ks)}
    by_group = {k: recall[:, place] for place, k in enumerate(task.ks)}
    return Outcome(values, totals or {}, by_group, lists)
