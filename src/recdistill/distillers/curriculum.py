"""Rankings that grow harder as the student learns: how far it is from a teacher's list, and when it moves on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import term_names
from recdistill.knowledge.base import Aggregation, Member
from recdistill.knowledge.ensemble import (
    TEMPERATURE,
    aggregate,
    importance,
    popularity_shares,
    rank_spread,
)

Gain = Literal["teacher", "student"]
Order = Literal["dynamic", "final", "random"]


@dataclass(frozen=True)
class Gate:
    """When a pointer moves; the options are those of ``HetComp``."""

    refresh: int
    threshold: float
    decay: float
    floor: float
    patience: int
    worse_passes: bool
    gain: Gain

    def limit(self, epoch: int) -> float:
        """max(floor, α · decay^⌊epoch / refresh⌋)."""
        return max(self.floor, self.threshold * self.decay ** (epoch // self.refresh))

    def opens(self, last: Tensor, now: Tensor, waited: Tensor, epoch: int) -> Tensor:
        """Whether the student has come near enough, last / now > α, or has waited long enough.

        A discrepancy of 0 now passes, whatever it was. One that has not been taken before (NaN) does not.

        Args:
            last: discrepancies when the next list was first aimed at, shape ``(U,)``.
            now: those of the student as it is.
            waited: refreshes since then.
            epoch: from 0.
        """
        passes = (last > self.limit(epoch) * now) | (now == 0)
        if self.worse_passes:
            passes |= last < now
        if self.patience:
            passes |= waited + 1 >= self.patience
        return passes & ~last.isnan()


class Curriculum(nn.Module):
    """Which state of which teacher teaches whom. All that changes is in buffers.

    Attributes:
        pointers: v, the place of the state that teaches a user, ``(U, X)``.
        last: the user's discrepancy from the state after that when the pointer came there, ``(U, X)``, NaN before.
        waited: refreshes since then, ``(U, X)``.
        means: mean discrepancies from the states after those pointed at, of X teachers, and last that from the target
            rankings; NaN before the first refresh, ``(X + 1,)``.

    Args:
        members: the teachers.
        interactions: the train pairs.
        gate: when a pointer moves.
        order: ``dynamic``; ``final``: all pointers at the final states; ``random``: every user has the states before
            the final one in an order of its own.
        generator: of that order.
        aggregation: how the teachers' lists are put together.
    """

    def __init__(
        self,
        members: Sequence[Member],
        interactions: Interactions,
        gate: Gate,
        order: Order,
        generator: torch.Generator,
        aggregation: Aggregation = Aggregation(),
    ) -> None:
        super().__init__()
        self.members, self.gate, self.order = tuple(members), gate, order
        self.num_items, self.aggregation = interactions.num_items, aggregation
        self.popularity = popularity_shares(interactions.item_counts) if aggregation.debias else None
        self.last_places = [len(member.states) - 1 for member in members]
        size = (interactions.num_users, len(members))
        final = torch.tensor(self.last_places).expand(size)
        # nothing to move on from: a teacher that never lists anything, a user who is never trained on
        empty = [torch.stack([ids[:, 0] < 0 for ids in m.states]).all(dim=0) for m in members]
        still = torch.stack(empty, dim=1) | (interactions.user_counts == 0)[:, None] | (order == "final")
        self.register_buffer("pointers", torch.where(still, final, 0))
        self.register_buffer("last", torch.full(size, torch.nan))
        self.register_buffer("waited", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("means", torch.full((len(members) + 1,), torch.nan))
        if order == "random":
            for x, place in enumerate(self.last_places):
                self.register_buffer(f"order_{x}", shuffled_states(size[0], place + 1, generator))

    def lists_at(self, x: int, places: Tensor, users: Tensor, depth: int) -> Tensor:
        """Teacher x's lists of ``users`` (n,), each at its own place (n,); ids ``(n, depth)`` int32."""
        if self.order == "random":
            places = self.get_buffer(f"order_{x}").cpu()[users].gather(1, places[:, None])[:, 0]
        return rows_at([ids[:, :depth] for ids in self.members[x].states], places, users)

    def targets(self, depth: int) -> Tensor:
        """The ranking that teaches each user now: the teachers' summed importances, ids ``(U, depth)`` int32.

        At the final states it is the ensemble's own, where that has the same depth.
        """
        pointers, how = self.get_buffer("pointers").cpu(), self.aggregation
        everyone = torch.arange(len(pointers))
        lists = [self.lists_at(x, pointers[:, x], everyone, depth) for x in range(len(self.members))]
        spreads = None
        if how.consistency:
            states = [[ids[:, :depth] for ids in member.states] for member in self.members]
            spreads = [rank_spread(each, ids) for each, ids in zip(states, lists, strict=True)]
        return aggregate(
            lists,
            self.num_items,
            depth,
            temperature=how.temperature,
            weights=how.weights,
            spreads=spreads,
            consistency=how.consistency,
            popularity=self.popularity,
            debias=how.debias,
        ).ids

    def is_over(self) -> bool:
        """Whether the mean pointers, rounded to two decimals, are those of the final states."""
        means = self.get_buffer("pointers").double().mean(dim=0).mul(100).round()
        return bool(means.sum() >= 100 * sum(self.last_places))

    def where(self) -> str:
        """How far the pointers are, in words."""
        means = self.get_buffer("pointers").double().mean(dim=0)
        pairs = zip(
            term_names([member.name for member in self.members]), means, self.last_places, strict=True
        )
        shown = ", ".join(f"{name} {float(mean):.1f} of {last}" for name, mean, last in pairs if last)
        return f"not all users have reached the teachers' final states (mean pointers: {shown})"

    def move(self, epoch: int, student: Tensor) -> bool:
        """Compare the student's lists with each teacher's next ones; whether any pointer has moved.

        Args:
            epoch: from 0.
            student: its best items now, ids ``(U, K)``.
        """
        buffers = [self.get_buffer(name) for name in ("pointers", "last", "waited", "means")]
        pointers, last, waited, means = (buffer.cpu() for buffer in buffers)
        everyone, any_moved = torch.arange(len(student)), False
        for x, final in enumerate(self.last_places):
            now = self._distance(student, x, pointers, everyone)
            means[x] = now.mean()
            moves = self.gate.opens(last[:, x].double(), now, waited[:, x], epoch) & (pointers[:, x] < final)
            first = last[:, x].isnan()
            if bool(moves.any()):
                any_moved = True
                pointers[:, x] += moves
                now[moves] = self._distance(student, x, pointers, everyone[moves])
            last[:, x] = torch.where(moves | first, now.float(), last[:, x])
            waited[:, x] = torch.where(moves | first, 0, waited[:, x] + 1)
        for buffer, value in zip(buffers, (pointers, last, waited, means), strict=True):
            buffer.copy_(value)
        return any_moved

    def _distance(self, student: Tensor, x: int, pointers: Tensor, users: Tensor) -> Tensor:
        """Of some users from teacher x's lists at the states after those pointed at, (n,)."""
        after = (pointers[users, x] + 1).clamp(max=self.last_places[x])
        lists = self.lists_at(x, after, users, student.shape[1])
        return discrepancy(student[users], lists, self.gate.gain)

    def look_at_targets(self, student: Tensor, targets: Tensor) -> None:
        """Remember how far the student is from the rankings that teach it."""
        self.get_buffer("means")[-1] = discrepancy(student, targets.cpu(), self.gate.gain).mean()

    def facts(self) -> dict[str, float]:
        """Mean pointers and discrepancies by teacher, and the discrepancy from the target rankings."""
        names = term_names([member.name for member in self.members])
        pointers = self.get_buffer("pointers").double().mean(dim=0).tolist()
        found = {f"pointer {name}": place for name, place in zip(names, pointers, strict=True)}
        for name, mean in zip([*names, "target"], self.get_buffer("means").tolist(), strict=True):
            if mean == mean:  # NaN before the first refresh
                found[f"discrepancy {name}"] = mean
        return found


