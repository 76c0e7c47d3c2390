"""`prepare`: from a file of interactions to a data directory with vocabularies and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import polars as pl
from pydantic import AfterValidator, BeforeValidator, Field

from recdistill import config
from recdistill.artifacts import fingerprint, hash_files, step, write_table
from recdistill.config import parse_assignments, validated
from recdistill.data.assemble import Assembled, Rules, assemble
from recdistill.data.columns import IGNORED, Columns
from recdistill.data.formats import Format
from recdistill.data.prepared import Data
from recdistill.data.readers import Files, NoSourceError, find_files, read_files, read_frames
from recdistill.data.registry import PUBLIC_SETS, fetch
from recdistill.data.splits import SplitName
from recdistill.data.synthetic import GENERATOR, synthetic
from recdistill.files import size_text
from recdistill.progress import Progress, Silent
from recdistill.wording import counted, did_you_mean

_TEXT: tuple[Format, ...] = ("table", "inter", "adjacency")


def _three(ratios: object) -> object:
    if not isinstance(ratios, list | tuple):
        return ratios
    shares = tuple(cast(Sequence[object], ratios))
    if len(shares) != 3:
        raise ValueError("expected three shares, of train, valid and test, such as .8, .1, .1")
    return shares


def _shares(ratios: tuple[float, float, float]) -> tuple[float, float, float]:
    train, valid, test = ratios
    if min(train, test) <= 0 or valid < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ValueError("shares of train, valid and test must add up to 1, with train and test above 0")
    return ratios


class ArrowTable(Protocol):
    """A table that hands itself over as Arrow: polars', pandas' and pyarrow's all do."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The Arrow PyCapsule interface."""
        ...


Source = str | Path | pl.LazyFrame | ArrowTable
Ratios = Annotated[tuple[float, float, float], BeforeValidator(_three), AfterValidator(_shares)]


