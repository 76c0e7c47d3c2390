"""The sampled protocol's candidates: a few items a user that the user has not taken, and ranks among them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.errors import OptionError
from recdistill.evaluation.rankers import Ranker

_TARGET_BLOCK = 1024  # targets compared with their candidates at once
_DRAW_BLOCK = 1024  # users that one generator draws for; another number gives other draws


class Negatives:
    """Unobserved items, drawn once a user by a seed: the same for every model and split.

    Args:
        observed: pairs that are not drawn: all splits in evaluation; train and valid in training, which never
            sees test rows.
        number: negatives a user, at least 1.
        users: (n,) int64, those who must have as many.
        seed: of the draws; the data's.

    Raises:
        OptionError: some of the users have fewer unobserved items.
    """

    def __init__(self, observed: Interactions, number: int, users: Tensor, seed: int) -> None:
        self._observed = observed
        self._number = number
        self._seed = seed
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


def evaluation_negatives(data: Data, number: int, users: Tensor) -> Negatives:
    """The candidates of the sampled protocol: items in none of a user's splits, by the data's seed."""
    observed = data.train.union(data.valid, data.test)
    return Negatives(observed, number, users, data.manifest.seed or 0)


def candidate_ranks(ranker: Ranker, users: Tensor, row: Tensor, items: Tensor, negatives: Tensor) -> Tensor:
    """Rank from 1 of targets among their user's negatives; equal scores by smaller item index.

    Args:
        ranker: what scores.
        users: (b,) int64.
        row: (t,) place in ``users`` of each target's user.
        items: (t,) targets.
        negatives: (b, m) candidates of each user.

    Returns:
        (t,) int64.
    """
    scores = ranker.scores(users, negatives)  # (b, m)
    own = ranker.scores(users[row], items[:, None])  # (t, 1)
    ranks = torch.empty(len(items), dtype=torch.int64)
    for start in range(0, len(items), _TARGET_BLOCK):
        part = slice(start, start + _TARGET_BLOCK)
        other, mine = scores[row[part]], own[part]
        before = (other > mine) | ((other == mine) & (negatives[row[part]] < items[part, None]))
        ranks[part] = before.sum(1) + 1
    return ranks
