"""The stable radix sort against numpy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.sorting import is_sorted, stable_order

INTEGERS = st.integers(-(2**62), 2**62) | st.integers(-3, 3)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(INTEGERS, FLOATS), max_size=40))
def test_equals_lexsort(rows: list[tuple[int, float]]) -> None:
    first = np.array([row[0] for row in rows], dtype=np.int64)
    second = np.array([row[1] for row in rows], dtype=np.float64)
    np.testing.assert_array_equal(stable_order(first, second), np.lexsort((second, first)))


def test_equal_rows_stay_put_over_several_digits() -> None:
    generator = np.random.default_rng(0)
    keys = generator.integers(0, 5000, 20_000).astype(np.int32)
    np.testing.assert_array_equal(stable_order(keys), np.argsort(keys, kind="stable"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6))
def test_is_sorted(rows: list[tuple[int, int]]) -> None:
    first = np.array([row[0] for row in rows], dtype=np.int32)
    second = np.array([row[1] for row in rows], dtype=np.int32)
    assert is_sorted(first, second) == (rows == sorted(rows))
