"""From one table of interactions to three splits with dense indices: filters, order, split, vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data import splits
from recdistill.data.filters import core, occurrences
from recdistill.data.hashing import mix
from recdistill.data.sorting import stable_order
from recdistill.data.splits import TEST, TRAIN, VALID, Labels, SplitName
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import DataError

_LABELS = {"train": TRAIN, "valid": VALID, "test": TEST}


@dataclass(frozen=True)
class Rules:
    """What to keep and how to cut it; see :func:`recdistill.steps.prepare.prepare` for each."""

    min_rating: float | None = None
    min_user_interactions: int = 1
    min_item_interactions: int = 1
    duplicates: Literal["merge", "keep"] | None = None
    split: SplitName | None = None
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    holdout: Literal["last", "random"] | None = None
    unseen_items: Literal["keep", "drop"] = "keep"
    valid_share: float = 0.1


@dataclass(frozen=True)
class Rows:
    """Interactions by index, sorted by user, then position or time, then item.

    Attributes:
        user, item: ``(n,)`` int32.
        time: ``(n,)`` float64 seconds, or None.
        position: ``(n,)`` int64, or None.
        given: ``(n,)`` the source's own split, or None.
        source: ``(n,)`` place of each row in the source.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.float64] | None
    position: NDArray[np.int64] | None
    given: Labels | None
    source: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    @property
    def has_order(self) -> bool:
        return self.time is not None or self.position is not None

    def take(self, chosen: NDArray[Any]) -> Rows:
        """The rows of a mask or of places."""
        return Rows(
            self.user[chosen],
            self.item[chosen],
            None if self.time is None else self.time[chosen],
            None if self.position is None else self.position[chosen],
            None if self.given is None else self.given[chosen],
            self.source[chosen],
        )


@dataclass
class Assembled:
    """Splits with their vocabularies.

    Attributes:
        tables: ``train``, ``valid`` and ``test``: user, item (Int32) and time, position where there are any.
        summary: the counts that go into the manifest.
    """

    users: Vocabulary
    items: Vocabulary
    tables: dict[str, pl.DataFrame]
    summary: dict[str, Any]


@dataclass
class _Tally:
    """Rows dropped so far, by what dropped them; an empty table ends the step with that list."""

    read: int
    dropped: dict[str, int] = field(default_factory=dict[str, int])

    def drop(self, why: str, count: int) -> None:
        if count:
            self.dropped[why] = self.dropped.get(why, 0) + count

    def check(self, left: int) -> None:
        if not left:
            reasons = ", ".join(f"{count:,} by {why}" for why, count in self.dropped.items())
            raise DataError(
                f"no interactions are left of {self.read:,}: dropped {reasons}", "loosen the filters"
            )


def assemble(
    table: pl.DataFrame, rules: Rules, seed: int, from_text: bool, note: Callable[[str], None]
) -> Assembled:
    """Filter, order and split a table of interactions.

    Args:
        table: as :func:`recdistill.data.readers.read_files` returns it.
        rules: what to keep and how to cut it.
        seed: of random splits.
        from_text: the ids come from a text format, see :meth:`Vocabulary.encode`.
        note: told in one line what the caller should know.

    Raises:
        DataError: where nothing is left, or the split cannot be made from these columns.
    """
    tally = _Tally(len(table))
    table = _filter_table(table, rules, tally)
    user, users = Vocabulary.encode(table["user_id"], "user_id", from_text)
    item, items = Vocabulary.encode(table["item_id"], "item_id", from_text)
    rows = _ordered(table, user, item)
    rules = _resolved(rules, rows, note)
    earlier = occurrences(rows.user, rows.item) if rows.given is None else _given_occurrences(rows)
    if rules.duplicates == "merge" and earlier.any():
        tally.drop("duplicates", int((earlier > 0).sum()))
        rows, earlier = rows.take(earlier == 0), None
    rows, earlier = _core(rows, earlier, rules, tally)
    keys = splits.random_keys(seed, users.hashes[rows.user], items.hashes[rows.item], earlier)
    labels = _labels(rows, rules, keys, note)
    if rules.split == "given" and rules.valid_share and not (labels == VALID).any():
        user_keys = mix(users.hashes ^ np.uint64(seed))
        labels = splits.carve_valid(
            rows.user, labels, rules.valid_share, user_keys, _holdout_order(rows, rules, keys)
        )
        note(
            f"no valid split given: took the last train row of {int((labels == VALID).sum()):,} users for it"
        )
    rows, labels, unseen_share = _unseen(rows, labels, len(items), rules, tally)
    _check_splits(rows, labels, rules)
    return _finish(rows, labels, users, items, unseen_share, rules, tally)


