"""What a teacher leaves behind: the reads that methods make, whether from disk or from a live frozen model."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.sequence import SequenceReads, Shape
from recdistill.models.base import Batch, ScoreVectors, State
from recdistill.models.sequence_batches import Places

KINDS = ("top_items", "top_users", "observed_scores", "embeddings", "scores", "trajectory", "hidden_states")
"""The kinds of knowledge that a store can hold."""


class Lists(NamedTuple):
    """Ranked lists, best first.

    Attributes:
        ids: shape ``(n, depth)``, padded with −1.
        scores: shape ``(n, depth)``, float32, padded with −inf.
    """

    ids: Tensor
    scores: Tensor

    @property
    def lengths(self) -> Tensor:
        """Entries of each row that are no padding, shape ``(n,)``, int64."""
        return (self.ids >= 0).sum(dim=1)


MEMBER_DEPTH = 100
"""Columns of a member's lists, unless others are asked for."""


class Member(NamedTuple):
    """One teacher behind a store, with the states that it went through.

    Attributes:
        name: what it is called.
        states: the top lists of each state, early to final: ids ``(U, depth)``, int32, best first, padded with
            −1, train items removed. The last are the store's own lists; without a trajectory they are the only ones.
        epochs: the epoch of each state, ascending; 0 where a single state has no known epoch.
        observed_scores: its score of every train pair, in the order of the train CSR, shape ``(P,)``; None where
            the store has none.
    """

    name: str
    states: tuple[Tensor, ...]
    epochs: tuple[int, ...]
    observed_scores: Tensor | None


class Aggregation(NamedTuple):
    """How a store's teachers are put together; the defaults are those of a single teacher.

    Attributes:
        temperature: T of the importance e^{−r/T}.
        weights: of each teacher, in the order of the members; None for 1 each.
        consistency: weight of the term for items that a teacher ranked alike at all its states.
        debias: β, how much popular items lose on which the teachers disagree.
    """

    temperature: float = 10.0
    weights: tuple[float, ...] | None = None
    consistency: float = 0.0
    debias: float = 0.0


class TeacherState(State, Protocol):
    """What a teacher answers within a step: a state, plus its stored lists."""

    def top_items(self, users: Tensor, depth: int) -> Lists:
        """The teacher's best unobserved items of ``users`` (b,), depth columns or the whole catalogue."""
        ...

    def top_users(self, items: Tensor, depth: int) -> Lists:
        """The best users of ``items`` (n,) among those who have not interacted, depth columns or all users."""
        ...

    def sequence_reads(self, places: Places) -> SequenceReads:
        """Of a live sequence teacher: what it makes of each item of the step's windows, found at ``places``."""
        ...


class Knowledge(TeacherState, Protocol):
    """A teacher's knowledge."""

    def state(self, batch: Batch) -> TeacherState:
        """What the teacher answers for one batch; called once a step."""
        ...

    def observed_scores(self) -> Tensor:
        """The teacher's score of every train pair, in the order of the train CSR, shape ``(P,)``."""
        ...

    def teacher_dim(self) -> int:
        """Length of the teacher's vectors."""
        ...

    def sequence_shape(self) -> Shape:
        """Sizes of what a live sequence teacher answers item by item."""
        ...

    def members(self, depth: int = MEMBER_DEPTH) -> tuple[Member, ...]:
        """The teachers behind the store: one of a model's store, one a teacher of an ensemble's.

        All states of all members have the same number of columns, at most ``depth``.
        """
        ...

    def aggregation(self) -> Aggregation:
        """The options that the members were put together with, for methods that put them together anew."""
        ...

    def require(self, kinds: frozenset[str], method: str) -> None:
        """Raise MissingKnowledgeError, with the command that makes it, unless all ``kinds`` are there."""
        ...

    def restrict(self, kinds: frozenset[str]) -> Knowledge:
        """The same knowledge, answering only reads of ``kinds``."""
        ...


class Restricted:
    """Knowledge that answers only the kinds that a method declared, so that ``needs`` cannot lie.

    Args:
        reads: what to read: knowledge, or its state of one batch.
        kinds: the declared kinds.
    """

    def __init__(self, reads: Any, kinds: frozenset[str]) -> None:
        self._reads = reads
        self._allowed = kinds
        self.kinds: frozenset[str] = reads.kinds & kinds
        self.num_users: int = reads.num_users
        self.num_items: int = reads.num_items
        self.score_scale: float = reads.score_scale

    def _of(self, kind: str) -> Any:
        if kind not in self._allowed:
            raise MissingKnowledgeError(
                f"'{kind}' is read but not declared; declared: {', '.join(sorted(self._allowed)) or 'nothing'}",
                "add it to the method's `needs`",
            )
        return self._reads

    def state(self, batch: Batch) -> TeacherState:
        return Restricted(self._reads.state(batch), self._allowed)

    def user_embeddings(self, users: Tensor) -> Tensor:
        return self._of("embeddings").user_embeddings(users)

    def item_embeddings(self, items: Tensor) -> Tensor:
        return self._of("embeddings").item_embeddings(items)

    def teacher_dim(self) -> int:
        return self._of("embeddings").teacher_dim()

    def score_vectors(self) -> ScoreVectors | None:
        return self._of("scores").score_vectors()

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        return self._of("scores").scores(users, items)

    def top_items(self, users: Tensor, depth: int) -> Lists:
        return self._of("top_items").top_items(users, depth)

    def top_users(self, items: Tensor, depth: int) -> Lists:
        return self._of("top_users").top_users(items, depth)

    def sequence_reads(self, places: Places) -> SequenceReads:
        return self._of("hidden_states").sequence_reads(places)

    def sequence_shape(self) -> Shape:
        return self._of("hidden_states").sequence_shape()

    def observed_scores(self) -> Tensor:
        return self._of("observed_scores").observed_scores()

    def members(self, depth: int = MEMBER_DEPTH) -> tuple[Member, ...]:
        found: tuple[Member, ...] = self._of("trajectory").members(depth)
        if "observed_scores" in self._allowed:
            return found
        return tuple(member._replace(observed_scores=None) for member in found)

    def aggregation(self) -> Aggregation:
        return self._of("trajectory").aggregation()

    def require(self, kinds: frozenset[str], method: str) -> None:
        self._reads.require(kinds, method)

    def restrict(self, kinds: frozenset[str]) -> Knowledge:
        return Restricted(self._reads, kinds & self._allowed)


def cut(lists: Lists, depth: int) -> Lists:
    """The first ``depth`` columns, padded if there are fewer."""
    have = lists.ids.shape[1]
    if have >= depth:
        return Lists(lists.ids[:, :depth], lists.scores[:, :depth])
    pad = (0, depth - have)
    return Lists(
        torch.nn.functional.pad(lists.ids, pad, value=-1),
        torch.nn.functional.pad(lists.scores, pad, value=-torch.inf),
    )
