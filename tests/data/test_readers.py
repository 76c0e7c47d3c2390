"""Every format gives the same interactions; what cannot be read is said in one line."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recdistill.data.columns import Columns
from recdistill.data.readers import find_files, read_files
from recdistill.errors import DataError

ROWS = [(3, "b", 4.0, 100), (1, "a", 2.5, 90), (3, "a", 5.0, 80)]
TABLE = pl.DataFrame(ROWS, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")


def read(
    source: Path | str, columns: Columns | None = None, use_rating: bool = False, **found: Any
) -> tuple[pl.DataFrame, list[str]]:
    notes: list[str] = []
    table, _ = read_files(find_files(source, **found), columns or Columns(), use_rating, notes.append)
    return table, notes


def write_text(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def delimited(mark: str, header: bool = True) -> str:
    lines = [mark.join(TABLE.columns)] * header + [mark.join(str(field) for field in row) for row in ROWS]
    return "\n".join(lines) + "\n"


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.parquet": lambda path: TABLE.write_parquet(path),
    "a.csv": lambda path: write_text(path, delimited(",")),
    "a.tsv": lambda path: write_text(path, delimited("\t")),
    "semicolon.csv": lambda path: write_text(path, delimited(";")),
    "spaces.txt": lambda path: write_text(path, delimited(" ")),
    "bar.dat": lambda path: write_text(path, delimited("|")),
    "movielens.dat": lambda path: write_text(path, delimited("::", header=False)),
    "u.data": lambda path: write_text(path, delimited("\t", header=False)),
    "quoted.csv": lambda path: write_text(
        path, delimited(",").replace(",a,", ',"a",').replace(",b,", ',"b",')
    ),
    "windows.csv": lambda path: write_text(path, "\ufeff" + delimited(", ").replace("\n", "\r\n")),
    "blank.csv": lambda path: write_text(path, "\n" + delimited(",") + "\n\n"),
    "a.csv.gz": lambda path: write_text(path, delimited(",")),
    "a.jsonl": lambda path: TABLE.write_ndjson(path),
    "a.jsonl.gz": lambda path: write_text(path, TABLE.write_ndjson()),
    "no_suffix": lambda path: TABLE.write_ndjson(path),
    "a.inter": lambda path: write_text(
        path,
        delimited("\t").replace(
            "user_id\titem_id\trating\ttimestamp",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        ),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_formats_agree(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    table, notes = read(tmp_path / name, use_rating=True)
    assert table.columns == ["user_id", "item_id", "rating", "time"]
    rows = [(int(user), *rest) for user, *rest in table.rows()]
    assert rows == [(user, item, rating, float(time)) for user, item, rating, time in ROWS]
    assert any("'user_id'" in note and "'timestamp'" in note for note in notes)


def test_adjacency_text(tmp_path: Path) -> None:
    path = tmp_path / "lists.txt"
    path.write_text("0 5 7  9 \n1\n\n2 5\n")
    assert read(path)[0].rows() == [("0", "5"), ("0", "7"), ("0", "9"), ("2", "5")]
    path.write_text("0 5 7\n1 6 8\n")  # as good a table of three columns: only the caller knows
    assert read(path)[0].rows() == [("0", "5"), ("1", "6")]
    assert len(read(path, format="adjacency")[0]) == 4


def test_folders_patterns_and_mixed_widths(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    TABLE.with_columns(pl.col("user_id").cast(pl.Int32)).write_parquet(tmp_path / "part" / "0.parquet")
    TABLE.with_columns(pl.lit(1).alias("extra")).write_parquet(tmp_path / "part" / "1.parquet")
    (tmp_path / "part" / "_SUCCESS").touch()
    (tmp_path / "part" / ".hidden.parquet").write_text("x")
    (tmp_path / "README.md").write_text("about")
    for source in (
        tmp_path,
        tmp_path / "part",
        str(tmp_path / "part" / "*.parquet"),
        str(tmp_path / "**" / "?.parquet"),
    ):
        table, _ = read(source)
        assert table["user_id"].to_list() == [3, 1, 3] * 2
        assert table["user_id"].dtype == pl.Int64


def test_folder_of_lightgcn_and_of_recbole(tmp_path: Path) -> None:
    light = tmp_path / "light"
    light.mkdir()
    (light / "train.txt").write_text("0 5 7\n1 6\n")
    (light / "test.txt").write_text("0 9\n1 5 7\n")
    (light / "item_list.txt").write_text("org_id remap_id\n9 0\n")
    table, notes = read(light)
    assert sorted(table.rows()) == sorted(
        [
            ("0", "5", "train"),
            ("0", "7", "train"),
            ("1", "6", "train"),
            ("0", "9", "test"),
            ("1", "5", "test"),
            ("1", "7", "test"),
        ]
    )
    assert "splits taken from the names of the files" in notes
    bole = tmp_path / "ml"
    bole.mkdir()
    (bole / "ml.inter").write_text("user_id:token\titem_id:token\n1\t2\n")
    (bole / "ml.item").write_text("item_id:token\n2\n")
    assert read(bole)[0].rows() == [("1", "2")]


def test_folder_of_movielens_takes_the_ratings(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")
    (tmp_path / "movies.csv").write_text("movieId,title\n2,Heat\n")
    assert read(tmp_path)[0].rows() == [("1", "2", 4.0)]


def test_other_files_of_a_folder_are_named(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "ratings.csv")
    assert find_files(tmp_path).unread == ""
    for name in ("README.md", "movies.csv", "plot.png", "tags.pdf", "_SUCCESS", ".hidden"):
        (tmp_path / name).write_text("x")
    assert find_files(tmp_path).unread == "4 files: README.md, movies.csv, plot.png and 1 more"
    assert find_files(tmp_path / "ratings.csv").unread == ""
    for name in ("ratings.csv", "movies.csv", "tags.pdf", "plot.png"):
        (tmp_path / name).unlink()
    with pytest.raises(
        DataError, match=r"no interactions in the folder .*, which holds 1 file: README.md; expected"
    ):
        find_files(tmp_path)


def made(folder: Path, kind: str) -> None:
    """What `prepare` and others leave: a manifest beside tables."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"kind": kind, "format": 1}))
    TABLE.write_parquet(folder / "train.parquet")


