"""The contract that every model keeps: what a batch holds, what a state answers, what a recommender does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import OptionError


@dataclass(frozen=True)
class Batch:
    """The training rows of one step.

    Attributes:
        users: the unique users, ascending, shape ``(b,)``, int64; everything that is one row a user
            (ranking losses, feature losses) is aligned with it.
        row: for each training row its place in ``users``, shape ``(n,)``, int64.
        positives: the observed item of each row, shape ``(n,)``, int64.
        negatives: unobserved items of each row, shape ``(n, m)``, int64, or None.
        num_items: size of the catalogue.
    """

    users: Tensor
    row: Tensor
    positives: Tensor
    negatives: Tensor | None
    num_items: int

    def __len__(self) -> int:
        return self.positives.numel()

    @property
    def held_out(self) -> Batch | None:
        """Rows for the parameter groups that have batches of their own; None where there are none."""
        return None

    @property
    def rows(self) -> Tensor:
        """The unit that a state answers for: the unique users (sequence models have sequences here)."""
        return self.users

    @cached_property
    def row_users(self) -> Tensor:
        """The user of each training row, shape ``(n,)``, int64."""
        return self.users[self.row]

    @cached_property
    def unique_positives(self) -> Tensor:
        """The unique positive items, ascending, int64."""
        return ops.unique_inverse(self.positives, self.num_items)[0]

    @cached_property
    def unique_negatives(self) -> Tensor:
        """The unique negative items, ascending, int64; empty without negatives."""
        if self.negatives is None:
            return self.positives[:0]
        return ops.unique_inverse(self.negatives.reshape(-1), self.num_items)[0]

    @cached_property
    def items(self) -> Tensor:
        """All unique items of the step, ascending, int64."""
        return ops.unique_inverse(torch.cat([self.unique_positives, self.unique_negatives]), self.num_items)[
            0
        ]

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        if self.users.device == device:
            return self
        negatives = None if self.negatives is None else self.negatives.to(device, non_blocking=True)
        return Batch(
            users=self.users.to(device, non_blocking=True),
            row=self.row.to(device, non_blocking=True),
            positives=self.positives.to(device, non_blocking=True),
            negatives=negatives,
            num_items=self.num_items,
        )


class ParameterGroup(NamedTuple):
    """Parameters with an optimiser of their own, Adam, and possibly with batches of their own.

    Attributes:
        prefix: what the names of these of a model's parameters begin with.
        learning_rate: step size, above 0.
        weight_decay: L2 coefficient in the gradient, at least 0.
        own_batches: they learn from ``Batch.held_out`` alone, in a step before that of the others.
    """

    prefix: str
    learning_rate: float
    weight_decay: float
    own_batches: bool = False


class ScoreVectors(NamedTuple):
    """Tables whose product is the score: ``score(u, i) = users[u] · items[i] + item_bias[i] + user_bias[u]``.

    Fast top-k, export and serving read these. ``user_bias`` does not change a user's ranking; it is there so
    that scores of one item for different users compare.
    """

    users: Tensor
    items: Tensor
    item_bias: Tensor | None = None
    user_bias: Tensor | None = None


class State(Protocol):
    """What a model (or a teacher's store) answers, computed once a step however many losses read it."""

    @property
    def kinds(self) -> frozenset[str]:
        """What this state can supply: ``scores`` always, ``embeddings`` for embedding models."""
        ...

    @property
    def num_users(self) -> int: ...

    @property
    def num_items(self) -> int: ...

    @property
    def score_scale(self) -> float:
        """What list-wise losses multiply the scores by: 1, or more for models whose scores are bounded."""
        ...

    def user_embeddings(self, users: Tensor) -> Tensor:
        """Vectors of ``users`` (b,), shape ``(b, dim)``."""
        ...

    def item_embeddings(self, items: Tensor) -> Tensor:
        """Vectors of ``items`` (n,), shape ``(n, dim)``."""
        ...

    def score_vectors(self) -> ScoreVectors | None:
        """Tables whose product is the score, or None where there are none."""
        ...

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        """Scores of ``items`` (b, n) for ``users`` (b,), shape ``(b, n)``; of the whole catalogue without items.

        An id of −1 (padding) scores 0 and gives no gradient.
        """
        ...


def rows_of(table: Tensor, ids: Tensor) -> Tensor:
    """``table[ids]`` whose gradient stays row-sparse where ``table`` is a parameter."""
    return F.embedding(ids, table, sparse=table.is_leaf and table.requires_grad)


def square_norms(table: Tensor, ids: Tensor) -> Tensor:
    """‖table[ids]‖², the shape of ``ids``, each row read once; padding (−1) gives what row 0 does.

    The gradient stays row-sparse where ``table`` is a parameter.
    """
    unique, place = ops.unique_inverse(ids.clamp(min=0), table.shape[0])
    norms = rows_of(table, unique).square().sum(dim=1)
    return norms.index_select(0, place.reshape(-1)).view_as(ids)


def user_scores(state: State, items: Tensor, users: Tensor) -> Tensor:
    """Scores of the users listed for each item: ``State.scores`` with the roles swapped.

    A state that computes vectors answers by a method of this name, from those of the listed users and items alone; one
    without score vectors answers pair by pair.

    Args:
        state: what scores; gradients flow.
        items: shape ``(b,)``, int64.
        users: shape ``(b, n)``, int64; padding (−1) scores 0 and gives no gradient.

    Returns:
        Shape ``(b, n)``.
    """
    own = getattr(state, "user_scores", None)
    if own is not None:
        return own(items, users)
    vectors = state.score_vectors()
    if vectors is None:
        owners = items[:, None].expand_as(users).masked_fill(users < 0, -1)
        pairs = state.scores(users.clamp(min=0).reshape(-1), owners.reshape(-1, 1))
        return pairs.reshape(users.shape)
    scores = ops.scores_at(vectors.items, vectors.users, items, users)
    present = users >= 0
    if vectors.user_bias is not None:
        scores = scores + vectors.user_bias[users.clamp(min=0)] * present
    if vectors.item_bias is not None:
        scores = scores + vectors.item_bias[items][:, None] * present
    return scores


def score_vectors_of(state: State, users: Tensor) -> ScoreVectors | None:
    """:meth:`State.score_vectors` with the rows of ``users`` (b,) alone, in their order.

    A state that computes its users' vectors answers by a method of this name, with those that its other reads of
    the step have.
    """
    own = getattr(state, "score_vectors_of", None)
    if own is not None:
        return own(users)
    vectors = state.score_vectors()
    if vectors is None:
        return None
    constants = None if vectors.user_bias is None else vectors.user_bias[users]
    return ScoreVectors(rows_of(vectors.users, users), vectors.items, vectors.item_bias, constants)


class EmbeddingState:
    """The state of a dot-product model: two tables.

    Args:
        users: shape ``(U, dim)``.
        items: shape ``(I, dim)``.
    """

    kinds: frozenset[str] = frozenset({"scores", "embeddings"})
    score_scale: float = 1.0

    def __init__(self, users: Tensor, items: Tensor) -> None:
        self.users = users
        self.items = items
        self.num_users = users.shape[0]
        self.num_items = items.shape[0]

    def user_embeddings(self, users: Tensor) -> Tensor:
        return rows_of(self.users, users)

    def item_embeddings(self, items: Tensor) -> Tensor:
        return rows_of(self.items, items)

    def score_vectors(self) -> ScoreVectors:
        return ScoreVectors(self.users, self.items)

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        if items is None:
            return self.users[users] @ self.items.T
        return ops.scores_at(self.users, self.items, users, items)


class Recommender(nn.Module):
    """A model that scores items for users.

    A subclass takes keyword-only options in its constructor, makes its parameters in :meth:`build`, answers
    :meth:`state` and computes its own paper's :meth:`loss`. ``recdistill.load`` returns one with its
    vocabularies and train pairs attached, ready for :meth:`recommend`.
    """

    closed_form: ClassVar[bool] = False
    """True for models that :meth:`fit` at once; the loop calls that as its single epoch."""
    sequential: ClassVar[bool] = False
    """True for models that read a user's items in order (:class:`~recdistill.models.sequential.SequenceModel`)."""
    storable: ClassVar[frozenset[str]] = frozenset({"scores", "embeddings"})
    """What a store of the model answers beside lists: ``embeddings`` of a model that has them, ``scores`` of any pair
    if they are also products of vectors."""
    dot_product: ClassVar[bool] = True
    """Whether the order of a user's items is that of the products of their vectors, but for a bias."""
    tables: ClassVar[tuple[str, ...]] = ()
    """Names in the model's state of what holds numbers of single users, items or positions; a model may lack some."""

    options: dict[str, Any]
    num_users: int = 0
    num_items: int = 0
    users: Vocabulary | None = None
    items: Vocabulary | None = None
    train_pairs: Interactions | None = None
    path: Path | None = None
    _frozen: State | None = None

    @classmethod
    def model_name(cls) -> str:
        """The name on the command line: that of the file the class lives in."""
        return cls.__module__.rpartition(".")[2]

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        """Make the parameters for ``interactions``' users and items, drawn from ``generator``."""
        raise NotImplementedError

    def fit(self, interactions: Interactions, generator: torch.Generator) -> None:
        """Fit at once (closed-form models only)."""
        raise NotImplementedError

    def announcement(self, interactions: Interactions) -> str:
        """What a run is told before :meth:`fit`, such as the memory it will take; empty for nothing to say."""
        del interactions
        return ""

    def fold_in(self, histories: ops.Rows) -> State | None:
        """A state whose users are those of ``histories`` (item rows, one a user, of users never trained on).

        Rows ascend, without repeats; for ``sequential`` models they are in order, the newest last.
        None for a model that has no way of its own; their vectors are then fitted to its item vectors.
        """
        del histories
        return None

    def state(self, batch: Batch | None = None) -> State:
        """What the model answers for the batch's rows; for all users without a batch."""
        raise NotImplementedError

    def state_of(self, histories: Interactions) -> State:
        """The state of all users with these events as their histories.

        Only ``sequential`` models read histories that way; others know users by what they were trained on.
        """
        del histories
        return self.state(None)

    def loss(self, state: State, batch: Batch) -> Tensor:
        """The model's own loss, a mean over the batch's rows, scalar."""
        raise NotImplementedError

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        """One epoch of batches; pairs with one negative unless the model says otherwise."""
        from recdistill.models.sampling import pair_batches

        return pair_batches(interactions, batch_size, self.num_negatives(), generator)

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Parameters that the run's optimiser leaves to ones of their own; none by default."""
        return ()

    def num_negatives(self) -> int:
        """Negatives drawn for each training row."""
        return int(self.options.get("num_negatives", 1))

    def frozen(self) -> State:
        """The state of all users in eval mode, without gradient, computed once until the model trains again."""
        if self._frozen is None:
            with torch.no_grad():
                self._frozen = self.eval().state()
        return self._frozen

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._frozen = None
        return super().train(mode)

    def extra_repr(self) -> str:
        """What ``repr`` shows beside the parts: the options, and the sizes of a built model."""
        shown = [f"{name}={value!r}" for name, value in getattr(self, "options", {}).items()]
        if self.num_users:
            shown += [f"num_users={self.num_users}", f"num_items={self.num_items}"]
        return ", ".join(shown)

    def attach(self, users: Vocabulary, items: Vocabulary, train_pairs: Interactions) -> None:
        """Attach what :meth:`recommend` needs beside the weights."""
        self.users, self.items, self.train_pairs = users, items, train_pairs

    def vocabularies(self) -> tuple[Vocabulary, Vocabulary]:
        """The user and item vocabularies.

        Raises:
            OptionError: the model was built in memory and has none.
        """
        if self.users is None or self.items is None:
            raise OptionError(
                "the model has no vocabulary, so external ids mean nothing to it",
                "load it from its directory with recdistill.load, or call attach(...)",
            )
        return self.users, self.items

    def recommend(self, users: Any = None, k: int = 10, **options: Any) -> Any:
        """The top ``k`` items of ``users`` as a polars table; see :func:`recdistill.models.recommend.recommend`."""
        from recdistill.models.recommend import recommend

        return recommend(self, users, k, **options)

    def num_parameters(self) -> int:
        """Numbers that the model stores (parameters and persistent buffers)."""
        return sum(value.numel() for value in self.state_dict().values())

    def num_layer_parameters(self) -> int:
        """Of these numbers, those outside :attr:`tables`: a model without its embeddings."""
        return sum(value.numel() for name, value in self.state_dict().items() if name not in self.tables)

    def parameter(self, name: str) -> Tensor:
        """A parameter by name, for code that is generic over models."""
        return cast(Tensor, self.get_parameter(name))


def no_embeddings(model: str, kinds: frozenset[str]) -> OptionError:
    """The error of a model that is asked for vectors it does not have."""
    return OptionError(f"{model} has no embeddings; it supplies {', '.join(sorted(kinds))}")
