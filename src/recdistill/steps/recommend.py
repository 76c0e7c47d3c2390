"""`recommend`: top lists of all users, or of a file of users, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow.parquet as pq

from recdistill import artifacts
from recdistill.artifacts import hash_files, read_manifest
from recdistill.data.columns import Columns
from recdistill.data.readers import Files, find_files, read_files
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import DataError, OptionError
from recdistill.models.base import Recommender
from recdistill.models.recommend import Histories, served
from recdistill.models.recommend import recommend as recommend_users
from recdistill.progress import Progress, Silent
from recdistill.steps.load import load
from recdistill.wording import counted

TABLE = "recommendations.parquet"
_USERS_AT_ONCE = 16_384


def recommend(
    model: Recommender | Path | str,
    out: Path | str = "runs/recommend",
    *,
    k: int = 10,
    users: Path | str | None = None,
    history: Path | str | None = None,
    exclude_seen: bool = True,
    cold: Literal["error", "popular"] = "error",
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    position_column: str | None = None,
    force: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Write ``recommendations.parquet``: ``user_id``, ``item_id``, ``rank``, ``score``, users in order.

    Args:
        model: a model directory, or a model loaded from one.
        out: the directory to write.
        k: items a user, at least 1.
        users: a Parquet, CSV or text file whose first column (or ``user_id``) are the users; without it those of
            ``history``, or all users with train rows (with ``cold="popular"`` those without too).
        history: a file (or folder) of interactions, as :func:`recdistill.prepare` reads it, of users that the model
            has not met (it also replaces what is known of a known user), in the order of their positions or times
            (ties in that of the data: by a hash of the item; rows without a position are left out), else of the
            file's rows.
        exclude_seen: leave out what a user has in train.
        cold: for a user of whom neither train rows nor a history are known: ``error``, or the ``popular`` items.
        user_column, item_column, time_column, position_column: of ``history``; default: guessed by usual names, and
            said; ``none`` leaves an order out.
        force: replace another result in ``out``.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: where stages are shown.

    Returns:
        the path of the table.

    Raises:
        RecdistillError: bad options, unknown users, or ``out`` holds something else.
    """
    from recdistill.steps.fit import pick_device

    shown = progress or Silent()
    path = model.path if isinstance(model, Recommender) else Path(model)
    if path is None:
        raise OptionError("the model has no directory", "pass the directory, or call model.recommend(...)")
    if k < 1:
        raise OptionError(f"k must be at least 1; found {k}")
    manifest = read_manifest(path, kind="model")
    options: dict[str, Any] = {"k": k, "exclude_seen": exclude_seen, "cold": cold}
    columns = Columns(user=user_column, item=item_column, time=time_column, position=position_column)
    if history is None and columns != Columns():
        raise OptionError("names of columns are those of histories, and there are none", "add --history FILE")
    named = {f"{role}_column": name for role, name in asdict(columns).items() if name is not None}
    inputs = {"model": manifest.hash}
    asked: pl.Series | None = None
    if users is not None:
        asked = read_users(Path(users))
        inputs["users"] = hash_files([users])
    files = None if history is None else find_files(history)
    if files is not None:
        inputs["history"] = hash_files(files.paths)
    with artifacts.step(
        out, kind="recommendations", options=options | named, inputs=inputs, force=force
    ) as job:
        if job.reused:
            shown.note(f"{out}: already there, same inputs and options: reused")
        else:
            loaded = load(path, device=str(pick_device(device)))
            told = None
            if files is not None:
                items = loaded.vocabularies()[1]
                table = read_history(files, columns, items, shown)
                told = Histories.of(table, items)
                if unknown := int((items.index(table["item_id"]) < 0).sum()):
                    shown.note(
                        f"{counted(unknown, 'row')} of the histories on items that the model has not met left out"
                    )
            everyone = asked
            if everyone is None:
                everyone = served(loaded, cold) if told is None else told.order
                left = 0 if told is not None else len(loaded.vocabularies()[0]) - len(everyone)
                if left:
                    shown.note(
                        f"{counted(left, 'user')} without train rows left out: --cold popular gives popular items,"
                        " --history FILE their histories"
                    )
            shown.note(f"recommending {counted(k, 'item')} for {counted(len(everyone), 'user')}")
            rows = _write(loaded, everyone, job.work / TABLE, {**options, "history": told}, shown)
            if not rows and exclude_seen:
                shown.note(
                    "no list has a row: users know all items; --no-exclude-seen recommends what they know"
                )
            job.summary.update({"users": len(everyone), "rows": rows})
    return Path(out) / TABLE


def _write(
    model: Recommender, users: pl.Series, target: Path, options: Mapping[str, Any], shown: Progress
) -> int:
    rows, writer = 0, None
    try:
        with shown.stage("recommend", len(users), "users") as stage:
            for start in range(0, len(users), _USERS_AT_ONCE):
                block = users.slice(start, _USERS_AT_ONCE)
                table = recommend_users(model, block, **options).to_arrow()
                writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
                writer.write_table(table)
                rows += table.num_rows
                stage.advance(len(block))
    finally:
        if writer is not None:
            writer.close()
    return rows


def read_users(path: Path) -> pl.Series:
    """External user ids from a file: ``user_id`` or the first column of Parquet or CSV; one a line otherwise.

    Raises:
        DataError: no file, an unreadable or an empty one.
    """
    if not path.is_file():
        raise DataError(f"no file of users at {path}")
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        else:
            table = pl.read_csv(
                path,
                has_header=path.suffix in (".csv", ".tsv"),
                separator="\t" if path.suffix == ".tsv" else ",",
            )
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"cannot read users from {path}: {first}") from error
    if table.width == 0 or table.height == 0:
        raise DataError(f"no users in {path}", "give one user id a row")
    column = table["user_id"] if "user_id" in table.columns else table.to_series(0)
    if column.null_count():
        raise DataError(
            f"{counted(column.null_count(), 'user')} in {path} without an id", "remove the empty rows"
        )
    return column


def read_history(files: Files, columns: Columns, items: Vocabulary, shown: Progress) -> pl.DataFrame:
    """``user_id`` and ``item_id`` of files of interactions, each user's newest item last, in the order of ``prepare``.

    Raises:
        DataError: they hold no interactions.
    """
    table, _ = read_files(files, columns, False, shown.note)
    order = next((name for name in ("position", "time") if name in table.columns), None)
    if order is None:
        shown.note("no column of times or positions: the file's order is taken, a user's newest item last")
        return table
    if lacking := table[order].null_count():
        shown.note(f"{counted(lacking, 'row')} without a {order} left out")
    table = table.drop_nulls(order)
    ties = pl.Series("ties", items.index(table["item_id"]).numpy())  # indices follow the hashes of ids
    return table.with_columns(ties).sort(order, "ties", maintain_order=True).drop("ties")
