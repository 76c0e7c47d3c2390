"""The hash of ids: golden values that must never change, and its use of every byte."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.hashing import hash_ids, mix

MASK = 2**64 - 1
INTEGERS: list[str] = ["910a2dec89025cc1", "e4d971771b652c20", "bdd732262feb6e95"]
STRINGS: list[str] = [
    "e220a8397b1dcdaf",
    "5e025f9ade9eaf3e",
    "de1dbaef32e9fbd0",
    "79e7bd8a7e0d03cf",
    "047b10a0e744c013",
    "12593c3d433d3c6b",
]


def mix_by_hand(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def hash_text_by_hand(text: str) -> int:
    data = text.encode()
    state = mix_by_hand(len(data))
    for at in range(0, len(data), 8):
        state = mix_by_hand(state ^ int.from_bytes(data[at : at + 8], "little"))
    return state


def test_golden_values_of_integers() -> None:
    # The first is the published first output of splitmix64 with seed 0.
    assert hash_ids(pl.Series([0, 1, -1, 42])).tolist() == [
        0xE220A8397B1DCDAF,
        mix_by_hand(1),
        mix_by_hand(MASK),
        mix_by_hand(42),
    ]
    assert [f"{value:016x}" for value in hash_ids(pl.Series([1, -1, 42]))] == INTEGERS


def test_golden_values_of_strings() -> None:
    texts = ["", "a", "user-1", "exactly8", "héllo wörld, longer than eight bytes", "日本"]
    assert [f"{value:016x}" for value in hash_ids(pl.Series(texts))] == STRINGS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_strings_hash_as_worked_by_hand(texts: list[str]) -> None:
    assert hash_ids(pl.Series(texts, dtype=pl.String)).tolist() == [hash_text_by_hand(text) for text in texts]


def test_slices_hash_like_copies() -> None:
    texts = pl.Series(["one", "two two two two", "three", "four"])
    assert hash_ids(texts[1:3]).tolist() == hash_ids(texts).tolist()[1:3]
    assert (
        hash_ids(texts.filter(pl.Series([False, True, False, True]))).tolist()
        == hash_ids(texts).tolist()[1::2]
    )


def test_width_of_integers_does_not_matter() -> None:
    wide = hash_ids(pl.Series([7, 300], dtype=pl.Int64)).tolist()
    assert hash_ids(pl.Series([7, 300], dtype=pl.Int16)).tolist() == wide
    assert hash_ids(pl.Series([2**64 - 1], dtype=pl.UInt64)).tolist() == [mix_by_hand(MASK)]


def test_zero_bytes_count() -> None:
    hashes = hash_ids(pl.Series(["a", "a\0", "a\0\0", "\0" * 8, "\0" * 16]))
    assert len(set(hashes.tolist())) == 5


def test_mixing_spreads_consecutive_numbers() -> None:
    top = mix(np.arange(4096, dtype=np.uint64)) >> np.uint64(56)
    counts = np.bincount(top.astype(np.int64), minlength=256)
    assert counts.max() < 40  # 16 expected in each of 256 bins
