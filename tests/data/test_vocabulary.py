"""External ids and their indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data import vocabulary as module
from recdistill.data.hashing import hash_ids
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import DataError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=30) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_every_id_comes_back(ids: list[Any]) -> None:
    vocabulary = Vocabulary.from_ids(ids)
    assert len(vocabulary) == len(set(ids))
    indices = vocabulary.index(ids)
    assert vocabulary.ids(indices).to_list() == ids
    assert sorted(set(indices.tolist())) == list(range(len(set(ids))))


def test_order_is_that_of_the_hash() -> None:
    vocabulary = Vocabulary.from_ids([f"item-{number}" for number in range(500)])
    hashes = hash_ids(vocabulary.ids())
    assert (hashes[1:] > hashes[:-1]).all()
    assert vocabulary.ids()[:3].to_list() == ["item-37", "item-440", "item-419"]
    assert Vocabulary.from_ids(range(10)).ids().to_list() == [3, 5, 7, 4, 1, 2, 8, 9, 6, 0]


def test_order_of_the_source_does_not_matter() -> None:
    ids = [f"u{number}" for number in range(100)]
    assert Vocabulary.from_ids(ids).hash == Vocabulary.from_ids([*reversed(ids), *ids]).hash
    assert Vocabulary.from_ids(ids).hash != Vocabulary.from_ids(ids[1:]).hash


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "hash_ids", lambda ids: np.full(len(ids), 7, dtype=np.uint64))
    vocabulary = Vocabulary.from_ids(["c", "a", "b"])
    assert vocabulary.ids().to_list() == ["a", "b", "c"]
    assert vocabulary.index(["b", "x", "c", "a"]).tolist() == [1, -1, 2, 0]
    assert Vocabulary.from_ids([30, 10, 20]).index([20, 25, 10]).tolist() == [1, -1, 0]


def test_unknown_and_null_ids() -> None:
    vocabulary = Vocabulary.from_ids(["a", "b"])
    found = vocabulary.index(pl.Series(["b", None, "z"]))
    assert found.dtype == torch.int64
    assert (found[1:] == -1).all()
    assert vocabulary.ids(found).to_list() == ["b", None, None]
    assert Vocabulary.from_ids([]).index(["a"]).tolist() == [-1]
    assert vocabulary.index([]).shape == (0,)


def test_integers_and_their_decimal_strings_are_one_id() -> None:
    numbers = Vocabulary.from_ids([12, 7, -3])
    assert numbers.index(["12", "012", "-3", "x", " 7"]).tolist() == [
        numbers.index([12])[0],
        -1,
        numbers.index([-3])[0],
        -1,
        -1,
    ]
    texts = Vocabulary.from_ids(["12", "x"])
    assert texts.index([12, 3]).tolist() == [texts.index(["12"])[0], -1]


def test_ids_from_text_become_integers_only_where_nothing_is_lost() -> None:
    assert Vocabulary.encode(["10", "2"], from_text=True)[1].dtype == pl.Int64
    for ids in (["10", "007"], ["10", "x"], ["10", str(2**63)], ["10", "-0"]):
        codes, vocabulary = Vocabulary.encode(ids, from_text=True)
        assert vocabulary.dtype == pl.String
        assert vocabulary.ids(codes).to_list() == ids


@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        (np.array([1, 2], dtype=np.int16), pl.Int64),
        (pl.Series([2**64 - 1, 1], dtype=pl.UInt64), pl.UInt64),
        (pl.Series([2**80, 1], dtype=pl.Int128), pl.String),
        (pl.Series([1.0, 2.0]), pl.Int64),
        (pl.Series(["a", "b"], dtype=pl.Categorical), pl.String),
        (torch.tensor([4, 5], dtype=torch.int32), pl.Int64),
    ],
)
def test_types_of_ids(ids: Any, dtype: pl.DataType) -> None:
    vocabulary = Vocabulary.from_ids(ids)
    assert vocabulary.dtype == dtype
    assert sorted(vocabulary.index(ids).tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1, "a"], "mixed types"),
        ([1.5, 2.0], "fractional"),
        (["a", None], "1 null id in 2 rows"),
        ([1.0, float("nan")], "null"),
        ([True, False], "Boolean"),
        (pl.Series([[1], [2]]), "List"),
    ],
)
def test_bad_ids(ids: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Vocabulary.from_ids(ids, "user_id")


def test_indices_out_of_range() -> None:
    with pytest.raises(DataError, match=r"\[0, 2\), found 0 to 2"):
        Vocabulary.from_ids(["a", "b"]).ids([0, 2])


def test_keep_leaves_the_order() -> None:
    vocabulary = Vocabulary.from_ids(range(5))
    kept = vocabulary.keep(np.array([True, False, True, True, False]))
    assert kept.ids().to_list() == vocabulary.ids([0, 2, 3]).to_list()
    assert kept.index(vocabulary.ids([1, 2])).tolist() == [-1, 1]


@pytest.mark.parametrize("ids", [["x", "y", ""], [1, 2, 3]])
def test_saved_and_loaded(ids: list[Any], tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_ids(ids, "item_id")
    vocabulary.save(tmp_path / "items.parquet")
    assert pl.read_parquet(tmp_path / "items.parquet").columns == ["item_id"]
    loaded = Vocabulary.load(tmp_path / "items.parquet")
    assert loaded.hash == vocabulary.hash
    assert loaded.index(ids).tolist() == vocabulary.index(ids).tolist()
