"""What a frozen teacher answers, from its own tables or the live model, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from recdistill import ops
from recdistill.errors import MissingKnowledgeError
from recdistill.models.base import Recommender, ScoreVectors, State


class FrozenState:
    """What a teacher answers: its embeddings, and its scores from vectors or from the live model.

    Args:
        vectors: tables whose product is the score; None for models without.
        embeddings: user and item tables that feature methods read, the same as the score's or others; None for
            models without.
        score_scale: what list-wise losses multiply the scores by.
        scorer: what scores where there are no vectors; without it there are no scores (a store of such a model).
    """

    def __init__(
        self,
        vectors: ScoreVectors | None,
        embeddings: tuple[Tensor, Tensor] | None,
        score_scale: float = 1.0,
        scorer: State | None = None,
    ) -> None:
        self.score_scale = score_scale
        self.vectors = vectors
        self.embeddings = embeddings
        self._scorer = scorer
        self._copies: dict[torch.device, FrozenState] = {}
        kinds = {"scores"} if vectors is not None or scorer is not None else set[str]()
        self.kinds = frozenset(kinds | ({"embeddings"} if embeddings is not None else set()))
        tables = vectors[:2] if vectors is not None else embeddings
        if tables is not None:
            self.num_users, self.num_items = tables[0].shape[0], tables[1].shape[0]
        else:
            assert scorer is not None
            self.num_users, self.num_items = scorer.num_users, scorer.num_items

    def on(self, device: torch.device) -> FrozenState:
        """The same answers from tables on ``device``, copied there once: a store is read on the CPU by methods
        that prepare an epoch, and on a GPU by their losses."""
        tables = self.vectors[:2] if self.vectors is not None else self.embeddings
        if tables is None or tables[0].device == device:
            return self
        if device not in self._copies:
            vectors = None
            if self.vectors is not None:
                users, items, *biases = self.vectors
                moved = (None if bias is None else bias.to(device) for bias in biases)
                vectors = ScoreVectors(users.to(device), items.to(device), *moved)
            embeddings = self.embeddings and (self.embeddings[0].to(device), self.embeddings[1].to(device))
            self._copies[device] = FrozenState(vectors, embeddings, self.score_scale, self._scorer)
        return self._copies[device]

    def user_embeddings(self, users: Tensor) -> Tensor:
        return F.embedding(users, self.on(users.device)._embeddings()[0])

    def item_embeddings(self, items: Tensor) -> Tensor:
        return F.embedding(items, self.on(items.device)._embeddings()[1])

    def _embeddings(self) -> tuple[Tensor, Tensor]:
        if self.embeddings is None:
            raise MissingKnowledgeError("this teacher has no embeddings")
        return self.embeddings

    def score_vectors(self) -> ScoreVectors | None:
        return self.vectors

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        tables = self.on(users.device).vectors
        if tables is None:
            return self._live_scores(users, items)
        if items is None:
            scores = tables.users[users] @ tables.items.T
            if tables.item_bias is not None:
                scores = scores + tables.item_bias
        else:
            scores = ops.scores_at(tables.users, tables.items, users, items)
            if tables.item_bias is not None:
                scores = torch.where(items >= 0, scores + tables.item_bias[items.clamp(min=0)], scores)
        if tables.user_bias is None:
            return scores
        biased = scores + tables.user_bias[users][:, None]
        return biased if items is None else torch.where(items >= 0, biased, scores)

    @torch.no_grad()
    def _live_scores(self, users: Tensor, items: Tensor | None) -> Tensor:
        if self._scorer is None:
            raise MissingKnowledgeError(
                "this store has lists and embeddings, but cannot score other pairs: its model has no score vectors",
                "distil from the model itself: --live MODEL",
            )
        return self._scorer.scores(users, items)


@torch.no_grad()
def frozen_state(model: Recommender) -> FrozenState:
    """What ``model`` answers, frozen: evaluated once, in eval mode, without gradient."""
    state = model.frozen()
    vectors = state.score_vectors()
    if vectors is not None:
        users, items, *biases = (None if t is None else t.detach().contiguous() for t in vectors)
        assert users is not None
        assert items is not None
        vectors = ScoreVectors(users, items, *biases)
    embeddings = None
    if "embeddings" in state.kinds:
        device = next(model.parameters()).device
        users = state.user_embeddings(torch.arange(state.num_users, device=device)).detach()
        items = state.item_embeddings(torch.arange(state.num_items, device=device)).detach()
        embeddings = (users, items)
        if vectors is not None and torch.equal(users, vectors.users) and torch.equal(items, vectors.items):
            embeddings = (vectors.users, vectors.items)
    return FrozenState(vectors, embeddings, state.score_scale, None if vectors is not None else state)


def stored_arrays(state: FrozenState) -> dict[str, Tensor]:
    """The arrays that :func:`read_arrays` makes ``state`` of again."""
    arrays: dict[str, Tensor] = {}
    tables = state.vectors
    if state.embeddings is not None:
        arrays["users"], arrays["items"] = state.embeddings
    if tables is None:
        arrays["embeddings_only"] = torch.ones(1, dtype=torch.uint8)
    else:
        if state.embeddings is None or tables.users is not state.embeddings[0]:
            arrays["score_users"], arrays["score_items"] = tables.users, tables.items
        if tables.item_bias is not None:
            arrays["item_bias"] = tables.item_bias
        if tables.user_bias is not None:
            arrays["user_bias"] = tables.user_bias
    if state.score_scale != 1:
        arrays["score_scale"] = torch.tensor(state.score_scale)
    return {name: value.cpu().contiguous() for name, value in arrays.items()}


def read_arrays(arrays: Mapping[str, Tensor]) -> FrozenState:
    """The state that :func:`stored_arrays` wrote."""
    embeddings = (arrays["users"], arrays["items"]) if "users" in arrays else None
    scale = float(arrays["score_scale"]) if "score_scale" in arrays else 1.0
    if "embeddings_only" in arrays:
        return FrozenState(None, embeddings, scale)
    vectors = ScoreVectors(
        arrays["score_users"] if "score_users" in arrays else arrays["users"],
        arrays["score_items"] if "score_items" in arrays else arrays["items"],
        arrays.get("item_bias"),
        arrays.get("user_bias"),
    )
    return FrozenState(vectors, embeddings, scale)
