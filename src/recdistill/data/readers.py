"""From a source on the disk to one table of interactions with known column names and sound values."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recdistill.data.columns import Columns, checked, choose_columns, select
from recdistill.data.folders import likely_files, listed, no_source, visible_files, without_results
from recdistill.data.formats import Format, format_of, names_columns, scan
from recdistill.errors import DataError

_SPLIT_STEMS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_STRINGS = (pl.String, pl.Categorical, pl.Enum)


class NoSourceError(DataError):
    """Nothing is where a path or a pattern points."""


@dataclass(frozen=True)
class Files:
    """The files of a source.

    Attributes:
        paths: in the order of their names.
        format: the one format of all.
        splits: the split of each file, where the files are named by split, else None.
        unread: of a folder, in words: how many other files it holds and the names of the first, or empty.
        made: of a folder, likewise: the directories in it that recdistill made, which are not looked into.
    """

    paths: tuple[Path, ...]
    format: Format
    splits: tuple[str, ...] | None = None
    unread: str = ""
    made: str = ""


def find_files(source: str | Path, format: Format | None = None) -> Files:  # noqa: A002
    """The files that a path, a folder or a glob stands for.

    A folder stands for all files below it whose names look like interactions; hidden files, those that begin
    with ``_`` and the directories that recdistill made are left out. Files named ``train``, ``valid`` and
    ``test`` carry that split.

    Args:
        source: a file, a folder, or a pattern with ``*``, ``?`` or ``[``.
        format: of all files; default: by their names and contents.

    Raises:
        NoSourceError: if nothing is there.
        DataError: on a pipe, if a folder holds no interactions, or none but in directories that recdistill made, or the
            files are of several formats.
    """
    path = Path(source).expanduser()
    visible, made = without_results(path, visible_files(path)) if path.is_dir() else ([], {})
    if path.is_dir():
        paths = likely_files(visible)
    elif path.exists():
        if not path.is_file():
            raise DataError(
                f"'{source}' is a pipe or a device, and files are read twice", "write it to a file first"
            )
        paths = [path]
    else:
        paths = sorted(Path(found) for found in glob.glob(str(path), recursive=True) if Path(found).is_file())
    if not paths:
        expected = "expected interactions as Parquet, CSV, JSON lines, .inter or text"
        if made:
            raise no_source(path, made)
        if path.is_dir():
            others = f", which holds {listed(visible, path)}" if visible else ""
            raise DataError(f"no interactions in the folder '{source}'{others}", expected)
        what = "no file matches" if glob.has_magic(str(path)) else "no such file or folder:"
        raise NoSourceError(f"{what} '{source}'", expected)
    splits = _splits_of(paths)
    if splits is not None:
        paths = [path for path in paths if path in splits]
    formats: dict[Path, Format]
    formats = {path: format_of(path) for path in paths} if format is None else dict.fromkeys(paths, format)
    kinds = sorted(set(formats.values()))
    if len(kinds) > 1:
        raise DataError(
            f"{source} has files of several formats: {', '.join(kinds)}", "name one file or a pattern"
        )
    unread = [other for other in visible if other not in formats]
    return Files(
        tuple(paths),
        formats[paths[0]],
        tuple(splits[path] for path in paths) if splits else None,
        listed(unread, path) if unread else "",
        listed(list(made), path, "directory", "directories") if made else "",
    )


def read_files(
    files: Files, columns: Columns, use_rating: bool, note: Callable[[str], None]
) -> tuple[pl.DataFrame, Columns]:
    """Read the interactions of files.

    Args:
        files: what :func:`find_files` found.
        columns: the columns asked for; None in a place: guess.
        use_rating: whether ratings will be compared with a threshold.
        note: told in one line what was guessed.

    Returns:
        A table with ``user_id`` and ``item_id`` (integers or strings, no nulls) and, where the source has
        them, ``rating`` (Float64, finite), ``time`` (Float64, finite), ``position`` (Int64, may be null),
        ``split`` (String); and the source's names of these columns.

    Raises:
        DataError: on anything that cannot be read as interactions, in one line.
    """
    try:
        frames = [scan(path, files.format) for path in files.paths]
        if files.splits is not None and columns.split is None:
            frames = [
                frame.with_columns(pl.lit(split).alias("split"))
                for frame, split in zip(frames, files.splits, strict=True)
            ]
            note("splits taken from the names of the files")
        named = names_columns(files.paths[0], files.format)
        return read_frames(frames, columns, use_rating, str(files.paths[0]), note, named)
    except pl.exceptions.PolarsError as error:
        where = str(files.paths[0]) if len(files.paths) == 1 else f"one of {len(files.paths)} files"
        text = " ".join(str(error).split("Consider ")[0].split())
        raise DataError(f"cannot read {where} as {files.format}: {text}", "check the file") from None


def read_frames(
    frames: Sequence[pl.LazyFrame],
    columns: Columns,
    use_rating: bool,
    where: str,
    note: Callable[[str], None],
    named: bool = True,
) -> tuple[pl.DataFrame, Columns]:
    """Read the interactions of lazy tables that share their columns, as :func:`read_files` does.

    ``named`` says whether the source itself names its columns.

    Raises:
        DataError: as :func:`read_files`.
    """
    schemas = [frame.collect_schema() for frame in frames]
    chosen = choose_columns(schemas[0].names(), columns, use_rating, where, note, named)
    for schema in schemas[1:]:
        # Messages about a later file must list that file's columns.
        choose_columns(schema.names(), chosen, use_rating, "one of its files", _unsaid)
    for role, name in (("user", chosen.user), ("item", chosen.item)):
        kinds = sorted({_kind(schema[name]) for schema in schemas if name is not None})
        if len(kinds) > 1:
            raise DataError(
                f"{role} ids in column '{name}' differ in type between files: {' and '.join(kinds)}",
                "make them all integers or all strings",
            )
    picked = [select(frame, chosen) for frame in frames]
    table = pl.concat(picked, how="vertical_relaxed") if len(picked) > 1 else picked[0]
    collected = table.collect(engine="streaming")
    if not len(collected):
        raise DataError(f"{where} has no rows", "expected interactions")
    return checked(collected, chosen), chosen


def _unsaid(text: str) -> None:
    del text


def _kind(dtype: pl.DataType) -> str:
    return "numbers" if dtype.is_numeric() else "strings" if isinstance(dtype, _STRINGS) else str(dtype)


def _splits_of(paths: Sequence[Path]) -> dict[Path, str] | None:
    """The split of each file that is named by one, if there are a train and a test file among them."""
    splits: dict[Path, str] = {}
    for path in paths:
        words = path.name.lower().replace("-", ".").replace("_", ".").split(".")
        named = {_SPLIT_STEMS[word] for word in words if word in _SPLIT_STEMS}
        if len(named) == 1:
            splits[path] = named.pop()
    return splits if {"train", "test"} <= set(splits.values()) else None