def discrepancy(student: Tensor, teacher: Tensor, gain: Gain = "teacher") -> Tensor:
    """D@K = 1 − NDCG@K of the student's lists, with a teacher's lists as the truth.

        NDCG = Σ_k [student's item at k is listed] · y(r) / log2(k + 1)  ÷  Σ_k y(k − 1) / log2(k + 1)
        y(r) = 2^{e^{−r/10}} − 1,   k = 1..K

    Args:
        student: ids ``(n, K)``, best first, padded with −1.
        teacher: ids ``(n, K')``, the same; its ideal is that of as many items as it has, and is no more than K.
        gain: what r is: ``teacher``: the item's rank, from 0, in the teacher's list; ``student``: k − 1, which does
            not see the order.

    Returns:
        ``(n,)`` float64 in [0, 1]; 0 where the teacher lists nothing.
    """
    teacher = teacher[:, : student.shape[1]]
    if teacher.shape[1] == 0:
        return torch.zeros(len(student), dtype=torch.float64)
    gains = torch.exp2(importance(max(student.shape[1], 1), TEMPERATURE)) - 1
    discount = torch.arange(2, student.shape[1] + 2).double().log2().reciprocal()
    ideals = torch.cat([torch.zeros(1).double(), (gains[: len(discount)] * discount).cumsum(0)])
    rank = ops.places(student, teacher)  # (n, K)
    value = gains[rank.clamp(min=0)] if gain == "teacher" else gains.expand(rank.shape)
    ndcg = torch.where(rank >= 0, value, 0.0) @ discount
    ideal = ideals[(teacher >= 0).sum(dim=1)]
    found = 1 - ndcg / ideal.clamp(min=1e-12)
    return found.masked_fill_((found < 1e-9) | (ideal == 0), 0.0)  # the same lists, or none


def shuffled_states(num_users: int, num_states: int, generator: torch.Generator) -> Tensor:
    """An order of a teacher's states for each user, ``(U, V)`` int8: all but the last shuffled, the last one last."""
    early = torch.rand(num_users, num_states - 1, generator=generator).argsort(dim=1)
    return torch.cat([early, torch.full((num_users, 1), num_states - 1)], dim=1).to(torch.int8)


def rows_at(states: Sequence[Tensor], places: Tensor, users: Tensor) -> Tensor:
    """Lists of ``users`` (n,), each at a state of its own: ids ``(n, K)`` int32 of ``states[places[i]][users[i]]``."""
    found = torch.empty(len(users), states[0].shape[1], dtype=torch.int32)
    for place, ids in enumerate(states):
        rows = (places == place).nonzero()[:, 0]
        found[rows] = ids[users[rows]].int()
    return found


def first_observed(importances: Tensor, interactions: Interactions, n: int) -> Tensor:
    """Each user's ``n`` observed items of the greatest importance, best first, ``(U, n)`` int32, padded with −1.

    Args:
        importances: of each train pair, in the order of the train CSR; equal ones rank by the smaller item.
    """
    users = interactions.users.long()
    order = importances.sort(descending=True, stable=True).indices
    order = order[users[order].sort(stable=True).indices]
    column = torch.arange(len(order)) - interactions.indptr[users[order]]
    kept = column < n
    found = torch.full((interactions.num_users, n), -1, dtype=torch.int32)
    found[users[order][kept], column[kept]] = interactions.items[order][kept].int()
    return found
