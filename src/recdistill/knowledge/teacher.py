"""One teacher's knowledge: stored arrays, or a live frozen model, behind the same reads."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from recdistill import config
from recdistill.artifacts import Manifest, load_arrays, read_manifest
from recdistill.atomic import size_text
from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, MissingKnowledgeError
from recdistill.knowledge.base import (
    MEMBER_DEPTH,
    Aggregation,
    Knowledge,
    Lists,
    Member,
    Restricted,
    cut,
)
from recdistill.knowledge.elsewhere import Elsewhere, elsewhere
from recdistill.knowledge.ensemble import by_item, listed_scores
from recdistill.knowledge.frozen import FrozenState, frozen_state, read_arrays
from recdistill.knowledge.members import MEMBERS, stored_members
from recdistill.knowledge.sequence import SequenceReads, Shape, sequence_reads, shape_of
from recdistill.knowledge.storable import never_stored, no_hidden_states
from recdistill.models.base import Batch, Recommender, ScoreVectors, State
from recdistill.models.ranking import top_items, top_users
from recdistill.models.sequence_batches import Places
from recdistill.models.sequential import SequenceModel

_LISTS = ("top_items", "top_users")
_UNOBSERVED = "lists alone are enough with --set hetcomp.observed=none"
_UNSCORED = "neumf, ease and itemknn score only live: distill --live MODEL"


@dataclass
class TeacherKnowledge:
    """The knowledge of one teacher over the users and items of one data directory.

    Lists that are not stored, or not deep enough, are derived once from the scores where there are any.

    Attributes:
        train: the pairs that the teacher was fitted on, removed from every list unless users take items again.
        frozen: scores and embeddings, or None for a store of lists alone.
        lists: stored lists by kind (``top_items``: one row a user; ``top_users``: one row an item).
        observed: the teacher's score of every train pair, or None.
        path: the store's directory; None for a live model.
        manifest: the store's manifest; None for a live model.
        elsewhere: how to read a store that another program made; None for one of ours.
        sequence_model: a live teacher that reads sequences; None for others and for stores.
        beside: the model whose lists were put together with the teacher's in memory, with its options; or None.
        together: the members of what was put together in memory.
    """

    train: Interactions
    frozen: FrozenState | None
    lists: dict[str, Lists] = field(default_factory=lambda: {})
    observed: Tensor | None = None
    path: Path | None = None
    manifest: Manifest | None = None
    elsewhere: Elsewhere | None = None
    _by_item: Lists | None = field(default=None, repr=False)
    sequence_model: SequenceModel | None = None
    beside: dict[str, Any] | None = None
    together: tuple[Member, ...] = ()
    _members: dict[int, tuple[Member, ...]] = field(default_factory=lambda: {}, repr=False)
    _batch: Batch | None = field(default=None, repr=False)
    _reads: SequenceReads | None = field(default=None, repr=False)

    @property
    def on(self) -> tuple[str, ...]:
        """The splits that the teacher was fitted on: ``train``, and ``valid`` where it was refitted."""
        return ("train",) if self.manifest is None else self.manifest.on

    @property
    def num_users(self) -> int:
        return self.train.num_users

    @property
    def num_items(self) -> int:
        return self.train.num_items

    @property
    def score_scale(self) -> float:
        if self.frozen is not None:
            return self.frozen.score_scale
        return 1.0 if self.manifest is None else float(self.manifest.summary.get("score_scale", 1.0))

    @property
    def kinds(self) -> frozenset[str]:
        kinds = set(self.lists)
        if self.observed is not None:
            kinds.add("observed_scores")
        if self.frozen is not None:
            kinds |= self.frozen.kinds
        if self.can_score:
            kinds |= {*_LISTS, "observed_scores"}
        if self.sequence_model is not None:
            kinds.add("hidden_states")
        if "top_items" in kinds:  # without a stored trajectory, the final lists are the only state
            kinds.add("trajectory")
        if self._is_ensemble:
            kinds.add("scores")
        return frozenset(kinds)

    @property
    def can_score(self) -> bool:
        """Whether any pair can be scored, so that lists can be derived."""
        return self.frozen is not None and "scores" in self.frozen.kinds

    def state(self, batch: Batch) -> TeacherKnowledge:
        if self.sequence_model is None:  # a store and a frozen table model answer every batch alike
            return self
        found = copy.copy(self)
        found._batch, found._reads = batch, None
        return found

    def sequence_reads(self, places: Places) -> SequenceReads:
        if self._reads is None:
            if self.sequence_model is None or self._batch is None:
                raise MissingKnowledgeError(
                    "only a live sequence teacher answers item by item, within a step"
                )
            self._reads = sequence_reads(self.sequence_model, self._batch, places)
        return self._reads

    def sequence_shape(self) -> Shape:
        self.require(frozenset({"hidden_states"}), "the method")
        assert self.sequence_model is not None
        return shape_of(self.sequence_model)

    def require(self, kinds: frozenset[str], method: str) -> None:
        missing = sorted(kinds - self.kinds)
        if not missing:
            return
        without = _UNOBSERVED if missing == ["observed_scores"] else ""
        if self._is_ensemble:
            raise MissingKnowledgeError(
                f"{method} reads {', '.join(missing)}, and this ensemble has none: it holds"
                f" {', '.join(sorted(self.kinds))}",
                without or "use a method that reads lists, or one of its teachers",
            )
        if "hidden_states" in missing:
            raise no_hidden_states(method)
        model = self._model()
        error = None if model is None else never_stored(model, frozenset(missing), method)
        raise error or MissingKnowledgeError(
            f"{method} reads {', '.join(missing)};"
            f" the knowledge holds {', '.join(sorted(self.kinds)) or 'nothing'}",
            self._advice(missing) + (f"; {without}" if without else ""),
        )

    def restrict(self, kinds: frozenset[str]) -> Knowledge:
        return Restricted(self, kinds)

    @property
    def _is_ensemble(self) -> bool:
        return self.manifest is not None and MEMBERS in self.manifest.summary

    def _model(self) -> type[Recommender] | None:
        """The class of the teacher's model, where that is known."""
        if self.manifest is None:
            return None
        of = self.manifest.summary if self.manifest.kind == "knowledge" else self.manifest.options
        name = dict(of.get("model") or {}).get("name")
        return config.find("models", name) if name in config.names("models") else None

    def _advice(self, kinds: list[str], depth: int | None = None) -> str:
        """How to come by the kinds, or by lists of that depth."""
        wanted = sorted({"embeddings" if kind == "scores" else kind for kind in kinds})
        deep = "" if depth is None else f" --depth {depth}"
        if self._is_ensemble and self.path is not None:
            command = f"recdistill ensemble KNOWLEDGE...{deep} --out {self.path} --force"
            return f"make it with: {command}" + (", of stores whose lists are as deep" if deep else "")
        if self.elsewhere is not None:
            return (
                f"another program made {self.path}: write {', '.join(wanted)} there, as docs/knowledge.md says"
                + (
                    f"; or learn from recdistill ensemble {self.path}, which scores by its lists"
                    if "scores" in kinds
                    else ""
                )
            )
        return (
            f"make it with: recdistill extract DATA TEACHER --kinds {','.join(wanted)}{deep}"
            f" --out {self.path or 'KNOWLEDGE'} (what the store holds already is kept)"
            + (f"; {_UNSCORED}" if "scores" in kinds and self._model() is None else "")
        )

    def _frozen(self, kind: str) -> FrozenState:
        if self.frozen is None or kind not in self.frozen.kinds:
            raise MissingKnowledgeError(
                f"the knowledge has no {kind}; it holds {', '.join(sorted(self.kinds))}",
                self._advice([kind]),
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
        if not self._is_ensemble:
            return self._frozen("scores").scores(users, items)
        if self._by_item is None:
            self._by_item = by_item(self.lists["top_items"])
        return listed_scores(self._by_item, users, items, self.num_items)

    def top_items(self, users: Tensor, depth: int) -> Lists:
        return self._top("top_items", users, depth, self.num_items)

    def top_users(self, items: Tensor, depth: int) -> Lists:
        return self._top("top_users", items, depth, self.num_users)

    def _top(self, kind: str, rows: Tensor, depth: int, catalogue: int) -> Lists:
        stored = self.lists.get(kind)
        if stored is None or (stored.ids.shape[1] < min(depth, catalogue) and self.can_score):
            stored = self.lists[kind] = self._derive(kind, min(depth, catalogue))
        have = stored.ids.shape[1]
        if have < min(depth, catalogue) and not bool((stored.ids[rows.to(stored.ids.device), -1] < 0).all()):
            asked, depth = depth, min(depth, catalogue)  # no list is longer than the catalogue
            # extract deepens all lists of its store, another program those asked for
            made = {kind, *self.lists} if self.elsewhere is None else {kind}
            size = size_text(8 * depth * sum(map(self.num_rows, made)))
            raise MissingKnowledgeError(
                f"{kind} to depth {asked} are read; the knowledge holds them to depth {have}",
                f"set the method's depth to {have} or less, or make deeper ones ({size} of lists);"
                f" {self._advice([kind], depth)}",
            )
        place = rows.to(stored.ids.device)
        found = cut(Lists(stored.ids[place], stored.scores[place]), min(depth, catalogue))
        return Lists(found.ids.long().to(rows.device), found.scores.to(rows.device))

    def num_undecided(self, kind: str = "top_items") -> int:
        """Users to whom the teacher gives one score throughout: in its stored lists, or by its vectors.

        Args:
            kind: or, for ``top_users``, items to which it gives one score throughout.
        """
        stored, vectors = self.lists.get(kind), self.score_vectors()
        if stored is not None:
            last = stored.scores.gather(1, (stored.lengths - 1).clamp(min=0)[:, None])[:, 0]
            return int(((stored.scores[:, 0] == last) & (stored.lengths > 1)).sum())
        if vectors is None or (vectors.item_bias if kind == "top_items" else vectors.user_bias) is not None:
            return 0
        own, others = (
            (vectors.users, vectors.items) if kind == "top_items" else (vectors.items, vectors.users)
        )
        if bool((others == others[:1]).all()):
            return self.num_rows(kind)
        return int((own == 0).all(dim=1).sum())

    def num_rows(self, kind: str) -> int:
        """How many lists of a kind there are: one a user (``top_items``) or an item (``top_users``)."""
        return self.num_users if kind == "top_items" else self.num_items

    def num_unlisted(self, kind: str) -> int:
        """How many of the stored lists of a kind are empty; 0 where they are derived when they are read."""
        stored = self.lists.get(kind)
        return 0 if stored is None or not stored.ids.shape[1] else int((stored.ids[:, 0] < 0).sum())

    def list_depth(self, kind: str) -> int | None:
        """How deep lists of a kind can be read; None for as deep as one likes."""
        return None if self.can_score or kind not in self.lists else self.lists[kind].ids.shape[1]

    def _derive(self, kind: str, depth: int) -> Lists:
        state = cast(State, self._frozen("scores" if self.can_score else kind))
        if kind == "top_items":
            ids, scores = top_items(state, torch.arange(self.num_users), depth, exclude=[self.train.unlisted])
        else:
            ids, scores = top_users(state, torch.arange(self.num_items), depth, exclude=self.train.unlisted)
        return Lists(ids.int(), scores)

    def observed_scores(self) -> Tensor:
        if self.observed is None:
            state = self._frozen("scores" if self.can_score else "observed_scores")
            self.observed = observed_scores(state, self.train)
        return self.observed

    def members(self, depth: int = MEMBER_DEPTH) -> tuple[Member, ...]:
        depth = min(depth, self.num_items)
        if depth not in self._members:
            self._members[depth] = self._read_members(depth)
        return self._members[depth]

    def aggregation(self) -> Aggregation:
        if self.manifest is None or not self._is_ensemble:
            return Aggregation()
        options = self.manifest.options
        weights = options.get("weights")
        return Aggregation(
            float(options.get("temperature", 10.0)),
            None if weights is None else tuple(float(weight) for weight in weights),
            float(options.get("consistency", 0.0)),
            float(options.get("debias", 0.0)),
        )

    def _read_members(self, depth: int) -> tuple[Member, ...]:
        if self.together:
            return tuple(
                member._replace(states=tuple(state[:, :depth] for state in member.states))
                for member in self.together
            )
        if "top_items" not in self.lists and not self.can_score:
            self._frozen("top_items")  # says what is missing
        stored = self.lists.get("top_items")
        if stored is None or (stored.ids.shape[1] < depth and self.can_score):
            stored = self.lists["top_items"] = self._derive("top_items", depth)
        observed = self.observed_scores() if "observed_scores" in self.kinds else None
        return stored_members(self.path, self.manifest, stored.ids, observed, depth, self.elsewhere)


@torch.no_grad()
def observed_scores(state: State, train: Interactions) -> Tensor:
    """Scores of every train pair, in the order of the train CSR, shape ``(P,)``, float32."""
    found = torch.empty(train.num_pairs)
    users = train.users
    for start in range(0, train.num_pairs, 1 << 18):
        part = slice(start, start + (1 << 18))
        found[part] = state.scores(users[part].long(), train.items[part].long()[:, None])[:, 0].cpu()
    return found


def live(model: Recommender, train: Interactions) -> TeacherKnowledge:
    """A live frozen model as knowledge: lists are derived when a method asks for them."""
    sequence_model = model if isinstance(model, SequenceModel) else None
    return TeacherKnowledge(train=train, frozen=frozen_state(model), sequence_model=sequence_model)


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
            "make it again from this data: recdistill extract DATA TEACHER, or the program that wrote it",
        )
    lists: dict[str, Lists] = {}
    foreign = elsewhere(path, manifest, data)
    for kind in _LISTS:
        if foreign is not None and (path / f"{kind}.safetensors").exists():
            lists[kind] = foreign.read(path / f"{kind}.safetensors", kind)
        elif (path / f"{kind}.safetensors").exists():
            arrays = load_arrays(path / f"{kind}.safetensors")
            lists[kind] = Lists(arrays["ids"], arrays["scores"])
    frozen = observed = None
    if (path / "embeddings.safetensors").exists():
        frozen = read_arrays(load_arrays(path / "embeddings.safetensors"))
    if (path / "observed_scores.safetensors").exists():
        observed = load_arrays(path / "observed_scores.safetensors")["scores"]
    knowledge = TeacherKnowledge(data.fitted(manifest.on), frozen, lists, observed, path, manifest, foreign)
    _check_shapes(knowledge, path)
    return knowledge


def _check_shapes(knowledge: TeacherKnowledge, path: Path) -> None:
    expected = {"top_items": knowledge.num_users, "top_users": knowledge.num_items}
    for kind, lists in knowledge.lists.items():
        if lists.ids.shape[0] != expected[kind] or lists.ids.shape != lists.scores.shape:
            raise ArtifactError(
                f"{kind} at {path} have {lists.ids.shape[0]} rows; the data has {expected[kind]}",
                "extract the knowledge again from this data",
            )
        _check_numbers(lists.scores, kind, path)
    if knowledge.observed is not None and knowledge.observed.shape != (knowledge.train.num_pairs,):
        raise ArtifactError(
            f"observed_scores at {path} have shape {tuple(knowledge.observed.shape)}; the data has"
            f" {knowledge.train.num_pairs} train pairs",
            "one number a train pair, by user and then by item",
        )
    if knowledge.observed is not None:
        _check_numbers(knowledge.observed, "observed_scores", path)
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


def _check_numbers(scores: Tensor, kind: str, path: Path) -> None:
    if bool(scores.isnan().any()):
        raise ArtifactError(
            f"{kind} at {path} have scores that are NaN; expected numbers, −inf where a list is padded",
            "look at what made the scores, and make the store again",
        )
