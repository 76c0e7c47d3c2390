"""Arrays, tables and JSON: round trips, damaged files and failed writes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from artifact_helpers import message
from recdistill.artifacts import (
    array_shapes,
    load_arrays,
    read_json,
    read_table,
    save_arrays,
    write_json,
    write_table,
)
from recdistill.atomic import size_text
from recdistill.errors import ArtifactError

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
TABLE = pl.DataFrame({"user_id": ["a", None, "ü"], "n": [1, 2, 3], "x": [0.5, None, 1e300]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file [1]*.bin"  # nothing in a name is a pattern


class TestArrays:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 4), (2, 3), (2, 1, 5)])
    def test_round_trip(self, path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        array = torch.randint(0, 2, shape).to(dtype)
        save_arrays(path, {"a": array, "b": torch.arange(3, dtype=torch.int8)})
        found = load_arrays(path)
        assert found["a"].dtype == dtype
        assert torch.equal(found["a"], array)
        assert found["b"].tolist() == [0, 1, 2]
        assert array_shapes(path) == {"a": shape, "b": (3,)}

    def test_what_is_not_contiguous_or_needs_a_gradient(self, path: Path) -> None:
        table = torch.arange(12.0).reshape(3, 4)
        save_arrays(path, {"t": table.T, "s": table[:, 1:3], "p": torch.nn.Parameter(table), "v": table[2]})
        found = load_arrays(path)
        assert torch.equal(found["t"], table.T)
        assert torch.equal(found["s"], table[:, 1:3])
        assert torch.equal(found["p"], table)
        assert not found["p"].requires_grad
        assert torch.equal(found["v"], table[2])

    def test_other_programs_read_ours(self, path: Path) -> None:
        arrays = {"odd": torch.tensor([True] * 3), "wide": torch.arange(5), "name ü": torch.ones(2, 2)}
        save_arrays(path, arrays, {"model": "bpr"})
        with safe_open(path, framework="np") as file:
            assert file.metadata() == {"model": "bpr"}
            assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {  # noqa: SIM118
                name: array.tolist() for name, array in arrays.items()
            }

    def test_ours_is_byte_for_byte_the_librarys(self, path: Path) -> None:
        arrays = {"b": torch.ones(3), "a": torch.arange(4), "c": torch.zeros(2, dtype=torch.int8)}
        save_arrays(path, arrays)
        theirs = path.with_name("theirs")
        save_file(arrays, theirs)
        assert path.read_bytes() == theirs.read_bytes()

    def test_wide_types_are_aligned(self, path: Path) -> None:
        save_arrays(path, {"a": torch.ones(3, dtype=torch.int8), "z": torch.arange(4)})
        assert load_arrays(path)["z"].data_ptr() % 8 == 0

    def test_loading_maps_and_writing_stays_in_memory(self, path: Path) -> None:
        save_arrays(path, {"a": torch.zeros(1000)})
        first = load_arrays(path)["a"]
        first += 1
        assert load_arrays(path)["a"].sum() == 0

    def test_a_loaded_file_may_be_replaced(self, path: Path) -> None:
        save_arrays(path, {"a": torch.zeros(1000)})
        old = load_arrays(path)["a"]
        save_arrays(path, {"a": old + 1})
        assert old.sum() == 0
        assert load_arrays(path)["a"].sum() == 1000

    @pytest.mark.parametrize("bad", [torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.complex64)])
    def test_what_the_format_cannot_hold(self, path: Path, bad: torch.Tensor) -> None:
        with pytest.raises(TypeError, match="array 'bad' is"):
            save_arrays(path, {"bad": bad})
        assert not path.exists()

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.text(max_size=5).filter(lambda name: name != "__metadata__"),
            st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)),
            max_size=4,
        )
    )
    def test_any_arrays(self, tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, Any]) -> None:
        path = tmp_path_factory.getbasetemp() / "any"
        arrays = {name: torch.randint(0, 2, tuple(shape)).to(dtype) for name, (dtype, shape) in kinds.items()}
        save_arrays(path, arrays)
        found = load_arrays(path)
        assert found.keys() == arrays.keys()
        assert all(torch.equal(found[name], arrays[name]) for name in arrays)


class TestTables:
    def test_round_trip(self, path: Path) -> None:
        write_table(path, TABLE)
        assert read_table(path).equals(TABLE)
        assert read_table(path, ["x", "n"]).equals(TABLE.select("x", "n"))
        write_table(path, TABLE.clear())
        assert read_table(path).equals(TABLE.clear())

    def test_a_folder_that_looks_like_a_partition_adds_no_column(self, tmp_path: Path) -> None:
        folder = tmp_path / "split=random"
        folder.mkdir()
        write_table(folder / "t.parquet", TABLE)
        assert read_table(folder / "t.parquet").columns == TABLE.columns

    def test_missing_columns(self, path: Path) -> None:
        write_table(path, TABLE)
        said = message(lambda: read_table(path, ["n", "m", "k"]))
        assert f"{path} has no column m, k; it has user_id, n, x" in said


class TestJson:
    def test_round_trip(self, path: Path) -> None:
        value = {"a": [1, 0.1, None, True, "ü\udcff"], "b": {}}
        write_json(path, value)
        assert read_json(path) == value

    def test_what_json_lacks_is_null(self, path: Path) -> None:
        write_json(path, {"x": float("nan"), "y": [float("inf"), (1.0, float("-inf"))]})
        assert json.loads(path.read_text()) == {"x": None, "y": [None, [1.0, None]]}


def some_file(kind: str, path: Path) -> Callable[[Path], object]:
    """Write a file of a kind; returns what reads it."""
    if kind == "json":
        write_json(path, {"a": list(range(50))})
        return read_json
    if kind == "table":
        write_table(path, TABLE)
        return read_table
    save_arrays(path, {"a": torch.arange(20.0), "b": torch.ones(3, 3)})
    return load_arrays if kind == "arrays" else array_shapes


KINDS = pytest.mark.parametrize("kind", ["json", "table", "arrays", "shapes"])


class TestDamaged:
    @KINDS
    def test_missing(self, path: Path, kind: str) -> None:
        read = some_file(kind, path)
        path.unlink()
        assert message(lambda: read(path)) == f"{path} does not exist; make it again with --force"

    @KINDS
    def test_a_folder(self, path: Path, kind: str) -> None:
        read = some_file(kind, path)
        path.unlink()
        path.mkdir()
        message(lambda: read(path))

    @KINDS
    def test_truncated(self, path: Path, kind: str) -> None:
        read = some_file(kind, path)
        content = path.read_bytes().rstrip()
        for length in {0, 1, 7, 8, 20, len(content) // 2, len(content) - 4, len(content) - 1}:
            path.write_bytes(content[:length])
            said = message(lambda: read(path))
            assert str(path) in said
            assert "damaged" in said

    @KINDS
    def test_overwritten(self, path: Path, kind: str) -> None:
        read = some_file(kind, path)
        for content in (b"\x00" * 500, b"\xff" * 500, b"<html>\n" * 100):
            path.write_bytes(content)
            assert "damaged" in message(lambda: read(path))

    def test_broken_pages(self, path: Path) -> None:
        # A page that decodes to another number of rows: some of these make polars' core panic, not raise.
        write_table(path, pl.DataFrame({"a": range(1000), "s": ["x" * (i % 7) for i in range(1000)]}))
        content = bytearray(path.read_bytes())
        refused = 0
        for position in range(4, 60):
            broken = content.copy()
            broken[position] ^= 0xFF
            path.write_bytes(broken)
            try:
                read_table(path)
            except ArtifactError:
                refused += 1
        assert refused > 10

    def test_panics_are_errors(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_table(path, TABLE)

        def panic(*_: object) -> None:
            raise pl.exceptions.PanicException("called\n`unwrap`")

        monkeypatch.setattr(pl.LazyFrame, "collect", panic)
        assert "damaged: no valid Parquet (called `unwrap`)" in message(lambda: read_table(path))

    def test_sizes_are_named(self, path: Path) -> None:
        save_arrays(path, {"a": torch.zeros(1000)})
        with path.open("r+b") as file:
            file.truncate(2000)
        assert "(2 kB found); make it again with --force" in message(lambda: load_arrays(path))


def write_some(kind: str, path: Path) -> None:
    some_file(kind, path)


class TestFailedWrites:
    @pytest.mark.parametrize("kind", ["json", "table", "arrays"])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_the_old_file_stays(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int, call: str
    ) -> None:
        path.write_text("old")

        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, call, fail)
        said = message(lambda: write_some(kind, path))
        assert said.startswith("no space left for" if number == errno.ENOSPC else "cannot write")
        assert str(path) in said
        assert path.read_text() == "old"
        assert [*path.parent.iterdir()] == [path]

    def test_another_librarys_error(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise pl.exceptions.ComputeError("parquet: IO error: No space left on device (os error 28)")

        monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
        assert message(lambda: write_table(path, TABLE)).startswith("no space left for")

    @pytest.mark.parametrize("kind", ["json", "table", "arrays"])
    def test_a_missing_folder(self, path: Path, kind: str) -> None:
        said = message(lambda: write_some(kind, path.parent / "none" / "file"))
        assert "No such file or directory; check the path" in said

    def test_ctrl_c_leaves_the_old_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path.write_text("old")

        def interrupt(_: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_json(path, 1)
        assert path.read_text() == "old"
        assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (999_900, "1 MB"),
        (2e6, "2 MB"),
        (3.25e9, "3.25 GB"),
        (7e13, "70 TB"),
    ],
)
def test_size_text(size: float, text: str) -> None:
    assert size_text(int(size)) == text
