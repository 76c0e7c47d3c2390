"""The sampled protocol's candidates: a few items a user that the user has in no split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from recdistill.data.prepared import Data
from recdistill.errors import OptionError

_DRAW_BLOCK = 1024  # users that one generator draws for; another number gives other draws


class Negatives:
    """Items that a user has in no split, drawn once a user by the data's seed: the same for every model and
    split.

    Args:
        data: prepared data.
        number: negatives a user, at least 1.
        users: (n,) int64, those who must have as many.

    Raises:
        OptionError: some of the users have fewer unobserved items.
    """

    def __init__(self, data: Data, number: int, users: Tensor) -> None:
        self._observed = data.train.union(data.valid, data.test)
        self._number = number
        self._seed = data.manifest.seed or 0
        unobserved = self._observed.num_items - self._observed.user_counts[users]
        if int(unobserved.min()) < number:
            fewest = int(unobserved.min())
            few = int((unobserved < number).sum())
            raise OptionError(
                f"negatives: {number} a user were asked for, but {few} users have fewer unobserved items "
                f"(the fewest: {fewest})",
                f"use --negatives {fewest} or fewer" if fewest else "use --protocol full",
            )

    def blocks(self, users: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of ``users`` (ascending) with their negatives (b, number) int64.

        A user's draw depends on the seed and the user alone: blocks of fixed users have generators of their
        own.
        """
        last = self._observed.num_users
        owners, counts = torch.unique_consecutive(users // _DRAW_BLOCK, return_counts=True)
        for block, chosen in zip(owners.tolist(), users.split(counts.tolist()), strict=True):
            start = block * _DRAW_BLOCK
            everyone = torch.arange(start, min(start + _DRAW_BLOCK, last))
            state = np.random.SeedSequence([self._seed, block]).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
            drawn = self._observed.sample_unobserved(everyone, self._number, generator, replace=False)
            yield chosen, drawn[chosen - start]
