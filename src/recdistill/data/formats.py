"""One lazy table for one file: Parquet, delimited text, JSON lines, RecBole's ``.inter``, adjacency text.

Text formats give strings only; which columns are numbers is decided once all rows have been seen.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from recdistill.errors import DataError

Format = Literal["parquet", "table", "json", "inter", "adjacency"]
FORMATS: tuple[Format, ...] = ("parquet", "table", "json", "inter", "adjacency")

_BY_SUFFIX: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "table",
    ".tsv": "table",
    ".tab": "table",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".inter": "inter",
}
_TEXT_SUFFIXES = {".txt", ".dat", ".data"}
_PACKED_SUFFIXES = {".gz", ".zst"}
_SAMPLE_BYTES = 1 << 16
_SAMPLE_LINES = 100
# The order that tables without a header line have in practice (MovieLens' u.data and ratings.dat among them).
_HEADERLESS = ("user_id", "item_id", "rating", "timestamp")


class _Layout(NamedTuple):
    """How a delimited text is laid out."""

    delimiter: str
    names: list[str]
    header: bool


def known_suffix(path: Path) -> bool:
    """Whether a file's name says that it may hold interactions."""
    suffix = _suffix(path)
    return suffix in _BY_SUFFIX or suffix in _TEXT_SUFFIXES


def format_of(path: Path) -> Format:
    """The format of a file, by its name, else by how it begins.

    Raises:
        DataError: if the file is empty or cannot be read.
    """
    suffix = _suffix(path)
    start = _start(path)
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.lstrip()[:1] == b"{":
        return "json"
    lines = _sample_lines(path, start)
    if re.match(r"\w+:(token|float)\b", lines[0]):
        return "inter"
    tokens = [line.split() for line in lines]
    numbers = all(token.isdecimal() for line in tokens for token in line)
    # Lists differ in length from user to user; a table's rows do not, and none needs more than four columns.
    uneven = len({len(line) for line in tokens}) > 1 or len(tokens[0]) > len(_HEADERLESS)
    return "adjacency" if numbers and uneven else "table"


def names_columns(path: Path, format: Format) -> bool:  # noqa: A002
    """Whether a file names its columns itself: a table without a header line and adjacency text do not.

    Raises:
        DataError: as :func:`scan`.
    """
    if format == "table":
        return _layout(_sample_lines(path, _start(path))).header
    return format != "adjacency"


def scan(path: Path, format: Format) -> pl.LazyFrame:  # noqa: A002
    """A lazy table of a file with the source's own column names.

    Raises:
        DataError: if the file is empty or is not of that format.
    """
    start = _start(path)
    if format == "parquet":
        if not (start.startswith(b"PAR1") or start.startswith(b"PARE")):
            raise DataError(f"{path} is no Parquet file: it does not begin with PAR1", "check the file")
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)
    if format == "json":
        if start.lstrip()[:1] == b"[":
            raise DataError(f"{path} is a JSON array; expected JSON lines, one object a line", "convert it")
        return _scan_json(path)
    lines = _sample_lines(path, start)
    if format == "inter":
        return _scan_inter(path, lines)
    if format == "adjacency":
        return _scan_adjacency(path)
    return _scan_table(path, lines)


def _scan_table(path: Path, lines: list[str]) -> pl.LazyFrame:
    layout = _layout(lines)
    if len(layout.names) < 2:
        raise DataError(
            f"{path} has one column: '{lines[0][:60]}'; expected columns apart by tab, comma, ; | :: or space"
        )
    if layout.delimiter != "::":
        return _scan_delimited(path, layout.delimiter, layout.names, layout.header)
    # MovieLens' "::" read as ":" leaves an empty column between every two.
    padded = [name for pair in zip(layout.names, _gaps(layout.names), strict=True) for name in pair][:-1]
    return _scan_delimited(path, ":", padded, layout.header, quoted=False).select(layout.names)


def _scan_delimited(
    path: Path, delimiter: str, names: list[str], header: bool, quoted: bool = True
) -> pl.LazyFrame:
    rows = pl.scan_csv(
        path,
        separator=delimiter,
        has_header=header,
        new_columns=names,
        infer_schema=False,
        quote_char='"' if quoted else None,
        glob=False,
    )
    blank_line = pl.all_horizontal(pl.all().is_null())
    return rows.filter(~blank_line).with_columns(pl.all().str.strip_chars())


