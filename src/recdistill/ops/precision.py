"""What autocast makes of numbers, made good."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """``values`` in float32 where they have fewer bits; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
