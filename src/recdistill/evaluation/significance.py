"""Paired tests between models and intervals of their means, by resampling users.

More than 8,192 users are first added up in 8,192 buckets (by their index, which is a hash), and the buckets
are resampled: sums of exchangeable users are exchangeable, so that tests and intervals keep their meaning,
and their cost stops growing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

PERMUTATIONS = 10_000
RESAMPLES = 1_000
MAX_UNITS = 8_192
_BLOCK = 1 << 22  # random numbers held at once


def sign_flip_test(
    differences: Tensor, generator: torch.Generator, permutations: int = PERMUTATIONS
) -> Tensor:
    """Two-sided paired permutation test: were the models alike, each user's difference could have either
    sign.

    ``p = (1 + number of random sign patterns whose |sum| reaches the observed one) / (1 + permutations)``,
    which is a valid p-value for any number of permutations. The same patterns serve all columns.

    Args:
        differences: (n, m) float64, per user and comparison. A user who takes no part in a comparison has 0
            there.
        generator: source of the sign patterns.
        permutations: number of sign patterns, at least 1.

    Returns:
        (m,) float64 p-values in (0, 1].
    """
    differences = _buckets(differences[(differences != 0).any(1)])  # a zero has the same sum with either sign
    observed = differences.sum(0).abs()
    # sums that are equal on paper differ by rounding: they count as at least as large
    threshold = observed - 1e-9 * differences.abs().sum(0)
    total = differences.sum(0)
    extreme = torch.zeros(differences.shape[1], dtype=torch.int64)
    for size in _blocks(permutations, len(differences)):
        positive = _random_bits(size, len(differences), generator)  # (size, n)
        sums = 2.0 * (positive @ differences) - total
        extreme += (sums.abs() >= threshold).sum(0)
    return (1.0 + extreme.double()) / (1.0 + permutations)


def holm(p_values: Tensor) -> Tensor:
    """Holm's step-down correction of a family of p-values.

    Args:
        p_values: (m,) float64.

    Returns:
        (m,) float64 corrected p-values: at most 1, in the order given; rejecting those below α holds the
        chance of any false rejection in the family at α.
    """
    ordered, order = p_values.sort()
    factors = torch.arange(len(p_values), 0, -1, dtype=torch.float64)
    corrected = (ordered * factors).clamp(max=1.0)
    out = torch.empty_like(p_values)
    if len(p_values):
        out[order] = corrected.cummax(0).values
    return out


class Bootstrap:
    """Users drawn with replacement, again and again: the same draws for everything that is asked.

    Args:
        num_users: users that values are given for.
        generator: source of the draws.
        resamples: how many times they are drawn.
    """

    def __init__(self, num_users: int, generator: torch.Generator, resamples: int = RESAMPLES) -> None:
        units = min(num_users, MAX_UNITS)
        # how often each unit was drawn: about once, so a byte holds it
        self._times = torch.empty(resamples, units, dtype=torch.uint8)
        start = 0
        for size in _blocks(resamples, units):
            drawn = torch.randint(units, (size, units), generator=generator)
            drawn += units * torch.arange(size)[:, None]
            times = torch.bincount(drawn.view(-1), minlength=size * units).view(size, units)
            self._times[start : start + size] = times
            start += size

    def means(self, values: Tensor) -> Tensor:
        """The columns' means over the users drawn.

        Args:
            values: (n, m) float64; NaN where a user has no value, and takes no part in that mean.

        Returns:
            (resamples, m) float64, NaN where no user with a value was drawn.
        """
        both = _buckets(torch.cat([values.nan_to_num(), (~values.isnan()).double()], dim=1))
        out = torch.empty(len(self._times), values.shape[1], dtype=torch.float64)
        start = 0
        for size in _blocks(len(self._times), self._times.shape[1]):
            sums = self._times[start : start + size].double() @ both
            out[start : start + size] = sums[:, : values.shape[1]] / sums[:, values.shape[1] :]
            start += size
        return out


def interval(samples: Tensor, level: float = 0.95) -> tuple[float, float] | None:
    """The central interval (percentiles) of the samples (r,) that are finite; None where there are none."""
    finite = samples[samples.isfinite()]
    if not len(finite):
        return None
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=finite.dtype)
    low, high = torch.quantile(finite, tails).tolist()
    return low, high


def _buckets(values: Tensor) -> Tensor:
    """Add up the rows (n, m) in at most `MAX_UNITS` buckets."""
    if len(values) <= MAX_UNITS:
        return values
    sums = torch.zeros(MAX_UNITS, values.shape[1], dtype=values.dtype)
    return sums.index_add_(0, torch.arange(len(values)) % MAX_UNITS, values)


def _blocks(count: int, width: int) -> Iterator[int]:
    """Sizes of at most ``_BLOCK / width`` that add up to ``count``."""
    size = max(1, _BLOCK // max(width, 1))
    for start in range(0, count, size):
        yield min(size, count - start)


def _random_bits(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) float64 of zeros and ones, eight a random byte."""
    num_bytes = (rows * columns + 7) // 8
    packed = torch.randint(256, (num_bytes,), dtype=torch.uint8, generator=generator)
    bits = np.unpackbits(packed.numpy(), count=rows * columns)
    return torch.from_numpy(bits).view(rows, columns).double()
