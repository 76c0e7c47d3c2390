"""One teacher's knowledge: stored arrays, or a live frozen model, behind the same reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from recdistill import ops
from recdistill.artifacts import Manifest, load_arrays, read_manifest
from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, MissingKnowledgeError
from recdistill.knowledge.base import Knowledge, Lists, Restricted, cut
from recdistill.models.base import Batch, Recommender, ScoreVectors, State
from recdistill.models.ranking import top_items, top_users

_LISTS = ("top_items", "top_users")


class FrozenState:
    """A teacher's embeddings and score vectors, whether or not they are the same tables.

    Args:
        vectors: tables whose product is the score.
        embeddings: user and item tables that feature methods read; None for models without.
        score_scale: what list-wise losses multiply the scores by.
    """

    def __init__(
        self, vectors: ScoreVectors, embeddings: tuple[Tensor, Tensor] | None, score_scale: float = 1.0
    ) -> None:
        self.score_scale = score_scale
        self.vectors = vectors
        self.embeddings = embeddings
        self.num_users = vectors.users.shape[0]
        self.num_items = vectors.items.shape[0]
        self.kinds = frozenset({"scores"} | ({"embeddings"} if embeddings is not None else set()))

    def user_embeddings(self, users: Tensor) -> Tensor:
        return F.embedding(users, self._embeddings()[0])

    def item_embeddings(self, items: Tensor) -> Tensor:
        return F.embedding(items, self._embeddings()[1])

    def _embeddings(self) -> tuple[Tensor, Tensor]:
        if self.embeddings is None:
            raise MissingKnowledgeError("this teacher has no embeddings")
        return self.embeddings

    def score_vectors(self) -> ScoreVectors:
        return self.vectors

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        tables = self.vectors
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


@dataclass
class TeacherKnowledge:
    """The knowledge of one teacher over the users and items of one data directory.

    Lists that are not stored, or not deep enough, are derived once from the score vectors where there are any.

    Attributes:
        train: the train pairs, removed from every list.
        frozen: scores and embeddings, or None for a store of lists alone.
        lists: stored lists by kind (``top_items``: one row a user; ``top_users``: one row an item).
        observed: the teacher's score of every train pair, or None.
        path: the store's directory; None for a live model.
        manifest: the store's manifest; None for a live model.
    """

    train: Interactions
    frozen: FrozenState | None
    lists: dict[str, Lists] = field(default_factory=lambda: {})
    observed: Tensor | None = None
    path: Path | None = None
    manifest: Manifest | None = None

    @property
    def num_users(self) -> int:
        return self.train.num_users

    @property
    def num_items(self) -> int:
        return self.train.num_items

    @property
    def score_scale(self) -> float:
        return 1.0 if self.frozen is None else self.frozen.score_scale

    @property
    def kinds(self) -> frozenset[str]:
        kinds = set(self.lists)
        if self.observed is not None:
            kinds.add("observed_scores")
        if self.frozen is not None:
            kinds |= self.frozen.kinds | {*_LISTS, "observed_scores"}
        return frozenset(kinds)

    def state(self, batch: Batch) -> TeacherKnowledge:
        del batch  # both a store and a frozen table model answer every batch alike
        return self

    def require(self, kinds: frozenset[str], method: str) -> None:
        missing = sorted(kinds - self.kinds)
        if missing:
            raise MissingKnowledgeError(
                f"{method} reads {', '.join(missing)};"
                f" the knowledge holds {', '.join(sorted(self.kinds)) or 'nothing'}",
                f"make it with: {self._command(missing)}",
            )

    def restrict(self, kinds: frozenset[str]) -> Knowledge:
        return Restricted(self, kinds)

    def _command(self, kinds: list[str], depth: int | None = None) -> str:
        wanted = [kind for kind in kinds if kind != "scores"] or ["embeddings"]
        deep = "" if depth is None else f" --depth {depth}"
        return (
            f"recdistill extract DATA TEACHER --kinds {','.join(wanted)}{deep} --out {self.path or 'KNOWLEDGE'}"
            " (what the store holds already is kept)"
        )

    def _frozen(self, kind: str) -> FrozenState:
        if self.frozen is None or kind not in self.frozen.kinds:
            raise MissingKnowledgeError(
                f"the knowledge has no {kind}; it holds {', '.join(sorted(self.kinds))}",
                f"make it with: {self._command([kind])}",
            )
        return self.frozen

    def user_embeddings(self, users: Tensor) -> Tensor:
        return self._frozen("embeddings").user_embeddings(users)

    def item_embeddings(self, items: Tensor) -> Tensor:
        return self._frozen("embeddings").item_embeddings(items)

    def teacher_dim(self) -> int:
        return self._frozen("embeddings").user_embeddings(torch.zeros(1, dtype=torch.int64)).shape[1]

    def score_vectors(self) -> ScoreVectors | None:
        return None if self.frozen is None else self.frozen.score_vectors()

    def scores(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        return self._frozen("scores").scores(users, items)

    def top_items(self, users: Tensor, depth: int) -> Lists:
        return self._top("top_items", users, depth, self.num_items)

    def top_users(self, items: Tensor, depth: int) -> Lists:
        return self._top("top_users", items, depth, self.num_users)

    def _top(self, kind: str, rows: Tensor, depth: int, catalogue: int) -> Lists:
        stored = self.lists.get(kind)
        if stored is None or (stored.ids.shape[1] < min(depth, catalogue) and self.frozen is not None):
            stored = self.lists[kind] = self._derive(kind, min(depth, catalogue))
        have = stored.ids.shape[1]
        if have < min(depth, catalogue) and not bool((stored.ids[rows, -1] < 0).all()):
            raise MissingKnowledgeError(
                f"{kind} to depth {depth} are read; the knowledge holds them to depth {have}",
                f"make them with: {self._command([kind], depth)}, or lower the method's depth",
            )
        found = cut(stored, depth)
        return Lists(found.ids[rows].long(), found.scores[rows])

    def _derive(self, kind: str, depth: int) -> Lists:
        state = cast(State, self._frozen("scores"))
        if kind == "top_items":
            ids, scores = top_items(state, torch.arange(self.num_users), depth, exclude=[self.train])
        else:
            ids, scores = top_users(state, torch.arange(self.num_items), depth, exclude=self.train)
        return Lists(ids.int(), scores)

    def observed_scores(self) -> Tensor:
        if self.observed is None:
            self.observed = observed_scores(
                self._frozen("observed_scores" if self.frozen is None else "scores"), self.train
            )
        return self.observed


@torch.no_grad()
def observed_scores(state: State, train: Interactions) -> Tensor:
    """Scores of every train pair, in the order of the train CSR, shape ``(P,)``, float32."""
    found = torch.empty(train.num_pairs)
    users = train.users
    for start in range(0, train.num_pairs, 1 << 18):
        part = slice(start, start + (1 << 18))
        found[part] = state.scores(users[part].long(), train.items[part].long()[:, None])[:, 0].cpu()
    return found


@torch.no_grad()
def frozen_state(model: Recommender) -> FrozenState:
    """What ``model`` answers, frozen: evaluated once, in eval mode, without gradient.

    Raises:
        MissingKnowledgeError: the model's scores are no product of vectors.
    """
    state = model.frozen()
    vectors = state.score_vectors()
    if vectors is None:
        raise MissingKnowledgeError(
            f"{model.model_name()} has no score vectors", "extract its lists to a store"
        )
    users, items, *biases = (None if t is None else t.detach().contiguous() for t in vectors)
    assert users is not None
    assert items is not None
    vectors = ScoreVectors(users, items, *biases)
    embeddings = None
    if "embeddings" in state.kinds:
        device = vectors.users.device
        users = state.user_embeddings(torch.arange(state.num_users, device=device)).detach()
        items = state.item_embeddings(torch.arange(state.num_items, device=device)).detach()
        same = torch.equal(users, vectors.users) and torch.equal(items, vectors.items)
        embeddings = (vectors.users, vectors.items) if same else (users, items)
    return FrozenState(vectors, embeddings)


def live(model: Recommender, train: Interactions) -> TeacherKnowledge:
    """A live frozen model as knowledge: lists are derived when a method asks for them."""
    return TeacherKnowledge(train=train, frozen=frozen_state(model))


def load_knowledge(path: Path | str, data: Data) -> TeacherKnowledge:
    """Open the store at ``path`` over the users and items of ``data``.

    Raises:
        ArtifactError: no store, a damaged one, or one extracted from other data.
    """
    path = Path(path)
    manifest = read_manifest(path, kind="knowledge")
    if manifest.inputs.get("data") != data.hash:
        raise ArtifactError(
            f"the knowledge at {path} was extracted from data {manifest.inputs.get('data')}, not from {data.hash}",
            "extract it again from this data: recdistill extract DATA TEACHER",
        )
    lists: dict[str, Lists] = {}
    for kind in _LISTS:
        if (path / f"{kind}.safetensors").exists():
            arrays = load_arrays(path / f"{kind}.safetensors")
            lists[kind] = Lists(arrays["ids"], arrays["scores"])
    frozen = observed = None
    if (path / "embeddings.safetensors").exists():
        frozen = _stored_state(load_arrays(path / "embeddings.safetensors"))
    if (path / "observed_scores.safetensors").exists():
        observed = load_arrays(path / "observed_scores.safetensors")["scores"]
    knowledge = TeacherKnowledge(data.train, frozen, lists, observed, path, manifest)
    _check_shapes(knowledge, path)
    return knowledge


def _stored_state(arrays: Mapping[str, Tensor]) -> FrozenState:
    embeddings = (arrays["users"], arrays["items"]) if "users" in arrays else None
    vectors = ScoreVectors(
        arrays["score_users"] if "score_users" in arrays else arrays["users"],
        arrays["score_items"] if "score_items" in arrays else arrays["items"],
        arrays.get("item_bias"),
        arrays.get("user_bias"),
    )
    scale = float(arrays["score_scale"]) if "score_scale" in arrays else 1.0
    return FrozenState(vectors, embeddings, scale)


def stored_arrays(state: FrozenState) -> dict[str, Tensor]:
    """The arrays that :func:`load_knowledge` reads ``state`` back from."""
    arrays: dict[str, Tensor] = {}
    tables = state.vectors
    if state.embeddings is not None:
        arrays["users"], arrays["items"] = state.embeddings
    if state.embeddings is None or tables.users is not state.embeddings[0]:
        arrays["score_users"], arrays["score_items"] = tables.users, tables.items
    if tables.item_bias is not None:
        arrays["item_bias"] = tables.item_bias
    if tables.user_bias is not None:
        arrays["user_bias"] = tables.user_bias
    if state.score_scale != 1:
        arrays["score_scale"] = torch.tensor(state.score_scale)
    return {name: value.cpu().contiguous() for name, value in arrays.items()}


def _check_shapes(knowledge: TeacherKnowledge, path: Path) -> None:
    expected = {"top_items": knowledge.num_users, "top_users": knowledge.num_items}
    for kind, lists in knowledge.lists.items():
        if lists.ids.shape[0] != expected[kind] or lists.ids.shape != lists.scores.shape:
            raise ArtifactError(
                f"{kind} at {path} have {lists.ids.shape[0]} rows; the data has {expected[kind]}",
                "extract the knowledge again from this data",
            )
    frozen = knowledge.frozen
    if frozen is not None and (frozen.num_users, frozen.num_items) != (
        knowledge.num_users,
        knowledge.num_items,
    ):
        raise ArtifactError(
            f"embeddings at {path} are for {frozen.num_users} users x {frozen.num_items} items; the data has"
            f" {knowledge.num_users} x {knowledge.num_items}",
            "extract the knowledge again from this data",
        )