def test_directories_of_ours_are_left_out_of_a_folder(tmp_path: Path) -> None:
    for name, kind in (("teacher", "model"), ("teacher/inner", "model"), ("data", "data")):
        made(tmp_path / "runs" / name, kind)
    (tmp_path / "README.md").write_text("about")
    with pytest.raises(
        DataError, match=r"runs/data was made by .*\(kind data\).*; pass the file of interactions itself$"
    ) as raised:
        find_files(tmp_path)
    assert "\n" not in str(raised.value)
    logs = [tmp_path / name for name in ("a.csv", "runs/b.csv")]
    for log in logs:
        TABLE.write_csv(log)
    found = find_files(tmp_path)
    assert found.paths == tuple(logs)
    assert (found.made, found.unread) == ("2 directories: runs/data, runs/teacher", "1 file: README.md")


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(
        DataError, match="is a pipe or a device, and files are read twice; write it to a file"
    ):
        find_files(tmp_path / "log.csv")


def test_a_directory_of_ours_is_no_source(tmp_path: Path) -> None:
    made(tmp_path / "data", "data")
    with pytest.raises(
        DataError, match=r"data was made by .*kind data.*prepared already: recdistill train \S+/data$"
    ):
        find_files(tmp_path / "data")
    made(tmp_path / "model", "model")
    (tmp_path / "model" / "train.parquet").unlink()
    with pytest.raises(DataError, match=r"kind model.*pass the file of interactions itself$"):
        find_files(tmp_path / "model")


def test_other_programs_manifests_and_what_is_not_read_do_no_harm(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "ratings.csv")
    made(tmp_path / "runs", "data")  # ratings.csv alone is read
    assert find_files(tmp_path).paths == (tmp_path / "ratings.csv",)
    assert find_files(tmp_path).made == "1 directory: runs"
    other = tmp_path / "other"
    made(other, "data")
    for text in ("[1]", "{", '{"kind": "page"}'):
        (other / "manifest.json").write_text(text)
        assert find_files(other / "*.parquet").paths == (other / "train.parquet",)
        with pytest.raises(DataError, match="several formats: json, parquet"):
            find_files(other)


