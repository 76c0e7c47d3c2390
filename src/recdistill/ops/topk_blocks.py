"""The blocks of scores that the top-k kernels see on a CPU, spread over threads.

Each thread takes blocks of rows and does everything for them by itself, the matrix products too: products and
kernels never wait for each other, and no thread spins for work while another has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recdistill.errors import DataError
from recdistill.ops.rows import Rows
from recdistill.ops.threads import spread, taken

_WIDTH = 8192  # least columns of a tile, where the catalogue has them
_TILE = 256 * _WIDTH  # scores of a thread's tile: 8 MiB; fewer rows make it wider
_ALL_TILES = 4 * _TILE  # scores of all threads' tiles, where that leaves each thread 32 rows
_CANDIDATE_BYTES = 8 << 20  # a thread
_GATHER_BYTES = 16 << 20  # up to this size candidates' vectors are copied once, else for every block of rows
_INLINE_WORK = 1 << 24  # multiplications below which starting threads does not pay

Tile = tuple[NDArray[np.float32], int, int, int]
"""Scores in one dimension, distance from row to row, number of columns, first column."""


@dataclass(frozen=True)
class Product:
    """The scores rows · items + bias (b, C), computed a tile at a time; float32 on the CPU, no gradient."""

    rows: Tensor
    items: Tensor
    bias: Tensor | None
    candidates: Tensor | None

    @staticmethod
    def of(rows: Tensor, items: Tensor, bias: Tensor | None, candidates: Tensor | None) -> Product:
        """Detach the tables, and copy the candidates' vectors where they are few."""
        rows, items = rows.detach(), items.detach()
        bias = None if bias is None else bias.detach().float()
        if candidates is not None and 4 * len(candidates) * items.shape[1] <= _GATHER_BYTES:
            return Product(rows, items[candidates], None if bias is None else bias[candidates], None)
        return Product(rows, items, bias, candidates)

    @property
    def shape(self) -> tuple[int, int]:
        columns = self.items if self.candidates is None else self.candidates
        return len(self.rows), len(columns)

    @property
    def work(self) -> int:
        return self.shape[0] * self.shape[1] * (self.rows.shape[1] + 8)

    def max_height(self, threads: int) -> int:
        return min(_TILE, max(32 * _WIDTH, _ALL_TILES // threads)) // _WIDTH

    def buffer(self, height: int) -> Tensor:
        """Room for a tile of up to `height` rows."""
        size = height * min(self.shape[1], max(_WIDTH, _TILE // height))
        return torch.empty(size, dtype=torch.float32, device="cpu")

    def tiles(self, start: int, stop: int, buffer: Tensor) -> Iterator[Tile]:
        """Yield the tiles of rows start to stop, each in the same buffer."""
        rows = self.rows[start:stop].contiguous()
        flat = buffer.numpy()
        columns = self.shape[1]
        step = max(1, len(buffer) // len(rows))
        for base in range(0, columns, step):
            part = slice(base, min(base + step, columns))
            chosen = part if self.candidates is None else self.candidates[part]
            width = part.stop - base
            tile = buffer[: len(rows) * width].view(len(rows), width)
            if self.bias is None:
                torch.mm(rows, self.items[chosen].T, out=tile)
            else:
                torch.addmm(self.bias[chosen], rows, self.items[chosen].T, out=tile)
            yield flat, width, width, base


@dataclass(frozen=True)
class Dense:
    """Scores (b, I) that are there already; float32 on the CPU, no gradient."""

    scores: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.scores.shape[0], self.scores.shape[1]

    @property
    def work(self) -> int:
        return 8 * self.scores.numel()

    def max_height(self, threads: int) -> int:
        rows = _TILE // _WIDTH
        return rows if self.scores.is_contiguous() else min(rows, _ALL_TILES // (threads * self.shape[1] + 1))

    def buffer(self, height: int) -> Tensor:
        """Nothing: the scores are read where they are."""
        del height
        return self.scores[:0]

    def tiles(self, start: int, stop: int, buffer: Tensor) -> Iterator[Tile]:
        """Yield rows start to stop as one tile; only scores that are not contiguous are copied."""
        del buffer
        columns = self.shape[1]
        yield self.scores[start:stop].contiguous().view(-1).numpy(), columns, columns, 0


def select(source: Product | Dense, k: int, exclude: Rows | None) -> tuple[Tensor, Tensor]:
    """Return scores (b, k) and columns (b, k) as `top_k` does, on as many threads as torch uses."""
    from recdistill.ops.kernels import topk as kernels

    num_rows = source.shape[0]
    scores = torch.empty(num_rows, k, dtype=torch.float32, device="cpu")
    columns = torch.empty(num_rows, k, dtype=torch.int64, device="cpu")

    def finish(block: slice, candidates: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        kernels.finish(candidates, sizes, k, scores[block].numpy(), columns[block].numpy())

    _collect(source, np.full(num_rows, k), exclude, finish)
    return scores, columns


def select_at(source: Product | Dense, positions: Tensor, exclude: Rows | None) -> Tensor:
    """Return columns (b, m) as `ranked_at` does, on as many threads as torch uses."""
    from recdistill.ops.kernels import topk as kernels

    columns = torch.empty(positions.shape, dtype=torch.int64, device="cpu")
    wanted = positions.contiguous().numpy()
    depths = wanted.max(axis=1, initial=0) + 1

    def finish(block: slice, candidates: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        kernels.finish_at(candidates, sizes, depths[block], wanted[block], columns[block].numpy())

    _collect(source, depths, exclude, finish)
    return columns


def _collect(
    source: Product | Dense,
    depths: NDArray[np.int64],
    exclude: Rows | None,
    finish: Callable[[slice, NDArray[np.int64], NDArray[np.int64]], None],
) -> None:
    """Gather the candidates for each row's `depths` (b,); `finish` takes a block of rows, these and their sizes."""
    from recdistill.ops.kernels import topk as kernels

    num_rows, num_columns = source.shape
    deepest = int(depths.max(initial=1))
    room = min(2 * deepest + kernels.SAMPLE - kernels.LANES, num_columns) + kernels.LANES
    indptr, excluded = _arrays(exclude, num_rows)
    workers, height = _plan(source, room)
    starts = deque(range(0, num_rows, height))

    def work() -> None:
        buffer = source.buffer(height)
        candidates = np.empty((height, room), np.int64)
        while (start := taken(starts)) is not None:
            stop = min(start + height, num_rows)
            sizes, limits = np.zeros(stop - start, np.int64), np.full(stop - start, -np.inf, np.float32)
            own, cursors, wanted = indptr[start : stop + 1], indptr[start:stop].copy(), depths[start:stop]
            for tile in source.tiles(start, stop, buffer):
                if kernels.scan(*tile, wanted, own, excluded, candidates, sizes, limits, cursors):
                    raise DataError("scores contain NaN", "check that the model's training did not diverge")
            finish(slice(start, stop), candidates, sizes)

    spread(work, workers, starts)


def _plan(source: Product | Dense, room: int) -> tuple[int, int]:
    """Return the number of threads, and the height of a block such that all threads get equally many."""
    num_rows = source.shape[0]
    # A few rows are one thread's work: torch may spread the product inside, which is all there is to it.
    workers = 1 if source.work < _INLINE_WORK else max(1, min(torch.get_num_threads(), num_rows // 16))
    height = max(1, min(source.max_height(workers), _CANDIDATE_BYTES // (8 * room)))
    blocks = max(1, -(-num_rows // height))
    blocks = -(-blocks // workers) * workers
    return workers, max(1, -(-num_rows // blocks))


def _arrays(exclude: Rows | None, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    if exclude is None:
        return np.zeros(num_rows + 1, np.int64), np.zeros(0, np.int32)
    return exclude.indptr.long().contiguous().numpy(), exclude.items.int().contiguous().numpy()
