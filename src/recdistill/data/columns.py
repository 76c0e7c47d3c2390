"""Which columns of a source hold what, named by the caller or guessed, and whether their values are sound."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import polars as pl

from recdistill.errors import DataError
from recdistill.wording import counted

IGNORED = "none"

# Usual names, lower case without punctuation, the likeliest first.
_USUAL: dict[str, tuple[str, ...]] = {
    "user": (
        *(
            "userid",
            "user",
            "uid",
            "userindex",
            "customerid",
            "customer",
            "reviewerid",
            "visitorid",
            "visitor",
        ),
        *("memberid", "member", "accountid", "account", "profileid", "playerid", "sessionid", "session"),
    ),
    "item": (
        *(
            "itemid",
            "item",
            "iid",
            "itemindex",
            "movieid",
            "movie",
            "productid",
            "product",
            "parentasin",
            "asin",
        ),
        *("sku", "articleid", "article", "bookid", "book", "isbn", "songid", "song", "trackid", "track"),
        *("artistid", "artist", "venueid", "venue", "businessid", "business", "poiid", "poi", "locationid"),
        *("location", "newsid", "gameid", "game", "videoid", "video", "contentid", "content"),
    ),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
    "time": (
        *(
            "timestamp",
            "time",
            "ts",
            "unixreviewtime",
            "unixtime",
            "eventtime",
            "datetime",
            "date",
            "createdat",
        ),
        "utc",
    ),
    "position": ("position", "pos"),
    "split": ("split",),
}
_WEIGHTS = {"weight", "weights", "confidence", "count", "counts", "plays", "playcount", "frequency"}
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Columns:
    """A source's names for what recdistill reads; None: guess (or absent), ``"none"``: leave it out."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    position: str | None = None
    split: str | None = None


def choose_columns(
    present: Sequence[str],
    asked: Columns,
    use_rating: bool,
    where: str,
    note: Callable[[str], None],
    named: bool = True,
) -> Columns:
    """Settle which column holds what; the result names columns that are there, or None.

    Args:
        present: the source's columns.
        asked: what the caller named.
        use_rating: whether ratings will be compared with a threshold; else the column is left out.
        where: the source, for messages.
        note: told in one line what was guessed, and what is not used.
        named: the source itself names its columns; else they have the names of their places.

    Raises:
        DataError: if a named column is missing, or no column looks like users or items; lists those present.
    """
    chosen = Columns()
    guessed: list[str] = []
    for role in (field.name for field in fields(Columns)):
        name: str | None = getattr(asked, role)
        if name is None:
            name = _guess(role, present)
            if name is not None and not (role == "rating" and not use_rating):
                guessed.append(f"{role} '{name}'")
        elif name not in present:
            if name != IGNORED:
                raise _missing(role, name, present, where)
            name = None
        if name is None and role in ("user", "item"):
            raise DataError(
                f"no {role} column found in {where}; columns present: {', '.join(present)}",
                f"name it with --{role}-column",
            )
        chosen = replace(chosen, **{role: name})
    if use_rating and chosen.rating is None:
        raise DataError(
            f"--min-rating needs a rating column in {where}; columns present: {', '.join(present)}",
            "name it with --rating-column",
        )
    _forbid_shared(chosen, where)
    if guessed:
        how = "guessed by name" if named else "taken by their place, as the source does not name them"
        note(f"columns {how}: {', '.join(guessed)}")
    _note_unused(present, chosen, asked, use_rating, note)
    return chosen if use_rating else replace(chosen, rating=None)


def select(frame: pl.LazyFrame, columns: Columns) -> pl.LazyFrame:
    """The chosen columns under recdistill's names, ratings as Float64."""
    names = {"user": "user_id", "item": "item_id"}
    picked = [
        pl.col(source).alias(names.get(role, role))
        for role, source in ((field.name, getattr(columns, field.name)) for field in fields(Columns))
        if source is not None
    ]
    chosen = frame.select(picked)
    return (
        chosen
        if columns.rating is None
        else chosen.with_columns(pl.col("rating").cast(pl.Float64, strict=False))
    )