@pytest.mark.parametrize("text", ["1,2,3,4\n5,6,7,8\n", "1 2 3\n4 5\n"])
def test_columns_without_names_are_taken_by_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.csv" if "," in text else "a.txt")
    path.write_text(text)
    told = read(path)[1][0]
    assert told.startswith(
        "columns taken by their place, as the source does not name them: user 'user_id', item"
    )


def test_columns_by_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for names, found in [
        ("userId,movieId,rating,timestamp", ["user_id", "item_id", "rating", "time"]),
        ("UID,Product ID,stars,ts", ["user_id", "item_id", "rating", "time"]),
        ("item,user,pos,split", ["user_id", "item_id", "position", "split"]),
        ("session_id,track,title,x", ["user_id", "item_id"]),
    ]:
        last = "test" if "split" in names else "4"
        path.write_text(f"{names}\n1,2,3,{last}\n")
        assert read(path, use_rating="rating" in found)[0].columns == found


def test_named_and_ignored_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("who,what,time,weight\n1,2,x,0.5\n")
    table, notes = read(path, Columns(user="who", item="what", time="none"))
    assert table.rows() == [("1", "2")]
    assert notes == ["column 'weight' is not used: interactions have no weights, each counts the same"]


def test_rating_without_threshold_is_said_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating\n1,2,nan\n")
    table, notes = read(path)
    assert table.columns == ["user_id", "item_id"]
    assert any("'rating' is not used" in note for note in notes)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["2024-01-02", "1970-01-01"], [1704153600.0, 0.0]),
        (["2024-01-02T00:00:01Z", "2024-01-02T01:00:01+01:00"], [1704153601.0, 1704153601.0]),
        (["1.5", "-2"], [1.5, -2.0]),
    ],
)
def test_times_as_text(values: list[str], seconds: list[float], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,time\n" + "".join(f"1,2,{value}\n" for value in values))
    assert read(path)[0]["time"].to_list() == seconds


def test_positions_as_text(tmp_path: Path) -> None:
    """Whole numbers may be written with a point, as a column with gaps often is; large ones stay exact."""
    path = tmp_path / "a.csv"
    path.write_text(f"user,item,position\n1,2,10.0\n1,3,\n1,4,2.0\n1,5,{2**60 + 1}\n")
    assert read(path)[0]["position"].to_list() == [10, None, 2, 2**60 + 1]


def test_times_as_dates(tmp_path: Path) -> None:
    stamps = pl.Series(["2024-01-02T00:00:00.5"]).str.to_datetime()
    for times in (
        stamps,
        stamps.cast(pl.Datetime("ns")),
        stamps.dt.replace_time_zone("UTC"),
        stamps.cast(pl.Date),
    ):
        pl.DataFrame({"user": [1], "item": [2], "time": times}).write_parquet(tmp_path / "a.parquet")
        expected = 1704153600.0 + (0.0 if times.dtype == pl.Date else 0.5)
        assert read(tmp_path / "a.parquet")[0]["time"].to_list() == [expected]


BAD: dict[str, tuple[str, str, str]] = {
    "no file": ("", "", "no such file or folder: .*expected interactions"),
    "empty file": ("a.csv", "", "is empty"),
    "blank file": ("a.csv", " \n\n", "is empty"),
    "header only": ("a.csv", "user,item\n", "has no rows"),
    "no parquet": ("a.parquet", "hello", "no Parquet file: it does not begin with PAR1"),
    "broken parquet": ("a.parquet", "PAR1 and nothing else", "cannot read .* as parquet"),
    "no user column": ("a.csv", "who,item\n1,2\n", "no user column .*present: who, item; name it with"),
    "no item column": ("a.csv", "user,what\n1,2\n", "no item column found in .*columns present: user, what"),
    "null user": ("a.csv", "user,item\n1,2\n,3\n", "column 'user' has 1 null id in 2 rows"),
    "null item": ("a.jsonl", '{"user": 1, "item": null}\n', "column 'item' has 1 null id in 1 row"),
    "mixed types": ("a.jsonl", '{"user": 1, "item": 2}\n{"user": "x"}\n', "mixed types: number and string"),
    "bad JSON": ("a.jsonl", '{"user": 1, "item": 2\n', "cannot read .* as JSON lines"),
    "JSON array": ("a.json", '[{"user": 1, "item": 2}]', "is a JSON array; expected JSON lines"),
    "NaN rating": ("a.csv", "user,item,rating\n1,2,nan\n1,3,1\n", "has 1 of 2 values that are not finite numbers"),
    "infinite rating": ("a.csv", "user,item,rating\n1,2,inf\n1,3,1\n", "rating column 'rating' has 1 of 2 values"),
    "wordy rating": ("a.csv", "user,item,rating\n1,2,good\n1,3,1\n", "rating column 'rating' has 1 of 2 values"),
    "missing rating": ("a.csv", "user,item,rating\n1,2,\n1,3,1\n", "rating column 'rating' has 1 of 2 values"),
    "no rating": ("a.csv", "user,item\n1,2\n", "--min-rating needs a rating column.*columns present: user, item"),
    "NaN time": ("a.csv", "user,item,rating,time\n1,2,1,nan\n1,3,1,1\n", "time column 'time' has 1 of 2 values"),
    "infinite time": ("a.csv", "user,item,rating,time\n1,2,1,-inf\n1,3,1,1\n", "time column 'time' has 1 of 2 values"),
    "null time": ("a.csv", "user,item,rating,time\n1,2,1,\n1,3,1,1\n", "time column 'time' has 1 of 2 values"),
    "wordy time": ("a.csv", "user,item,rating,time\n1,2,1,soon\n", "neither numbers nor dates, such as 'soon'"),
    "American date": ("a.csv", "user,item,rating,time\n1,2,1,12/31/2024\n", "such as '12/31/2024'"),
    "fractional position": ("a.csv", "user,item,rating,position\n1,2,1,1.5\n", "'position' has values that are no int"),
    "unknown split": ("a.csv", "user,item,rating,split\n1,2,1,holdout\n", "other than train, valid and test: holdout"),
    "one column": ("a.csv", "user\n1\n", "has one column: 'user'"),
    "ragged": ("a.csv", "user,item,rating\n1,2,3\n1,2,3,4\n", "cannot read .* as table: found more fields"),
    "Latin-1": ("a.csv", "user,item,rating\né,2,3\n", "not UTF-8|invalid utf-8"),
    "same name twice": ("a.csv", "user,user,item\na,b,c\n", "two columns have the same name"),
    "column for two": ("a.csv", "user,item,rating\n1,2,3\n", "taken for user and for item"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_sources(case: str, tmp_path: Path) -> None:
    name, text, said = BAD[case]
    path = tmp_path / (name or "absent.csv")
    if name:
        path.write_bytes(text.encode("latin-1" if case == "Latin-1" else "utf-8"))
    columns = Columns(item="user") if case == "column for two" else Columns()
    with pytest.raises(DataError, match=said) as raised:
        read(path, columns, use_rating="rating" in text or case == "no rating")
    assert "\n" not in str(raised.value)


def test_missing_column_names_the_nearest(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"no user column 'User_Idd' in .*did you mean 'user_id'.*present: user_id, item_id"
    ):
        read(tmp_path / "a.parquet", Columns(user="User_Idd"))


def test_fractional_and_missing_number_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user": [1.0, float("nan")], "item": [1, 2]}).write_parquet(path)
    with pytest.raises(DataError, match="column 'user' has 1 null id in 2 rows"):
        read(path)


def test_files_that_differ(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "0.parquet")
    TABLE.with_columns(pl.col("user_id").cast(pl.String)).write_parquet(tmp_path / "1.parquet")
    with pytest.raises(
        DataError, match="user ids in column 'user_id' differ in type between files: numbers and strings"
    ):
        read(tmp_path)
    TABLE.drop("item_id").write_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match="no item column 'item_id' in one of its files"):
        read(tmp_path)
    (tmp_path / "1.parquet").unlink()
    (tmp_path / "1.csv").write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match="several formats: parquet, table"):
        read(tmp_path)
    with pytest.raises(DataError, match="no file matches"):
        read(tmp_path / "*.tsv")
