"""The contract that every distillation method keeps, and the sum that training minimises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from recdistill.data.interactions import Interactions
from recdistill.errors import OptionError
from recdistill.knowledge.base import Knowledge, Lists, TeacherState
from recdistill.knowledge.storable import not_supplied, supplied
from recdistill.models.base import Batch, Recommender, State, user_scores
from recdistill.models.ranking import item_ranks, items_at, scores_of, top_items, user_scores_of
from recdistill.wording import counted

_BLOCK = 4096
"""Rows of the teacher's lists that are read at once."""


@dataclass
class Context:
    """What a method may read outside of a step.

    Attributes:
        interactions: the train pairs.
        knowledge: the teacher's knowledge, restricted to what the method declares in ``needs``.
        model: the student.
        num_epochs: the most epochs this run may take.
        generator: a CPU generator; all of a method's own draws come from it.
        device: where the student's parameters are.
        name: the method's in the sum, as in the options of the command line.
        note: says a line to the user.
    """

    interactions: Interactions
    knowledge: Knowledge
    model: Recommender
    num_epochs: int
    generator: torch.Generator
    device: torch.device
    shared: dict[tuple[int, int, bool], tuple[Tensor, Tensor]]
    name: str = ""
    note: Callable[[str], None] = lambda text: None
    epoch: int = 0

    def drawn_items(self, option: str, asked: int) -> int:
        """How many distinct items a user may have: ``asked``, or the most that any user has left, which is said."""
        most = self.interactions.num_items - int(self.interactions.user_counts.min())
        return self.at_most(option, asked, most, "items that users have left")

    def drawn_users(self, option: str, asked: int) -> int:
        """The same of the users that an item has left."""
        most = self.interactions.num_users - int(self.interactions.item_counts.min())
        return self.at_most(option, asked, most, "users that items have left")

    def at_most(self, option: str, asked: int, most: int, what: str) -> int:
        """``asked``, or ``most``, the ``what``, which is said; at least 1."""
        if asked > most:
            self.note(f"{self.name}.{option} is {most:,}, the {what}, not {asked:,}")
        return max(1, min(asked, most))

    def with_room(
        self, lists: Tensor, listed: int, others: int, of: Literal["user", "item"] = "user"
    ) -> Tensor:
        """Teacher lists (rows, depth) of all users, or items, that leave ``others`` unobserved entries outside.

        Where a list would leave fewer, as in a small catalogue, it ends earlier: after ``listed`` entries at the least,
        or after half of what is unobserved where that is too little for both, and both then share it. What is done is
        said.
        """
        data = self.interactions
        left = data.num_items - data.user_counts if of == "user" else data.num_users - data.item_counts
        room = torch.maximum(
            left - others, torch.div(left, 2, rounding_mode="floor").clamp(max=listed)
        ).clamp(min=1)
        shortened = (lists >= 0).sum(dim=1) > room
        if not shortened.any():
            return lists
        outside = left[shortened] - room[shortened]
        fewest, what = int(outside.min()), "items" if of == "user" else "users"
        self.note(
            f"{self.name}: of {counted(int(shortened.sum()), of)} the lists end before their depth, the first after"
            f" {int(room[shortened].min()):,}, so that {others:,} {what} are left to be drawn outside of each"
            + (f", or what there is, {fewest:,} at the fewest" if fewest < others else "")
        )
        return lists.masked_fill(torch.arange(lists.shape[1]) >= room[:, None], -1)

    def teacher_top_items(self, depth: int) -> Tensor:
        """The teacher's best unobserved items of all users: ids ``(U, depth)``, int32, padded with −1.

        Lists end with the catalogue.

        Raises:
            MissingKnowledgeError: the lists are shorter.
        """
        data = self.interactions
        return _in_blocks(self.knowledge.top_items, data.num_users, min(depth, data.num_items))

    def teacher_top_users(self, depth: int) -> Tensor:
        """The same of the users of all items, ``(I, depth)``."""
        data = self.interactions
        return _in_blocks(self.knowledge.top_users, data.num_items, min(depth, data.num_users))

    def student_top_items(self, depth: int, observed: bool = False) -> tuple[Tensor, Tensor]:
        """The student's best unobserved items of all users now: ids ``(U, depth)``, scores; once an epoch for all.

        Padded with −1 and −inf. With ``observed``, or where users take items again, the train items are ranked too.
        Lists end with the catalogue.
        """
        depth = min(depth, self.interactions.num_items)
        key = (self.epoch, depth, observed)
        if key not in self.shared:
            for old in [k for k in self.shared if k[0] != self.epoch]:
                del self.shared[old]
            users = torch.arange(self.interactions.num_users)
            exclude = [] if observed else [self.interactions.unlisted]
            self.shared[key] = self._of_student(top_items, users, depth, exclude)
        return self.shared[key]

    def student_items_at(self, positions: Tensor) -> Tensor:
        """The items now at ``positions`` (U, m) of the student's rankings of unobserved items, from 0; in blocks.

        −1 where there is padding (−1) or the ranking is shorter.
        """
        users = torch.arange(self.interactions.num_users)
        return self._of_student(items_at, users, positions, self.interactions.unlisted)

    def student_scores(self, ids: Tensor) -> Tensor:
        """The student's scores now of items ``ids`` (U, m) of all users, −inf at padding (−1); in blocks."""
        return self._of_student(scores_of, torch.arange(self.interactions.num_users), ids)

    def student_user_scores(self, ids: Tensor) -> Tensor:
        """The student's scores now of users ``ids`` (I, m) for all items, −inf at padding (−1); in blocks."""
        return self._of_student(user_scores_of, torch.arange(self.interactions.num_items), ids)

    def student_ranks(self, ids: Tensor) -> Tensor:
        """The student's ranks now (from 1, among unobserved items) of ``ids`` (U, m), 0 at padding; in blocks."""
        users = torch.arange(self.interactions.num_users)
        return self._of_student(item_ranks, users, ids, self.interactions.unlisted)

    def _of_student(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """``read(state, …)`` of the student in eval mode; training goes on afterwards."""
        found = read(self.model.frozen(), *arguments)
        self.model.train()
        return found


def _in_blocks(read: Callable[[Tensor, int], Lists], count: int, depth: int) -> Tensor:
    """Ids of the lists of rows 0 to count − 1, int32, of which no more is held in other types than a block."""
    found = torch.empty((count, depth), dtype=torch.int32)
    for rows in torch.arange(count).split(_BLOCK):
        found[rows] = read(rows, depth).ids.int()
    return found


class Distiller(nn.Module):
    """A distillation method: what it reads of the teacher, and its loss.

    A subclass takes keyword-only options with the paper's defaults, ``weight`` among them, and computes
    :meth:`loss`, a mean over the units it covers so that a weight survives a change of batch size. What it
    carries between steps is a registered buffer, so that a resumed run is exact.
    """

    needs: frozenset[str] = frozenset()
    """Kinds of knowledge that it reads of the teacher; a method whose options decide sets it in its constructor."""
    student_needs: frozenset[str] = frozenset({"scores"})
    """What the student must supply: ``scores``, ``embeddings``, ``hidden_states``, ``dot_product`` (scores are products
    of its vectors)."""

    options: dict[str, Any]
    weight: float

    @classmethod
    def method_name(cls) -> str:
        """The name on the command line: that of the file the class lives in."""
        return cls.__module__.rpartition(".")[2].replace("_", "-")

    def setup(self, context: Context) -> None:
        """Make own parameters and buffers; called once, before training."""

    def start_epoch(self, epoch: int, context: Context) -> None:
        """Draw or refresh what an epoch needs; ``epoch`` counts from 0."""

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        """The method's loss on one batch, scalar."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimiser step."""

    def facts(self) -> dict[str, float]:
        """Numbers about where the method is, finite, that are written into the epoch's line of ``history.jsonl``.

        Read at the end of every epoch, so they come from buffers: a resumed run writes the same.
        """
        return {}

    def list_depths(self) -> dict[str, int]:
        """How deep the teacher's lists are read, by kind: ``top_items``, ``top_users``."""
        return {}

    def pending(self) -> str:
        """What of the method's schedule is still to come, in words; empty when nothing is.

        Training does not run out of patience before; what is left at its end is said. Read from buffers, as facts are.
        """
        return ""


def list_scores(state: State, users: Tensor, items: Tensor) -> Tensor:
    """Scores for list-wise losses: those of ``items`` (b, n) times the model's ``score_scale``.

    A model whose scores are bounded has nearly flat softmaxes without it.
    """
    scores = state.scores(users, items)
    return scores if state.score_scale == 1 else scores * state.score_scale


def user_list_scores(state: State, items: Tensor, users: Tensor) -> Tensor:
    """Scores for list-wise losses of items: those of ``users`` (b, n) times the model's ``score_scale``."""
    scores = user_scores(state, items, users)
    return scores if state.score_scale == 1 else scores * state.score_scale


class Objective(nn.Module):
    """base_weight · the model's own loss + Σ weight · distiller loss.

    Args:
        distillers: the methods that are summed; the n-th of a repeated method is called ``name.n``.
        knowledge: what they read; None without distillers.
        base_weight: weight of the model's own loss, at least 0.
    """

    def __init__(
        self,
        distillers: Sequence[Distiller] = (),
        knowledge: Knowledge | None = None,
        base_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if distillers and knowledge is None:
            raise OptionError("distillation methods need a teacher's knowledge", "pass knowledge=...")
        self.distillers = nn.ModuleList(distillers)
        self.names = term_names([d.method_name() for d in distillers])
        self.knowledge = knowledge
        self.base_weight = base_weight
        self._contexts: list[Context] = []

    def methods(self) -> list[tuple[str, Distiller]]:
        """Term names and methods, in order."""
        found: list[tuple[str, Distiller]] = []
        for name, module in zip(self.names, self.distillers, strict=True):
            assert isinstance(module, Distiller)
            found.append((name, module))
        return found

    def setup(
        self,
        model: Recommender,
        interactions: Interactions,
        num_epochs: int,
        generator: torch.Generator,
        device: torch.device,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Check every need, then let each method make its parameters.

        Raises:
            MissingKnowledgeError: a kind of knowledge is missing; the message has the command that makes it.
            OptionError: the student cannot supply what a method reads.
        """
        shared: dict[tuple[int, int, bool], tuple[Tensor, Tensor]] = {}
        self._contexts = []
        for name, method in self.methods():
            assert self.knowledge is not None
            self.knowledge.require(method.needs, name)
            missing = method.student_needs - supplied(type(model))
            if missing:
                raise not_supplied(model.model_name(), missing, name)
            context = Context(
                interactions=interactions,
                knowledge=self.knowledge.restrict(method.needs),
                model=model,
                num_epochs=num_epochs,
                generator=generator,
                device=device,
                shared=shared,
                name=name,
                note=note,
            )
            method.setup(context)
            self._contexts.append(context)
        self.to(device)

    def start_epoch(self, epoch: int) -> None:
        """Tell every method that an epoch begins (counted from 0)."""
        for (_, method), context in zip(self.methods(), self._contexts, strict=True):
            context.epoch = epoch
            method.start_epoch(epoch, context)

    def terms(self, model: Recommender, state: State, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the loss by name; their sum is what training minimises."""
        terms: dict[str, Tensor] = {}
        if self.base_weight > 0:
            terms[model.model_name()] = self.base_weight * model.loss(state, batch)
        if self.knowledge is not None and len(self.distillers) > 0:
            teacher = self.knowledge.state(batch)
            for name, method in self.methods():
                terms[name] = method.weight * method.loss(state, teacher, batch)
        return terms

    def after_step(self) -> None:
        """Tell every method that a step was taken."""
        for _, method in self.methods():
            method.after_step()

    def facts(self) -> dict[str, dict[str, float]]:
        """The facts of those methods that have any, by term name."""
        found = {name: method.facts() for name, method in self.methods()}
        return {name: facts for name, facts in found.items() if facts}

    def pending(self) -> dict[str, str]:
        """What is still to come of those methods that have a schedule, by term name."""
        found = {name: method.pending() for name, method in self.methods()}
        return {name: text for name, text in found.items() if text}


def term_names(names: Sequence[str]) -> list[str]:
    """Unique names of summed methods: ``rrd``, ``de``, ``rrd.2``."""
    seen: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return unique