def _filter_table(table: pl.DataFrame, rules: Rules, tally: _Tally) -> pl.DataFrame:
    if rules.min_rating is not None:
        table = table.filter(pl.col("rating") >= rules.min_rating)
        tally.drop("min_rating", tally.read - len(table))
    if "position" in table.columns:
        before = len(table)
        table = table.filter(pl.col("position").is_not_null())
        tally.drop("no position", before - len(table))
    tally.check(len(table))
    return table


def _ordered(table: pl.DataFrame, user: NDArray[np.int32], item: NDArray[np.int32]) -> Rows:
    time = table["time"].to_numpy() if "time" in table.columns else None
    position = table["position"].to_numpy() if "position" in table.columns else None
    given = None
    if "split" in table.columns:
        given = table["split"].replace_strict(_LABELS, return_dtype=pl.UInt8).to_numpy()
    first = position if position is not None else time
    order = stable_order(*([user, item] if first is None else [user, first, item]))
    return Rows(user, item, time, position, given, np.arange(len(user))).take(order)


def _resolved(rules: Rules, rows: Rows, note: Callable[[str], None]) -> Rules:
    """Defaults that depend on what the source has."""
    split = rules.split or ("random" if rows.given is None else "given")
    if split == "given" and rows.given is None:
        raise DataError(
            "--split given needs a split column", "name it with --split-column, or choose another split"
        )
    if split == "temporal" and rows.time is None:
        raise DataError(
            "--split temporal needs a time column", "name it with --time-column, or choose another split"
        )
    if split == "leave-one-out" and rules.holdout == "last" and not rows.has_order:
        raise DataError(
            "--holdout last needs a time or position column",
            "name it with --time-column, or use --holdout random",
        )
    if split == "given" and max(rules.min_user_interactions, rules.min_item_interactions) > 1:
        note("--min-user-interactions and --min-item-interactions are ignored: the split is given")
        rules = replace(rules, min_user_interactions=1, min_item_interactions=1)
    return replace(
        rules,
        split=split,
        duplicates=rules.duplicates or ("keep" if rows.has_order else "merge"),
        holdout=rules.holdout or ("last" if rows.has_order else "random"),
    )


def _given_occurrences(rows: Rows) -> NDArray[np.int64]:
    """Repeats in the order train, valid, test, so that a pair in several splits stays in the first."""
    assert rows.given is not None
    order = stable_order(rows.given)
    earlier = np.empty(len(rows), dtype=np.int64)
    earlier[order] = occurrences(rows.user[order], rows.item[order])
    return earlier


def _core(
    rows: Rows, earlier: NDArray[np.int64] | None, rules: Rules, tally: _Tally
) -> tuple[Rows, NDArray[np.int64] | None]:
    if max(rules.min_user_interactions, rules.min_item_interactions) == 1:
        return rows, earlier
    stay, by_user = core(rows.user, rows.item, rules.min_user_interactions, rules.min_item_interactions)
    tally.drop("min_user_interactions", int(by_user.sum()))
    tally.drop("min_item_interactions", int((~stay & ~by_user).sum()))
    tally.check(int(stay.sum()))
    return rows.take(stay), None if earlier is None else earlier[stay]