@validated
def prepare(
    source: Source,
    out: Path | str = "runs/prepare",
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    rating_column: str | None = None,
    time_column: str | None = None,
    position_column: str | None = None,
    split_column: str | None = None,
    file_format: Format | None = None,
    min_rating: float | None = None,
    min_user_interactions: Annotated[int, Field(ge=1)] = 1,
    min_item_interactions: Annotated[int, Field(ge=1)] = 1,
    duplicates: Literal["merge", "keep"] | None = None,
    split: SplitName | None = None,
    ratios: Ratios = (0.8, 0.1, 0.1),
    holdout: Literal["last", "random"] | None = None,
    unseen_items: Literal["keep", "drop"] = "keep",
    valid_share: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    seed: Annotated[int, Field(ge=0)] = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Data:
    """Read interactions, filter and split them, and write a data directory.

    Random splits depend on the seed and the ids alone: not on the order of the rows, the number of threads or
    the other users.

    Args:
        source: a file, folder or pattern (Parquet, CSV/TSV, JSON lines, RecBole's .inter, adjacency text), a
            table of polars, pandas or pyarrow, ``synthetic`` (or ``synthetic:num_users=500,seed=3``), or the
            name of a public set.
        out: the data directory to write.
        user_column: the column of user ids; default: guessed by usual names, and said.
        item_column: the column of item ids; likewise.
        rating_column: the column of ratings; read only with a ``min_rating``.
        time_column: the column of times, numbers or dates; ``none`` leaves it out, as in the following.
        position_column: the column of each row's place in its user's order; rows without one are dropped.
        split_column: the column that says train, valid or test.
        file_format: of the source's files; default: by their names and contents.
        min_rating: rows rated lower are dropped.
        min_user_interactions: users with fewer rows are dropped, and
        min_item_interactions: items with fewer rows, until all that are left have enough.
        duplicates: of rows with the same user and item the first is kept (``merge``) or all are (``keep``);
            default: ``keep`` where there is a time or position.
        split: ``random`` and ``file-order`` cut each user's rows by ``ratios``; ``leave-one-out`` holds out
            one test and one valid row a user; ``temporal`` cuts all rows at two points in time; ``given``
            reads the split column. Default: ``given`` if there is such a column, else ``random``.
        ratios: shares of train, valid and test.
        holdout: which rows leave-one-out holds out; default: ``last`` where there is an order.
        unseen_items: what happens to valid and test rows on items that have no train row.
        valid_share: share of the users whose last train row becomes a valid row where the split has none
            (ratios of 0 want none).
        seed: of random splits.
        force: replace other data in ``out``.
        progress: where stages, guesses and warnings are shown.

    Returns:
        The data directory, opened.

    Raises:
        OptionError: an option that is misspelt or out of range.
        DataError: a source that cannot be read or leaves nothing to train or test on.
        ArtifactError: ``out`` holds something else.
    """
    asked = Columns(user_column, item_column, rating_column, time_column, position_column, split_column)
    if split not in (None, "given") and split_column is None:
        asked = Columns(user_column, item_column, rating_column, time_column, position_column, IGNORED)
    rules = Rules(
        min_rating,
        min_user_interactions,
        min_item_interactions,
        duplicates,
        split,
        ratios,
        holdout,
        unseen_items,
        valid_share,
    )
    shown = progress or Silent()
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        shown.note(text)

    opened = _open(source, file_format, asked, min_rating is not None, note, shown)
    options = {**{f"{role}_column": name for role, name in asdict(asked).items()}, **asdict(rules)}
    with step(
        out, kind="data", options=options, seed=seed, inputs={"source": opened.hash}, force=force
    ) as job:
        if not job.reused:
            with shown.stage("read", None):
                table, columns = opened.read()
            with shown.stage("split", None):
                assembled = assemble(table, rules, seed, opened.from_text, note)
            del table
            with shown.stage("write", None):
                _write(job.work, assembled)
            job.summary.update(assembled.summary, source=opened.name, columns=asdict(columns), notes=notes)
            shown.note(_described(assembled.summary))
    return Data.load(out)


@dataclass(frozen=True)
class _Opened:
    """A source that is found but not read.

    Attributes:
        name: what to call it.
        hash: of its content.
        from_text: its ids are texts that may stand for integers.
        read: reads its interactions and tells which columns held what.
    """

    name: str
    hash: str
    from_text: bool
    read: Callable[[], tuple[pl.DataFrame, Columns]]


def _open(
    source: Source,
    file_format: Format | None,
    columns: Columns,
    use_rating: bool,
    note: Callable[[str], None],
    progress: Progress,
) -> _Opened:
    if not isinstance(source, str | Path):
        frame = source if isinstance(source, pl.LazyFrame) else pl.DataFrame(source).lazy()
        return _open_table(frame, "the table", columns, use_rating, note)
    name = str(source)
    kind, _, settings = name.partition(":")
    if kind == "synthetic" and not Path(name).exists():
        options = config.resolve(
            synthetic, parse_assignments(settings.split(",") if settings else []), "synthetic"
        )
        table = config.build(synthetic, options, "synthetic").lazy()
        made = fingerprint("synthetic", {**options, "generator": GENERATOR}, None, None)
        return _open_table(table, name, columns, use_rating, note, made)
    if name.lower() in PUBLIC_SETS and not Path(name).exists():
        source = fetch(name.lower(), progress)
    files = _find(source, file_format)
    size = sum(path.stat().st_size for path in files.paths)
    note(f"source: {counted(len(files.paths), 'file')}, {files.format}, {size_text(size)}")
    if files.unread:
        note(f"left out of the folder: {files.unread}")
    if files.made:
        note(f"left out of the folder, made by recdistill: {files.made}")
    return _Opened(
        name,
        hash_files(files.paths),
        files.format in _TEXT,
        lambda: read_files(files, columns, use_rating, note),
    )


def _find(source: str | Path, file_format: Format | None) -> Files:
    try:
        return find_files(source, file_format)
    except NoSourceError as error:
        name = str(source)
        if "/" in name:
            raise
        known = ["synthetic", *PUBLIC_SETS]
        meant = did_you_mean(name, known)
        raise NoSourceError(
            error.message, f"{meant or error.hint}; sets known by name: {', '.join(known)}".lstrip("; ")
        ) from None


def _open_table(
    frame: pl.LazyFrame,
    name: str,
    columns: Columns,
    use_rating: bool,
    note: Callable[[str], None],
    made: str | None = None,
) -> _Opened:
    table, chosen = read_frames([frame], columns, use_rating, name, note)
    return _Opened(name, made or _hash_table(table), False, lambda: (table, chosen))


def _hash_table(table: pl.DataFrame) -> str:
    """16 hex digits of the values of a table."""
    digest = hashlib.sha256()
    for column in table.iter_columns():
        digest.update(f"{column.name} {column.dtype}".encode())
        array: Any = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        for buffer in array.buffers():
            digest.update(buffer or b"")
    return digest.hexdigest()[:16]


def _write(folder: Path, assembled: Assembled) -> None:
    assembled.users.save(folder / "users.parquet")
    assembled.items.save(folder / "items.parquet")
    for name, table in assembled.tables.items():
        write_table(folder / f"{name}.parquet", table)


def _described(summary: dict[str, Any]) -> str:
    """The summary in a line."""
    parts = [
        f"{counted(summary['users'], 'user')} x {counted(summary['items'], 'item')}",
        ", ".join(f"{name} {summary[name]:,}" for name in ("train", "valid", "test")),
        f"{counted(summary['rows'], 'row')} read",
        *(f"{count:,} dropped by {why}" for why, count in summary["dropped"].items()),
        f"{summary['unseen_share'] or 0:.1%} of test rows on items unseen in training",
    ]
    return "; ".join(parts)
