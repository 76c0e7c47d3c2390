"""What is evaluated, behind two reads: the top items of some users, and the scores of given items.

A ranker is a model's state, or a teacher's stored lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from recdistill.data.interactions import Interactions
from recdistill.errors import OptionError
from recdistill.models.base import Recommender, State
from recdistill.models.ranking import top_items

BLOCK = 4096
"""Users ranked between two updates of the progress bar; it changes no result."""


class Ranker(Protocol):
    """What can be evaluated."""

    def top(self, users: Tensor, k: int, masked: Interactions | None) -> Tensor:
        """The best k unmasked items of ``users`` (b,): (b, k) int64, padded with -1, on the CPU."""
        ...

    def scores(self, users: Tensor, ids: Tensor) -> Tensor:
        """The scores of items ``ids`` (b, n) for ``users`` (b,): (b, n) float32, on the CPU."""
        ...


class StateRanker:
    """Ranks by a state's scores.

    Args:
        state: what scores.
        device: where the state lives.
    """

    def __init__(self, state: State, device: torch.device | None = None) -> None:
        self._state = state
        self._device = device or torch.device("cpu")

    def top(self, users: Tensor, k: int, masked: Interactions | None) -> Tensor:
        return top_items(self._state, users, k, exclude=() if masked is None else (masked,))[0]

    @torch.no_grad()
    def scores(self, users: Tensor, ids: Tensor) -> Tensor:
        return self._state.scores(users.to(self._device), ids.to(self._device)).float().cpu()


@torch.no_grad()
def model_ranker(model: Recommender, histories: Interactions | None = None) -> StateRanker:
    """A ranker of ``model``, which is put into eval mode; its state is computed once.

    Args:
        model: built.
        histories: what a sequence model reads of the users; by default what it was trained on, as others always do.
    """
    device = next((value.device for value in model.state_dict().values()), None)
    model.eval()
    return StateRanker(model.state(None) if histories is None else model.state_of(histories), device)


class ListRanker:
    """Ranks by stored lists.

    Args:
        name: what the lists are called in errors.
        ids: (U, L) item ids, best first, padded with -1; the ``removed`` pairs are on no list.
        removed: the train pairs of whoever made the lists.
        maker: the command that makes deeper ones.
    """

    def __init__(self, name: str, ids: Tensor, removed: Interactions, maker: str = "extract") -> None:
        self._name = name
        self._maker = maker
        self._ids = ids
        self._removed = removed

    def top(self, users: Tensor, k: int, masked: Interactions | None) -> Tensor:
        stored, keep = self._kept(users, masked)
        order = torch.sort(~keep, dim=1, stable=True).indices[:, :k]  # kept items first, in their order
        ids = stored.gather(1, order).masked_fill_(~keep.gather(1, order), -1)
        return F.pad(ids, (0, k - ids.shape[1]), value=-1)

    def scores(self, users: Tensor, ids: Tensor) -> Tensor:
        """Lists score no candidates.

        Raises:
            OptionError: always.
        """
        del users, ids
        raise OptionError(
            f"{self._name} holds lists alone, which give sampled candidates no score",
            "evaluate it with --protocol full, or name the model it was extracted from",
        )

    def check(self, users: Tensor, k: int, masked: Interactions | None) -> None:
        """Check that the lists answer the top k of all ``users``.

        Args:
            users: (n,) int64.
            k: how many items are asked for.
            masked: pairs that are not ranked, those that are on no list among them; or None.

        Raises:
            OptionError: nothing is masked, so that items are missing; no user has a list; or the depth leaves
                some user fewer than k items although there are more.
        """
        if masked is None and self._removed.num_pairs:
            raise OptionError(
                f"the lists of {self._name} were made without the train items, so they do not rank all items",
                "use --mask seen, or evaluate the model that it was extracted from",
            )
        depth, short_users, enough = self._ids.shape[1], 0, 0
        if all(bool((self._ids[block] < 0).all()) for block in blocks(users)):
            raise OptionError(
                f"{self._name} has an empty list for each of the {len(users)} users",
                "lists are matched to the data by the ids beside them, or by place: look at what made the store",
            )
        for block in blocks(users):
            stored, keep = self._kept(block, masked)
            left = keep.sum(1)
            length = (stored >= 0).sum(1)
            whole = length >= self._removed.num_items - self._removed.user_counts[block]
            short = (left < k) & (length > 0) & ~whole  # no list at all: the store does not cover the user
            if bool(short.any()):
                # at worst all masked items that are not on the list come right after it
                unmet = -self._removed.user_counts[block] - (length - left)
                unmet += 0 if masked is None else masked.user_counts[block]
                short_users += int(short.sum())
                enough = max(enough, int((length + k - left + unmet)[short].max()))
        if short_users:
            of = " (of stores as deep)" if self._maker == "ensemble" else ""
            raise OptionError(
                f"the lists of {self._name} have depth {depth}: after masking, too short for the top {k} of "
                f"{short_users} users",
                f"{self._maker} with --depth {min(enough, self._removed.num_items)}{of}, or lower the largest k",
            )

    def _kept(self, users: Tensor, masked: Interactions | None) -> tuple[Tensor, Tensor]:
        stored = self._ids[users].long()  # (b, L)
        keep = stored >= 0
        if masked is not None:
            keep &= ~masked.contains(users, stored)
        return stored, keep


def blocks(users: Tensor) -> Iterator[Tensor]:
    """Cut ``users`` (n,) into blocks."""
    for start in range(0, len(users), BLOCK):
        yield users[start : start + BLOCK]