def _labels(rows: Rows, rules: Rules, keys: NDArray[np.uint64], note: Callable[[str], None]) -> Labels:
    if rules.split == "given":
        assert rows.given is not None
        return rows.given
    if rules.split == "temporal":
        assert rows.time is not None
        return splits.temporal(rows.time, rules.ratios)
    if rows.time is not None:
        note(f"the {rules.split} split lets training see what happened after the test; temporal does not")
    if rules.split == "leave-one-out":
        return splits.leave_one_out(rows.user, _holdout_order(rows, rules, keys))
    if rules.split == "file-order":
        note(
            "warning: the file-order split is for reproducing published tables; where a file lists "
            "items by id, it tests items never seen in training"
        )
        return splits.by_ratio(rows.user, rules.ratios, stable_order(rows.user, rows.source))
    return splits.by_ratio(rows.user, rules.ratios, splits.random_order(rows.user, keys))


def _holdout_order(rows: Rows, rules: Rules, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    if rules.holdout == "last":
        return np.arange(len(rows))
    return splits.random_order(rows.user, keys)


def _unseen(
    rows: Rows, labels: Labels, num_items: int, rules: Rules, tally: _Tally
) -> tuple[Rows, Labels, float | None]:
    """The share of test rows on items without train rows; such rows are dropped if asked."""
    seen = np.bincount(rows.item[labels == TRAIN], minlength=num_items) > 0
    unseen = ~seen[rows.item]
    tested = labels == TEST
    share = float(unseen[tested].mean()) if tested.any() else None
    if rules.unseen_items == "drop" and unseen.any():
        tally.drop("unseen_items", int(unseen.sum()))
        rows, labels = rows.take(~unseen), labels[~unseen]
    return rows, labels, share


def _check_splits(rows: Rows, labels: Labels, rules: Rules) -> None:
    counts = np.bincount(labels, minlength=3)
    if not counts[TRAIN]:
        raise DataError(
            f"the {rules.split} split left no train rows of {len(rows):,}", "check the split column"
        )
    if not counts[TEST]:
        most = int(np.bincount(rows.user).max())
        raise DataError(
            f"no user has a test row: the {rules.split} split of {len(rows):,} rows left none; "
            f"the busiest user has {most} interaction{'s' if most > 1 else ''}",
            "users need at least 2; look at the filters and the split",
        )


def _finish(
    rows: Rows,
    labels: Labels,
    users: Vocabulary,
    items: Vocabulary,
    unseen_share: float | None,
    rules: Rules,
    tally: _Tally,
) -> Assembled:
    user, users = _compact(rows.user, users)
    item, items = _compact(rows.item, items)
    columns: dict[str, Any] = {"user": user, "item": item, "time": rows.time, "position": rows.position}
    columns = {name: values for name, values in columns.items() if values is not None}
    tables = {
        name: pl.DataFrame({column: values[labels == label] for column, values in columns.items()})
        for name, label in _LABELS.items()
    }
    has_train = np.bincount(user[labels == TRAIN], minlength=len(users)) > 0
    has_test = np.bincount(user[labels == TEST], minlength=len(users)) > 0
    summary: dict[str, Any] = {
        "users": len(users),
        "items": len(items),
        **{name: len(table) for name, table in tables.items()},
        "rows": tally.read,
        "dropped": tally.dropped,
        "split": rules.split,
        "duplicates": rules.duplicates,
        "holdout": rules.holdout if rules.split == "leave-one-out" else None,
        "test_users": int(has_test.sum()),
        "test_users_without_train": int((has_test & ~has_train).sum()),
        "unseen_share": unseen_share,
        "has_order": rows.has_order,
        "has_repeats": bool((occurrences(user, item) > 0).any()) if rules.duplicates == "keep" else False,
    }
    return Assembled(users, items, tables, summary)


def _compact(indices: NDArray[np.int32], vocabulary: Vocabulary) -> tuple[NDArray[np.int32], Vocabulary]:
    """Leave out ids that no row has; the others keep their order."""
    used = np.bincount(indices, minlength=len(vocabulary)) > 0
    if bool(used.all()):
        return indices, vocabulary
    renumbered = (np.cumsum(used) - 1).astype(np.int32)
    return renumbered[indices], vocabulary.keep(used)
