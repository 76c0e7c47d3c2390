"""From one table of interactions to three splits with dense indices: filters, order, split, vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data import splits
from recdistill.data.filters import core
from recdistill.data.hashing import mix
from recdistill.data.rows import Rows, compact, ordered, with_repeats
from recdistill.data.sorting import stable_order
from recdistill.data.splits import LABELS, TEST, TRAIN, VALID, Labels, SplitName
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import DataError
from recdistill.wording import counted


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
    rows = with_repeats(ordered(table, user, item))
    asked, rules = rules.duplicates, _resolved(rules, rows, note)
    if asked is None and rows.repeat is not None:
        _note_repeats(int((rows.repeat > 0).sum()), rules.duplicates == "merge", note)
    if rules.duplicates == "merge" and rows.repeat is not None:
        first = rows.repeat == 0
        tally.drop("duplicates", int((~first).sum()))
        rows = replace(rows.take(first), repeat=None)
    rows = _core(rows, rules, tally)
    keys = splits.random_keys(seed, users.hashes[rows.user], items.hashes[rows.item], rows.repeat)
    _note_ties(rows, rules, note)
    labels = _labels(rows, rules, keys, note)
    wanted = rules.split == "given" or rules.ratios[1] > 0
    if rules.valid_share and wanted and not (labels == VALID).any():
        labels = _carved(rows, labels, rules, keys, mix(users.hashes ^ np.uint64(seed)), note)
    rows, labels, unseen_share = _unseen(rows, labels, len(items), rules, tally)
    _check_splits(rows, labels, rules)
    if rules.split in splits.BY_USER:
        _note_short(rows.user, labels, note)
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


def _note_repeats(number: int, merged: bool, note: Callable[[str], None]) -> None:
    """What the default does with repeats: it decides what evaluation masks, so it is never silent."""
    found = f"{counted(number, 'row repeats', 'rows repeat')} an item of their user"
    if merged:
        note(f"{found}: left out, because rows have no order; --duplicates keep keeps them")
    else:
        note(
            f"{found}: kept, because rows have an order, so nothing seen is left out of rankings; "
            "--duplicates merge keeps the first of each"
        )


def _core(rows: Rows, rules: Rules, tally: _Tally) -> Rows:
    if max(rules.min_user_interactions, rules.min_item_interactions) == 1:
        return rows
    stay, by_user = core(rows.user, rows.item, rules.min_user_interactions, rules.min_item_interactions)
    tally.drop("min_user_interactions", int(by_user.sum()))
    tally.drop("min_item_interactions", int((~stay & ~by_user).sum()))
    tally.check(int(stay.sum()))
    return rows.take(stay)


def _labels(rows: Rows, rules: Rules, keys: NDArray[np.uint64], note: Callable[[str], None]) -> Labels:
    if rules.split == "given":
        assert rows.given is not None
        return rows.given
    if rules.split == "temporal":
        assert rows.time is not None
        return splits.temporal(rows.time, rules.ratios)
    _note_leaks(rows, rules, note)
    if rules.split == "leave-one-out":
        return splits.leave_one_out(rows.user, _holdout_order(rows, rules, keys))
    if rules.split == "file-order":
        note(
            "warning: the file-order split is for reproducing published tables; where a file lists "
            "items by id, it tests items never seen in training"
        )
        return splits.by_ratio(rows.user, rules.ratios, stable_order(rows.user, rows.source))
    return splits.by_ratio(rows.user, rules.ratios, splits.random_order(rows.user, keys))


def _carved(
    rows: Rows,
    labels: Labels,
    rules: Rules,
    keys: NDArray[np.uint64],
    user_keys: NDArray[np.uint64],
    note: Callable[[str], None],
) -> Labels:
    """The valid rows that a split has not, of the last train rows."""
    carved = splits.carve_valid(
        rows.user, labels, rules.valid_share, user_keys, _holdout_order(rows, rules, keys)
    )
    if count := int((carved == VALID).sum()):
        why = (
            "no valid split given"
            if rules.split == "given"
            else f"the {rules.split} split left no valid rows"
        )
        note(f"{why}: took the last train row of {counted(count, 'user')} for it")
    return carved


def _note_ties(rows: Rows, rules: Rules, note: Callable[[str], None]) -> None:
    """How many rows have no order of their own, where the order decides the split."""
    when = rows.position if rows.position is not None else rows.time
    by_order = rules.split == "temporal" or (rules.split == "leave-one-out" and rules.holdout == "last")
    if when is None or not by_order:
        return
    after = (rows.user[1:] == rows.user[:-1]) & (when[1:] == when[:-1])
    tied = int((np.append(after, False) | np.insert(after, 0, False)).sum())
    if tied:
        name = "position" if rows.position is not None else "time"
        note(
            f"{counted(tied, 'row has', 'rows have')} the {name} of another row of their user: a fixed hash of the item"
            " puts them in order"
        )


def _note_leaks(rows: Rows, rules: Rules, note: Callable[[str], None]) -> None:
    by_chance = rules.split != "leave-one-out" or rules.holdout == "random"
    if rows.has_order and by_chance:
        better = "temporal" if rows.time is not None else "leave-one-out"
        note(f"leaky split: {rules.split} trains on what users did after the rows tested; {better} does not")
    elif rows.time is not None:
        note(f"leaky split: {rules.split} trains on what others did after the rows tested; temporal does not")


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
            f"the busiest user has {counted(most, 'interaction')}",
            "users need at least 2; look at the filters and the split",
        )


def _note_short(users: NDArray[np.int32], labels: Labels, note: Callable[[str], None]) -> None:
    """How many users are too short for a split that cuts each user's rows."""
    everyone = _distinct(users)
    missing = {part: everyone - _distinct(users[labels == LABELS[part]]) for part in ("valid", "test")}
    told = ", ".join(f"{count:,} without a {part} row" for part, count in missing.items() if count)
    if told:
        note(f"too few interactions for the split: of {counted(everyone, 'user')} {told}")


def _distinct(users: NDArray[np.int32]) -> int:
    return int((np.bincount(users) > 0).sum())


def _finish(
    rows: Rows,
    labels: Labels,
    users: Vocabulary,
    items: Vocabulary,
    unseen_share: float | None,
    rules: Rules,
    tally: _Tally,
) -> Assembled:
    user, users = compact(rows.user, users)
    item, items = compact(rows.item, items)
    columns: dict[str, Any] = {"user": user, "item": item, "time": rows.time, "position": rows.position}
    columns = {name: values for name, values in columns.items() if values is not None}
    tables = {
        name: pl.DataFrame({column: values[labels == label] for column, values in columns.items()})
        for name, label in LABELS.items()
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
        "has_repeats": rows.repeat is not None and bool(rows.repeat.any()),
    }
    return Assembled(users, items, tables, summary)
