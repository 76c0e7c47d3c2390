"""External ids and their dense indices: the only place where one becomes the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from recdistill.data.hashing import hash_ids
from recdistill.errors import DataError
from recdistill.files import read_table, write_table
from recdistill.wording import counted

Ids = pl.Series | Sequence[int] | Sequence[str] | NDArray[np.generic] | Tensor


class Vocabulary:
    """Distinct external ids, integers or strings, each with an index from 0.

    Indices follow a fixed hash of the id (see :mod:`recdistill.data.hashing`; equal hashes by the id itself).
    Wherever "equal scores rank by the smaller index" is promised, ties therefore fall by that hash: the same
    in training, evaluation and export, and unrelated to popularity or to the order of a file.

    Args:
        ids: distinct ids in the order of their hashes; use :meth:`from_ids`, :meth:`encode` or :meth:`load`.
    """

    def __init__(self, ids: pl.Series) -> None:
        self._ids = ids

    @classmethod
    def from_ids(cls, ids: Ids, name: str = "id") -> Vocabulary:
        """The vocabulary of the given ids; repeats are allowed, the order does not matter.

        Raises:
            DataError: on null ids, ids of mixed types, or ids that are neither integers nor strings.
        """
        return cls.encode(ids, name)[1]

    @classmethod
    def encode(
        cls, ids: Ids, name: str = "id", from_text: bool = False
    ) -> tuple[NDArray[np.int32], Vocabulary]:
        """The vocabulary of the given ids, and the index of each of them.

        Args:
            ids: ``(n,)`` external ids.
            name: the name of the column, used in messages and in the saved table.
            from_text: the ids come from a text format, which does not tell 12 from "12": where all of them
                are integers in decimal without leading zeros, they become integers.

        Returns:
            ``(n,)`` int32 indices and the vocabulary.

        Raises:
            DataError: as :meth:`from_ids`.
        """
        series = normalise_ids(ids, name)
        missing = series.null_count()
        if missing:
            raise DataError(
                f"column '{name}' has {counted(missing, 'null id')} in {counted(len(series), 'row')}",
                "remove those rows or fill in the ids",
            )
        encoded: Any = series.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
        distinct = pl.Series(name, encoded.dictionary, dtype=series.dtype)
        if from_text:
            numbers = _as_type(distinct, pl.Int64())
            distinct = distinct if numbers.null_count() else numbers
        order = _hash_order(distinct)
        rank = np.empty(len(order), dtype=np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        codes: NDArray[np.int32] = rank[encoded.indices.to_numpy(zero_copy_only=False)]
        return codes, cls(distinct.gather(order))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def name(self) -> str:
        """The name of the id column."""
        return self._ids.name

    @property
    def dtype(self) -> pl.DataType:
        """Int64, UInt64 (only where ids pass the range of Int64) or String."""
        return self._ids.dtype

    @cached_property
    def hash(self) -> str:
        """16 hex digits that depend on the ids alone."""
        digest = hashlib.sha256(str(self.dtype).encode())
        array: Any = self._ids.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        for buffer in array.buffers()[1:]:
            digest.update(buffer or b"")
        return digest.hexdigest()[:16]

    def index(self, ids: Ids) -> Tensor:
        """The indices of external ids.

        Integers and the strings that write them in decimal ("12", not "012") are the same id, so a file of
        users may be read as either.

        Args:
            ids: ``(n,)`` external ids, known or not.

        Returns:
            ``(n,)`` int64; -1 for ids that are unknown or null.

        Raises:
            DataError: on ids of mixed types, or that are neither integers nor strings.
        """
        wanted = _as_type(normalise_ids(ids, self.name), self.dtype)
        if not len(self) or not len(wanted):
            return torch.full((len(wanted),), -1, dtype=torch.int64)
        present = wanted.is_not_null().to_numpy()
        asked = wanted.drop_nulls()
        hashes = hash_ids(asked)
        at = np.searchsorted(self.hashes, hashes)
        found = np.full(len(asked), -1, dtype=np.int64)
        open_rows = np.flatnonzero(at < len(self))
        # More than one round only where two ids share a 64-bit hash.
        while len(open_rows):
            open_rows = open_rows[self.hashes[at[open_rows]] == hashes[open_rows]]
            equal = (self._ids.gather(at[open_rows]) == asked.gather(open_rows)).to_numpy()
            found[open_rows[equal]] = at[open_rows[equal]]
            open_rows = open_rows[~equal]
            at[open_rows] += 1
            open_rows = open_rows[at[open_rows] < len(self)]
        indices = np.full(len(wanted), -1, dtype=np.int64)
        indices[present] = found
        return torch.from_numpy(indices)

    def ids(self, indices: Tensor | ArrayLike | None = None) -> pl.Series:
        """The external ids of indices.

        Args:
            indices: ``(n,)`` integers in ``[-1, len)``; -1 (padding) gives null. None: all ids, in order.

        Returns:
            ``(n,)`` ids.
        """
        if indices is None:
            return self._ids
        array = indices.numpy() if isinstance(indices, Tensor) else np.asarray(indices, dtype=np.int64)
        if array.size and (array.min() < -1 or array.max() >= len(self)):
            raise DataError(
                f"'{self.name}' indices must lie in [0, {len(self)}), found {array.min()} to {array.max()}"
            )
        padded = array < 0
        if not padded.any():
            return self._ids.gather(array)
        positions = pl.Series(array).to_frame("at").select(pl.when(pl.col("at") >= 0).then(pl.col("at")))
        return self._ids.gather(positions.to_series())

    def keep(self, kept: NDArray[np.bool_]) -> Vocabulary:
        """The vocabulary of the ids whose index is marked; the rest keep their order.

        Args:
            kept: ``(len,)`` bool.
        """
        return Vocabulary(self._ids.filter(pl.Series(kept)))

    def save(self, path: Path) -> None:
        """Write a Parquet table of one column, a row an index."""
        write_table(path, self._ids.to_frame())

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what :meth:`save` wrote."""
        return cls(read_table(path).to_series())

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """``(len,)`` uint64, ascending: the hash of each id."""
        return hash_ids(self._ids)


