"""From a source to a data directory: counts, options, bad input, what the result does not depend on."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from line_cases import Notes
from recdistill.data import registry
from recdistill.data.prepared import Data
from recdistill.data.readers import NoSourceError
from recdistill.data.registry import PublicSet
from recdistill.errors import ArtifactError, DataError, OptionError
from recdistill.steps.prepare import prepare


def table(rows: int = 400, users: int = 20, items: int = 30, seed: int = 0) -> pl.DataFrame:
    """Distinct pairs with ratings and times."""
    generator = np.random.default_rng(seed)
    keys = generator.permutation(users * items)[:rows]
    return pl.DataFrame(
        {
            "user_id": keys // items * 10,
            "item_id": [f"item {key % items}" for key in keys],
            "rating": generator.integers(1, 6, rows),
            "timestamp": generator.permutation(rows) + 1_000,
        }
    )


PLAIN = table().select("user_id", "item_id")


def external(data: Data, split: str) -> list[tuple[Any, Any]]:
    """The events of a split by external id."""
    part = data.split(split)
    users, items = data.users.ids(part.event_users), data.items.ids(part.event_items)
    return list(zip(users.to_list(), items.to_list(), strict=True))


def all_external(data: Data) -> dict[str, list[tuple[Any, Any]]]:
    return {split: external(data, split) for split in ("train", "valid", "test")}


# ---- what is written


def test_every_row_is_in_one_split(tmp_path: Path) -> None:
    data = prepare(PLAIN, tmp_path / "data")
    parts = all_external(data)
    joined = [pair for part in parts.values() for pair in part]
    assert sorted(joined) == sorted(PLAIN.rows())
    summary = data.manifest.summary
    assert (summary["users"], summary["items"], summary["rows"]) == (20, 30, 400)
    assert [summary[name] for name in ("train", "valid", "test")] == [len(part) for part in parts.values()]
    assert (data.num_users, data.num_items) == (data.train.num_users, data.train.num_items) == (20, 30)
    assert data.manifest.kind == "data"
    assert not data.has_order
    assert not data.has_repeats


def test_shares_of_each_user(tmp_path: Path) -> None:
    data = prepare(PLAIN, tmp_path / "data", ratios=(0.5, 0.25, 0.25))
    for user, rows in PLAIN.group_by("user_id").len().rows():
        counts = [
            sum(pair[0] == user for pair in external(data, name)) for name in ("train", "valid", "test")
        ]
        assert counts == [rows // 2, 3 * rows // 4 - rows // 2, rows - 3 * rows // 4]


def test_columns_and_types_of_the_tables(tmp_path: Path) -> None:
    data = prepare(table().with_columns(pl.lit(1).alias("position")), tmp_path / "data")
    schema = pl.read_parquet_schema(data.path / "train.parquet")
    assert dict(schema) == {"user": pl.Int32, "item": pl.Int32, "time": pl.Float64, "position": pl.Int64}
    assert set(pl.read_parquet_schema(data.path / "users.parquet")) == {"user_id"}
    assert set(pl.read_parquet_schema(data.path / "items.parquet")) == {"item_id"}


def test_test_rows_are_read_only_when_asked_for(tmp_path: Path) -> None:
    path = prepare(PLAIN, tmp_path / "data").path
    (path / "test.parquet").write_bytes(b"not to be opened")
    data = Data.load(path)
    assert data.train.num_pairs + data.valid.num_pairs < 400
    assert len(data.users) == 20
    with pytest.raises(ArtifactError):
        _ = data.test
    with pytest.raises(OptionError, match="train, valid, test"):
        data.split("holdout")


# ---- what the result does not depend on


def test_order_of_the_source_does_not_matter(tmp_path: Path) -> None:
    for split in ("random", "leave-one-out", "temporal"):
        first = prepare(table(), tmp_path / f"{split}-1", split=split)
        shuffled = table().sample(fraction=1.0, shuffle=True, seed=1)
        second = prepare(shuffled, tmp_path / f"{split}-2", split=split)
        assert all_external(first) == all_external(second)
        assert first.users.hash == second.users.hash


def test_formats_do_not_matter(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "a.csv")
    table().write_ndjson(tmp_path / "a.jsonl")
    table().write_parquet(tmp_path / "a.parquet")
    parts = [
        all_external(prepare(source, tmp_path / f"out-{number}"))
        for number, source in enumerate(
            [
                tmp_path / "a.csv",
                tmp_path / "a.jsonl",
                tmp_path / "a.parquet",
                table(),
                table().lazy(),
                table().to_arrow(),
            ]
        )
    ]
    assert all(part == parts[0] for part in parts)


def test_split_of_a_user_does_not_depend_on_other_users(tmp_path: Path) -> None:
    whole = prepare(PLAIN, tmp_path / "whole")
    half = prepare(PLAIN.filter(pl.col("user_id") < 100), tmp_path / "half")
    for split in ("train", "valid", "test"):
        assert sorted(external(half, split)) == sorted(
            pair for pair in external(whole, split) if pair[0] < 100
        )


def test_seed_matters(tmp_path: Path) -> None:
    first, second = prepare(PLAIN, tmp_path / "0", seed=0), prepare(PLAIN, tmp_path / "1", seed=1)
    assert external(first, "test") != external(second, "test")


# ---- splits


def test_leave_one_out_last(tmp_path: Path) -> None:
    data = prepare(table(), tmp_path / "data", split="leave-one-out")
    ordered = table().sort("user_id", "timestamp").group_by("user_id", maintain_order=True).agg("item_id")
    last = dict(ordered.rows())
    assert dict(external(data, "test")) == {user: items[-1] for user, items in last.items()}
    assert dict(external(data, "valid")) == {user: items[-2] for user, items in last.items()}
    history = data.train.union(data.valid)
    mine = data.users.index([50])
    assert data.items.ids(history.event_rows(mine).items).to_list() == last[50][:-1]


def test_leave_one_out_random(tmp_path: Path) -> None:
    data = prepare(table(), tmp_path / "data", split="leave-one-out", holdout="random")
    last = prepare(table(), tmp_path / "last", split="leave-one-out")
    assert data.test.user_counts.tolist() == [1] * 20
    assert external(data, "test") != external(last, "test")


def test_position_goes_before_time(tmp_path: Path) -> None:
    rows = table().with_columns((-pl.col("timestamp")).alias("position"))
    data = prepare(rows, tmp_path / "data", split="leave-one-out")
    first = rows.sort("user_id", "timestamp").group_by("user_id", maintain_order=True).agg("item_id").rows()
    assert dict(external(data, "test")) == {user: items[0] for user, items in first}


def test_rows_without_a_position_are_dropped(tmp_path: Path) -> None:
    rows = table().with_columns(pl.when(pl.int_range(400) >= 10).then(pl.int_range(400)).alias("position"))
    data = prepare(rows, tmp_path / "data")
    assert data.manifest.summary["dropped"] == {"no position": 10}
    ignored = prepare(rows, tmp_path / "ignored", position_column="none")
    assert ignored.manifest.summary["dropped"] == {}


def test_temporal(tmp_path: Path) -> None:
    data = prepare(table(), tmp_path / "data", split="temporal")
    assert data.train.event_times is not None
    assert data.valid.event_times is not None
    assert data.test.event_times is not None
    assert data.train.event_times.max() < data.valid.event_times.min()
    assert data.valid.event_times.max() < data.test.event_times.min()
    assert [data.train.num_events, data.valid.num_events, data.test.num_events] == [320, 40, 40]


def test_given_split_is_taken_and_filters_ignored(tmp_path: Path) -> None:
    names = ["train", "valid", "Test", "training"]
    rows = PLAIN.with_columns(pl.Series("split", [names[row % 4] for row in range(400)]))
    notes = Notes()
    data = prepare(rows, tmp_path / "data", min_user_interactions=1000, progress=notes)
    assert sorted(external(data, "test")) == sorted(PLAIN.rows()[2::4])
    assert sorted(external(data, "valid")) == sorted(PLAIN.rows()[1::4])
    assert any("ignored: the split is given" in text for text in notes.notes)
    other = prepare(rows, tmp_path / "random", split="random")
    assert other.manifest.summary["split"] == "random"
    assert sorted(external(other, "test")) != sorted(external(data, "test"))


def test_valid_is_carved_out_of_a_given_split(tmp_path: Path) -> None:
    rows = table().with_columns(
        pl.Series("split", ["test" if row % 5 == 0 else "train" for row in range(400)])
    )
    notes = Notes()
    data = prepare(rows, tmp_path / "data", valid_share=0.25, progress=notes)
    assert data.valid.num_pairs == 5
    assert any("took the last train row of 5 users" in text for text in notes.notes)
    times = {(user, item): time for user, item, _, time in table().rows()}
    for user, item in external(data, "valid"):
        assert times[user, item] > max(times[pair] for pair in external(data, "train") if pair[0] == user)
    none = prepare(rows, tmp_path / "none", valid_share=0)
    assert none.valid.num_pairs == 0
    assert none.train.num_pairs == 320


def test_valid_is_carved_out_of_a_split_that_leaves_none(tmp_path: Path) -> None:
    rows = pl.DataFrame(  # three times: ratios of .8 and .1 end within the same one
        {
            "user_id": [user for user in range(60) for _ in range(12)],
            "item_id": [(user * 7 + row) % 40 for user in range(60) for row in range(12)],
            "timestamp": [row // 4 for _ in range(60) for row in range(12)],
        }
    )
    notes = Notes()
    data = prepare(rows, tmp_path / "data", split="temporal", valid_share=0.3, progress=notes)
    assert data.valid.num_pairs == 18
    assert "the temporal split left no valid rows: took the last train row of 18 users for it" in notes.notes
    assert any("720 rows have the time of another row of their user" in text for text in notes.notes)
    wanted = prepare(rows, tmp_path / "none", split="random", ratios=(0.8, 0.0, 0.2))
    assert wanted.valid.num_pairs == 0


def test_a_test_user_without_train_rows_keeps_the_sequence(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "session_id": [1, 1, 1, 2, 2, 2],
            "item_id": [5, 6, 5, 6, 5, 6],
            "position": [0, 1, 2, 0, 1, 2],
            "split": ["train"] * 3 + ["test"] * 3,
        }
    )
    data = prepare(rows, tmp_path / "data", valid_share=0)
    assert external(data, "test") == [(2, 6), (2, 5), (2, 6)]
    assert data.has_repeats
    assert data.test.num_pairs == 2
    assert data.manifest.summary["test_users_without_train"] == 1


def test_file_order_warns(tmp_path: Path) -> None:
    rows = pl.DataFrame({"user_id": [1] * 10, "item_id": [9, 3, 5, 1, 8, 2, 7, 0, 6, 4]})
    notes = Notes()
    data = prepare(rows, tmp_path / "data", split="file-order", progress=notes)
    assert sorted(external(data, "train")) == [(1, item) for item in (0, 1, 2, 3, 5, 7, 8, 9)]
    assert external(data, "valid") == [(1, 6)]
    assert external(data, "test") == [(1, 4)]
    assert any(text.startswith("warning: the file-order split") for text in notes.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "random"}, "leaky split: random trains on what users did after the rows tested; temporal"),
        ({"split": "leave-one-out"}, "leaky split: leave-one-out trains on what others did"),
        (
            {"split": "leave-one-out", "holdout": "random"},
            "leaky split: leave-one-out trains on what users did",
        ),
        ({"split": "temporal"}, None),
        ({"split": "random", "time_column": "none"}, None),
    ],
)
def test_leaky_splits_are_said(options: dict[str, Any], said: str | None, tmp_path: Path) -> None:
    notes = Notes()
    data = prepare(table(), tmp_path / "data", progress=notes, **options)
    leaks = [text for text in notes.notes if text.startswith("leaky")]
    assert [text for text in data.manifest.summary["notes"] if text.startswith("leaky")] == leaks
    assert len(leaks) == (said is not None)
    assert said is None or leaks[0].startswith(said)


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ([1, 1, 1, 2, 2, 3], "of 3 users 2 without a valid row, 1 without a test row"),
        ([1, 1, 1, 2, 2, 2], None),
        ([1, 1, 1, 2, 2], "of 2 users 1 without a valid row"),
    ],
)
def test_users_too_short_for_the_split_are_counted(
    users: list[int], said: str | None, tmp_path: Path
) -> None:
    rows = pl.DataFrame({"user_id": users, "item_id": range(len(users)), "timestamp": range(len(users))})
    notes = prepare(rows, tmp_path / "data", split="leave-one-out").manifest.summary["notes"]
    short = [text for text in notes if text.startswith("too few interactions")]
    assert short == ([f"too few interactions for the split: {said}"] if said else [])


def test_unseen_items_are_counted_and_dropped(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2],
            "item_id": [1, 2, 3, 1, 2],
            "split": ["train", "train", "test", "train", "test"],
        }
    )
    kept = prepare(rows, tmp_path / "kept", valid_share=0)
    assert kept.manifest.summary["unseen_share"] == 0.5
    assert kept.num_items == 3
    dropped = prepare(rows, tmp_path / "dropped", valid_share=0, unseen_items="drop")
    assert dropped.manifest.summary["dropped"] == {"unseen_items": 1}
    assert dropped.manifest.summary["unseen_share"] == 0.5
    assert dropped.num_items == 2
    assert external(dropped, "test") == [(2, 2)]


# ---- filters


def test_min_rating(tmp_path: Path) -> None:
    data = prepare(table(), tmp_path / "data", min_rating=4)
    kept = table().filter(pl.col("rating") >= 4)
    assert sum(data.manifest.summary[name] for name in ("train", "valid", "test")) == len(kept)
    assert data.manifest.summary["dropped"] == {"min_rating": 400 - len(kept)}
    assert data.num_users == kept["user_id"].n_unique()


def test_core_counts_what_each_filter_dropped(tmp_path: Path) -> None:
    rows = pl.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [1, 2, 1, 2, 3]})
    data = prepare(rows, tmp_path / "data", min_user_interactions=2)
    assert data.manifest.summary["dropped"] == {"min_user_interactions": 1}
    assert (data.num_users, data.num_items) == (2, 2)
    data = prepare(rows, tmp_path / "items", min_item_interactions=2)
    assert data.manifest.summary["dropped"] == {"min_item_interactions": 1}


def test_duplicates(tmp_path: Path) -> None:
    rows = pl.concat([PLAIN, PLAIN[:30]])
    merged = prepare(rows, tmp_path / "merged")
    assert merged.manifest.summary["dropped"] == {"duplicates": 30}
    assert not merged.has_repeats
    kept = prepare(rows, tmp_path / "kept", duplicates="keep")
    assert kept.has_repeats
    assert sum(kept.manifest.summary[name] for name in ("train", "valid", "test")) == 430
    timed = pl.concat([table(), table()[:30].with_columns(pl.col("timestamp") + 10_000)])
    assert prepare(timed, tmp_path / "timed").has_repeats
    first = prepare(timed, tmp_path / "first", duplicates="merge")
    assert first.train.event_times is not None
    assert first.train.event_times.max() < 10_000


@pytest.mark.parametrize(
    ("repeats", "ordered", "options", "said"),
    [
        (
            12,
            True,
            {},
            "12 rows repeat an item of their user: kept, because rows have an order, so nothing seen",
        ),
        (1, True, {}, "1 row repeats an item of their user: kept"),
        (12, False, {}, "12 rows repeat an item of their user: left out, because rows have no order"),
        (12, True, {"duplicates": "keep"}, None),
        (12, True, {"duplicates": "merge"}, None),
        (0, True, {}, None),
    ],
)
def test_what_the_default_does_with_repeats_is_said(
    repeats: int, ordered: bool, options: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    rows = pl.concat([table(), table()[:repeats].with_columns(pl.col("timestamp") + 10_000)])
    notes = Notes()
    rows = rows if ordered else rows.drop("timestamp")
    data = prepare(rows, tmp_path / "data", progress=notes, **options)
    told = [text for text in notes.notes if "of their user" in text]
    assert [text for text in data.manifest.summary["notes"] if "of their user" in text] == told
    assert len(told) == (said is not None)
    assert said is None or told[0].startswith(said)


def test_a_pair_in_two_given_splits_stays_in_train(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {"user_id": [1, 1, 1], "item_id": [1, 1, 2], "split": ["test", "train", "test"]},
    )
    data = prepare(rows, tmp_path / "data")
    assert external(data, "train") == [(1, 1)]
    assert external(data, "test") == [(1, 2)]


# ---- sources by name


def test_synthetic(tmp_path: Path) -> None:
    options = "num_users=60,num_items=80,num_interactions=900"
    data = prepare(f"synthetic:{options}", tmp_path / "data", split="leave-one-out")
    assert data.num_users == 60
    assert data.has_order
    again = prepare(f"synthetic:{options}", tmp_path / "data", split="leave-one-out")
    assert again.manifest == data.manifest
    other = prepare(f"synthetic:{options},seed=5", tmp_path / "other", split="leave-one-out")
    assert external(other, "test") != external(data, "test")
    with pytest.raises(OptionError, match="did you mean num_users"):
        prepare("synthetic:num_user=3", tmp_path / "wrong")


def test_public_sets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as opened:
        lines = (f"{user}\t{item}\t3\t{user + item}" for user in range(3) for item in range(5))
        opened.writestr("tiny/u.data", "\n".join(lines))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = (tmp_path / "tiny.zip").as_uri()
    monkeypatch.setitem(registry.PUBLIC_SETS, "tiny", PublicSet(url, "tiny/u.data", "free", None))
    data = prepare("tiny", tmp_path / "data")
    assert (data.num_users, data.num_items) == (3, 5)
    assert data.users.dtype == pl.Int64
    with pytest.raises(
        DataError, match=r"did you mean movielens-100k.*sets known by name: synthetic, movielens-100k"
    ):
        prepare("movielens-100", tmp_path / "other")


def test_a_pattern_of_several_formats_is_no_misspelt_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table().write_csv("log.csv")
    table().write_parquet("log.parquet")
    with pytest.raises(DataError, match=r"several formats: parquet, table; name one file or a pattern$"):
        prepare("log.*", "data")
    with pytest.raises(NoSourceError, match=r"no file matches 'logs.*sets known by name"):
        prepare("logs.*", "data")


def test_files_left_out_of_a_folder_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    table().write_csv(folder / "log.csv")
    (folder / "README.md").write_text("about")
    data = prepare(folder, tmp_path / "data")
    assert "left out of the folder: 1 file: README.md" in data.manifest.summary["notes"]
    with pytest.raises(DataError, match=r"kind data.*it is prepared already: recdistill train \S+/data$"):
        prepare(tmp_path / "data", tmp_path / "other")


def test_data_may_lie_in_the_folder_of_its_source(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "log.csv")
    first = prepare(tmp_path, tmp_path / "prepared")
    assert not any("left out" in note for note in first.manifest.summary["notes"])
    assert prepare(tmp_path, tmp_path / "prepared").manifest == first.manifest
    again = prepare(tmp_path, tmp_path / "prepared", force=True)
    assert again.hash == first.hash
    said = "left out of the folder, made by recdistill: 1 directory: prepared"
    assert said in again.manifest.summary["notes"]


# ---- reuse and bad input


def test_same_call_is_reused_and_another_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.parquet"
    table().write_parquet(source)
    first = prepare(source, tmp_path / "data")
    assert prepare(source, tmp_path / "data").manifest == first.manifest
    moved = source.rename(tmp_path / "b.parquet")
    assert prepare(moved, tmp_path / "data").manifest == first.manifest
    for changed in ({"seed": 1}, {"min_rating": 2}, {"split": "temporal"}, {"ratios": (0.6, 0.2, 0.2)}):
        with pytest.raises(ArtifactError):
            prepare(moved, tmp_path / "data", **changed)
    assert prepare(moved, tmp_path / "data", seed=1, force=True).hash != first.hash
    table(seed=1).write_parquet(moved)
    with pytest.raises(ArtifactError):
        prepare(moved, tmp_path / "data", seed=1)


def test_a_failed_run_leaves_the_old_result(tmp_path: Path) -> None:
    first = prepare(PLAIN, tmp_path / "data")
    with pytest.raises(DataError):
        prepare(PLAIN, tmp_path / "data", min_user_interactions=1000, force=True)
    assert Data.load(tmp_path / "data").manifest == first.manifest
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def rows_of(pairs: list[tuple[int, int]], **columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [p[0] for p in pairs], "item_id": [p[1] for p in pairs], **columns})


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (table(), {"min_rating": 6}, "no interactions are left of 400: dropped 400 by min_rating"),
        (
            PLAIN,
            {"min_user_interactions": 99},
            "no interactions are left of 400: dropped 400 by min_user_interactions",
        ),
        (
            PLAIN,
            {"min_item_interactions": 99},
            "no interactions are left of 400: dropped 400 by min_item_interactions",
        ),
        (rows_of([(1, 7), (2, 7)]), {}, "no user has a test row.*the busiest user has 1 interaction;"),
        (rows_of([(1, 7)]), {}, "no user has a test row"),
        (rows_of([(1, 7), (1, 8)], split=["test", "test"]), {}, "left no train rows of 2"),
        (rows_of([(1, 7), (1, 8)], split=["train", "train"]), {}, "no user has a test row"),
        (
            rows_of([(1, 7), (1, 8)], split=["train", "test"]),
            {"unseen_items": "drop"},
            "no user has a test row",
        ),
        (rows_of([(1, 7), (1, 8)], position=[None, None]), {}, "dropped 2 by no position"),
        (rows_of([(1, 7), (1, 8)], time=[1, 1]), {"split": "temporal"}, "100% of the rows"),
        (PLAIN, {"split": "temporal"}, "needs a time column"),
        (PLAIN, {"split": "given"}, "needs a split column"),
        (PLAIN, {"split": "leave-one-out", "holdout": "last"}, "needs a time or position column"),
        (PLAIN, {"min_rating": 3}, "needs a rating column"),
        (PLAIN, {"user_column": "user"}, "no user column 'user'.*did you mean 'user_id'"),
        (pl.DataFrame({"user_id": [], "item_id": []}), {}, "has no rows"),
        (rows_of([(1, 7), (1, 8)]).with_columns(pl.lit(None).alias("user_id")), {}, "2 null ids in 2 rows"),
        (
            rows_of([(1, 7), (1, 8)]).with_columns(pl.col("item_id") / 2),
            {},
            "column 'item_id' has fractional ids",
        ),
    ],
)
def test_nothing_to_train_or_test_on(
    rows: pl.DataFrame, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said) as raised:
        prepare(rows, tmp_path / "data", **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratios": (0.5, 0.1, 0.1)}, "must add up to 1"),
        ({"ratios": (0.9, 0.1, 0.0)}, "test above 0"),
        ({"ratios": (0.5, 0.5)}, "prepare.ratios: expected three shares, of train, valid and test"),
        ({"ratios": (0.5, 0.2, 0.2, 0.1)}, "expected three shares"),
        ({"min_user_interactions": 0}, "integer >= 1"),
        ({"valid_share": 1.0}, "valid_share"),
        ({"split": "randomly"}, "did you mean random"),
        ({"min_user_interaction": 5}, "did you mean min_user_interactions"),
        ({"duplicates": "drop"}, "merge, keep"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        prepare(PLAIN, tmp_path / "data", **options)


def test_one_user(tmp_path: Path) -> None:
    data = prepare(rows_of([(1, item) for item in range(10)]), tmp_path / "data")
    assert [data.train.num_pairs, data.valid.num_pairs, data.test.num_pairs] == [8, 1, 1]


def test_one_item_in_time(tmp_path: Path) -> None:
    rows = rows_of([(user, 7) for user in range(10)], time=list(range(10)))
    data = prepare(rows, tmp_path / "data", split="temporal")
    assert data.num_items == 1
    assert data.manifest.summary["test_users_without_train"] == 1


def test_users_without_test_rows_are_kept_for_training(tmp_path: Path) -> None:
    data = prepare(rows_of([(1, 1), (2, 1), (2, 2)]), tmp_path / "data")
    assert data.num_users == 2
    assert data.manifest.summary["test_users"] == 1
    assert sorted(data.train.user_counts.tolist()) == [1, 1]


def test_an_item_only_in_test_stays_known(tmp_path: Path) -> None:
    rows = rows_of([(1, 7), (1, 8)], split=["train", "test"])
    data = prepare(rows, tmp_path / "data", valid_share=0)
    assert data.num_items == 2
    assert data.train.item_counts[data.items.index([8])].tolist() == [0]
    assert data.manifest.summary["unseen_share"] == 1.0


# ---- real data


def test_citeulike_counts(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    path = real_data("citeulike-t")
    data = prepare(path, tmp_path / "random", min_user_interactions=5)
    assert (data.num_users, data.num_items) == (5219, 25181)
    assert [data.train.num_pairs, data.valid.num_pairs, data.test.num_pairs] == [98405, 12451, 14724]
    assert 0.05 < data.manifest.summary["unseen_share"] < 0.08
    held = prepare(path, tmp_path / "held", min_user_interactions=5, split="leave-one-out")
    assert [held.train.num_pairs, held.valid.num_pairs, held.test.num_pairs] == [115142, 5219, 5219]
    listed = prepare(path, tmp_path / "listed", min_user_interactions=5, split="file-order")
    assert [listed.train.num_pairs, listed.valid.num_pairs, listed.test.num_pairs] == [98405, 12451, 14724]
    assert round(listed.manifest.summary["unseen_share"], 3) == 0.735


def test_gowalla_is_split_as_given(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = prepare(real_data("gowalla"), tmp_path / "data")
    assert (data.num_users, data.num_items) == (29858, 40981)
    assert [data.train.num_pairs, data.valid.num_pairs, data.test.num_pairs] == [719081, 91047, 217242]


def test_ml_1m_keeps_rows_with_a_position(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = prepare(real_data("ml-1m"), tmp_path / "data", split="leave-one-out")
    assert (data.num_users, data.num_items) == (6040, 3416)
    assert data.manifest.summary["dropped"] == {"no position": 598}


def test_sessions_have_repeats_and_users_only_in_test(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data = prepare(real_data("retailrocket-sessions"), tmp_path / "data")
    assert data.has_repeats
    assert data.manifest.summary["test_users_without_train"] == 4735
    assert data.valid.num_events == round(0.1 * 126168)
