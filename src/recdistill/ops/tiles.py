"""How many rows of scores over the whole catalogue are held at once."""

from __future__ import annotations

import torch

_LEAST_ROWS, _TILE_ROWS = 16, 256
_GPU_SCORES = 1 << 26


def tile_rows(num_items: int, device: torch.device, scores: int) -> int:
    """Rows of a tile, at least 16.

    Args:
        num_items: scores of a row.
        device: where they are.
        scores: of a tile on a CPU, where it should stay in the cache; a GPU holds 2²⁶.
    """
    if device.type != "cpu":
        return max(_LEAST_ROWS, _GPU_SCORES // max(num_items, 1))
    return max(_LEAST_ROWS, min(_TILE_ROWS, scores // max(num_items, 1)))