def checked(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Values made uniform: times as Float64, positions as Int64, splits by their one name.

    Raises:
        DataError: on null ids, on ratings or times that are not finite numbers, on positions that are no
            integers, and on unknown splits.
    """
    for role in ("user", "item"):
        ids = frame[f"{role}_id"]
        missing = ids.null_count() + (int(ids.is_nan().sum()) if ids.dtype.is_float() else 0)
        if missing:
            raise DataError(
                f"column '{getattr(columns, role)}' has {counted(missing, 'null id')} in {counted(len(ids), 'row')}",
                "remove those rows or fill in the ids",
            )
    if columns.rating is not None:
        _forbid_unsound(frame["rating"].is_finite(), columns.rating, "finite numbers", "the rating column")
    if columns.time is not None:
        frame = frame.with_columns(_seconds(frame["time"], columns.time))
    if columns.position is not None:
        frame = frame.with_columns(_integers(frame["position"], columns.position))
    if columns.split is not None:
        frame = frame.with_columns(_splits(frame["split"], columns.split))
    return frame


def _guess(role: str, present: Sequence[str]) -> str | None:
    plain = {"".join(filter(str.isalnum, name.lower())): name for name in reversed(present)}
    return next((plain[usual] for usual in _USUAL[role] if usual in plain), None)


def _missing(role: str, name: str, present: Sequence[str], where: str) -> DataError:
    by_lower = {column.lower(): column for column in present}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    meant = f"; did you mean '{by_lower[near[0]]}'?" if near else ""
    return DataError(f"no {role} column '{name}' in {where}{meant}", f"columns present: {', '.join(present)}")


def _forbid_shared(chosen: Columns, where: str) -> None:
    roles: dict[str, str] = {}
    for role, name in ((field.name, getattr(chosen, field.name)) for field in fields(Columns)):
        if name is None:
            continue
        if name in roles:
            raise DataError(
                f"column '{name}' of {where} was taken for {roles[name]} and for {role}", "name both"
            )
        roles[name] = role


def _note_unused(
    present: Sequence[str], chosen: Columns, asked: Columns, use_rating: bool, note: Callable[[str], None]
) -> None:
    if chosen.rating is not None and not use_rating:
        named = "" if asked.rating is None else ", though named"
        note(
            f"column '{chosen.rating}' is not used{named}: every row counts as a positive; "
            "--min-rating R keeps the rows rated R or higher"
        )
    weights = [name for name in present if "".join(filter(str.isalnum, name.lower())) in _WEIGHTS]
    if weights:
        note(f"column '{weights[0]}' is not used: interactions have no weights, each counts the same")


def _forbid_unsound(sound: pl.Series, name: str, expected: str, what: str) -> None:
    unsound = len(sound) - int(sound.fill_null(False).sum())
    if unsound:
        raise DataError(
            f"{what} '{name}' has {unsound:,} of {len(sound):,} values that are not {expected} "
            "(null, NaN or infinite among them)",
            "mend or remove those rows",
        )


def _seconds(times: pl.Series, name: str) -> pl.Series:
    """Times as numbers: numbers stay as they are, dates become seconds since 1970."""
    dtype = times.dtype
    if dtype == pl.String:
        numbers = times.cast(pl.Float64, strict=False)
        if numbers.null_count() > times.null_count():
            numbers = _parse_dates(times, name)
        times = numbers
    elif isinstance(dtype, pl.Date | pl.Datetime):
        times = times.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    elif not dtype.is_numeric():
        raise DataError(
            f"column '{name}' holds {dtype}; expected times as numbers or dates", "name another column"
        )
    times = times.cast(pl.Float64).alias("time")
    _forbid_unsound(times.is_finite(), name, "finite numbers or dates", "the time column")
    return times


def _parse_dates(times: pl.Series, name: str) -> pl.Series:
    wrong = times.filter(~times.str.contains(r"^\d{4}-\d{2}-\d{2}").fill_null(True))
    if not len(wrong):
        try:
            return times.str.to_datetime(time_unit="us").dt.epoch("us") / 1e6
        except pl.exceptions.PolarsError:
            wrong = times.drop_nulls()
    raise DataError(
        f"the time column '{name}' has values that are neither numbers nor dates, such as '{wrong[0]}'",
        "expected seconds or dates like 2024-05-31 or 2024-05-31T12:00:00; --time-column none leaves it out",
    )


def _integers(positions: pl.Series, name: str) -> pl.Series:
    values = positions.cast(pl.Float64, strict=False)
    numbers = positions.cast(pl.Int64, strict=False).alias("position")
    if positions.dtype == pl.String:  # 10.0 is how a column with gaps is often written
        numbers = numbers.fill_null(values.cast(pl.Int64, strict=False))
    same = values == numbers.cast(pl.Float64)
    if numbers.null_count() > positions.null_count() or not bool(same.fill_null(True).all()):
        raise DataError(
            f"the position column '{name}' has values that are no integers",
            "expected the place of each row in its user's order; --position-column none leaves it out",
        )
    return numbers


def _splits(splits: pl.Series, name: str) -> pl.Series:
    found = splits.cast(pl.String).str.strip_chars().str.to_lowercase()
    unknown = found.filter(~found.is_in([*_SPLIT_NAMES]).fill_null(False)).unique().sort()
    if len(unknown):
        shown = ", ".join(str(value) for value in unknown[:5].to_list())
        raise DataError(
            f"the split column '{name}' has values other than train, valid and test: {shown}",
            "rename them, or leave the column out with --split-column none",
        )
    return found.replace_strict(_SPLIT_NAMES).alias("split")
