"""The processes of one run: each trains on its own users' rows, gradients are averaged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn

from recdistill.data.interactions import Interactions


@dataclass(frozen=True)
class Group:
    """This process' place in a run; the default is a run of one process.

    Attributes:
        rank: this process' number, from 0.
        size: number of processes. Above 1, ``torch.distributed`` must be initialised with as many.
    """

    rank: int = 0
    size: int = 1

    def own_rows(self, interactions: Interactions) -> Interactions:
        """The events of the users whose index is ``rank`` modulo ``size``; user indices stay as they are."""
        if self.size == 1:
            return interactions
        users = interactions.event_users
        own = users % self.size == self.rank
        times, positions = interactions.event_times, interactions.event_positions
        return Interactions.from_events(
            users[own],
            interactions.event_items[own],
            interactions.num_users,
            interactions.num_items,
            times=None if times is None else times[own],
            positions=None if positions is None else positions[own],
        )

    def any_has(self, left: bool) -> bool:
        """Whether any process has a batch left; those without one still take part in averaging."""
        if self.size == 1:
            return left
        flag = torch.tensor(int(left))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over processes, in place; row-sparse ones become dense first."""
        if self.size == 1:
            return
        for parameter in parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            distributed.all_reduce(gradient)
            parameter.grad = gradient.div_(self.size)