def normalise_ids(ids: Ids, name: str = "id") -> pl.Series:
    """Ids as Int64, UInt64 or String; nulls stay.

    Whole floats become integers, for tables that lost their integers to a missing value on the way. Integers
    wider than 64 bits become strings.

    Raises:
        DataError: on mixed types, fractions, or types that are no ids.
    """
    if isinstance(ids, pl.Series):
        series = ids.alias(name)
    else:
        try:
            series = pl.Series(name, ids.numpy() if isinstance(ids, Tensor) else ids, strict=True)
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            raise DataError(
                f"column '{name}' has ids of mixed types", "make them all integers or all strings"
            ) from None
    dtype = series.dtype
    if dtype == pl.String or dtype == pl.Int64:
        return series
    if isinstance(dtype, pl.Categorical | pl.Enum) or dtype == pl.Null:
        return series.cast(pl.String)
    if dtype.is_float():
        series = series.fill_nan(None)
        whole = series.cast(pl.Int64, strict=False)
        if (
            not bool((whole.cast(dtype) == series).fill_null(True).all())
            or whole.null_count() > series.null_count()
        ):
            raise DataError(f"column '{name}' has fractional ids ({dtype})", "ids are integers or strings")
        return whole
    if dtype.is_integer():
        for narrower in (pl.Int64, pl.UInt64, pl.String):
            cast = series.cast(narrower, strict=False)
            if cast.null_count() == series.null_count():
                return cast
    raise DataError(f"column '{name}' holds {dtype}", "ids are integers or strings")


def _as_type(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids in the vocabulary's type; those that it cannot hold become null."""
    if series.dtype == dtype:
        return series
    cast = series.cast(dtype, strict=False)
    if series.dtype == pl.String:
        canonical = cast.cast(pl.String) == series
        return cast.to_frame("id").select(pl.when(canonical).then(pl.col("id"))).to_series()
    return cast


def _hash_order(ids: pl.Series) -> NDArray[np.int64]:
    """The order of distinct ids by hash, equal hashes by id."""
    hashes = hash_ids(ids)
    order = np.argsort(hashes)
    ordered = hashes[order]
    if bool((ordered[1:] == ordered[:-1]).any()):
        order = np.lexsort((ids.rank("ordinal").to_numpy(), hashes))
    return order