def _scan_inter(path: Path, lines: list[str]) -> pl.LazyFrame:
    """RecBole's atomic file: tab-separated, each name followed by its type."""
    names = [field.rsplit(":", 1)[0] for field in lines[0].split("\t")]
    if len(names) < 2:
        raise DataError(
            f"{path} has one column: '{lines[0][:60]}'; expected 'user_id:token<tab>item_id:token ...'"
        )
    return _scan_delimited(path, "\t", names, header=True, quoted=False)


def _scan_adjacency(path: Path) -> pl.LazyFrame:
    """LightGCN's text: a line holds a user and then the user's items; users without items have no rows."""
    no_separator = "\x01"
    lines = pl.scan_csv(
        path,
        separator=no_separator,
        has_header=False,
        schema={"line": pl.String},
        quote_char=None,
        glob=False,
    )
    tokens = lines.select(pl.col("line").str.extract_all(r"\S+").alias("tokens"))
    lists = tokens.select(
        pl.col("tokens").list.first().alias("user_id"), pl.col("tokens").list.slice(1).alias("item_id")
    )
    return lists.explode("item_id").filter(pl.col("item_id").is_not_null())


def _scan_json(path: Path) -> pl.LazyFrame:
    """JSON lines through pyarrow, whose reader refuses a column that changes from number to string."""
    import pyarrow as pa
    import pyarrow.json as reader

    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            table: Any = reader.read_json(stream)
    except pa.ArrowInvalid as error:
        text = str(error).removeprefix("JSON parse error: ")
        changed = re.search(r"Column\(/([^)]*)\) changed from (\w+) to (\w+)", text)
        if changed:
            name, before, after = changed.groups()
            raise DataError(
                f"column '{name}' in {path} has mixed types: {before} and {after}",
                "make them all numbers or all strings",
            ) from None
        raise DataError(f"cannot read {path} as JSON lines: {text}", "expected one object a line") from None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.lazy()


def _layout(lines: list[str]) -> _Layout:
    """The delimiter that cuts all sampled lines alike into the most fields, and the columns' names."""
    best: tuple[int, str] = (1, ",")
    for delimiter in ("\t", "::", ",", ";", "|", " "):
        counts = Counter(len(_fields(line, delimiter)) for line in lines)
        fields, share = counts.most_common(1)[0]
        if share == len(lines) and fields > best[0]:
            best = (fields, delimiter)
    if best[0] == 1:
        # Ragged everywhere: cut by the delimiter of the first line and let the reader name the trouble.
        best = max((len(_fields(lines[0], delimiter)), delimiter) for delimiter in ("\t", ",", ";", "|"))
    delimiter = best[1]
    first = [field.strip().removeprefix("\ufeff") for field in _fields(lines[0], delimiter)]
    if any(_is_number(field) for field in first):
        extra = [f"column_{number}" for number in range(len(_HEADERLESS) + 1, len(first) + 1)]
        return _Layout(delimiter, [*_HEADERLESS[: len(first)], *extra], header=False)
    if len(set(first)) < len(first):
        raise DataError(f"two columns have the same name: {', '.join(first)}", "rename one")
    return _Layout(delimiter, first, header=True)


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == "::":
        return line.split("::")
    return next(csv.reader([line], delimiter=delimiter), [])


def _gaps(names: list[str]) -> list[str]:
    return [f"gap_{number}" for number in range(len(names))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _start(path: Path) -> bytes:
    import pyarrow as pa

    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            start: bytes = stream.read(_SAMPLE_BYTES)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())}", "check the file") from None
    if not start.strip():
        raise DataError(f"{path} is empty", "expected interactions")
    return start


def _sample_lines(path: Path, start: bytes) -> list[str]:
    lines = start.splitlines()
    if len(start) == _SAMPLE_BYTES and len(lines) > 1:
        lines.pop()
    try:
        text = [line.decode() for line in lines[:_SAMPLE_LINES] if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "convert it to UTF-8 or Parquet") from None
    return text
