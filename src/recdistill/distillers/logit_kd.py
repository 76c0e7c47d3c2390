"""Logit distillation for sequences: the teacher's distribution over the next item.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.

    L = τ² · mean over places of KL(softmax(t/τ) ‖ softmax(s/τ))

t, s: the teacher's and the student's scores of items as the next one. Places are all items of the batch's windows,
or the newest of each user. The softmaxes run over the whole catalogue, over the teacher's top k items and the one
that came next, or over items drawn uniformly and the one that came next; entries of a place that are the same item
count once. The top k at the newest items are the teacher's stored lists, of unobserved items. A teacher may give much
of its probability to items that the user has already, which are not recommended (``mask_seen``). Over the whole
catalogue a tile of scores is held at a time. Padding takes no part. Published search code (AdaRec) has the arguments
of KL exchanged (``reverse``), counts padding and sums over places.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.distillers.layers import both
from recdistill.knowledge.base import TeacherState
from recdistill.knowledge.sequence import SequenceReads
from recdistill.models.base import Batch, State
from recdistill.models.sequence_state import SequenceState
from recdistill.ops.divergence import divergence, softmax_divergence

_TILE = 256


class LogitKD(Distiller):
    """The teacher's distribution over the next item.

    Args:
        weight: of this term in the objective, above 0.
        items: over which the softmaxes run: ``all``, ``top`` or ``sampled``.
        k: teacher's top items, or items drawn a step, at least 1.
        places: ``all`` items of the windows (a live sequence teacher), or the ``newest`` of each user (any teacher:
            ``top`` reads stored lists, the others scores).
        temperature: τ, above 0 (paper: 1 to 20).
        direction: ``forward`` is KL(teacher ‖ student), ``reverse`` KL(student ‖ teacher).
        mask_seen: leave out of both softmaxes, as recommendations do, the items that the user has already: those of the
            window up to the place, or at the newest all train items (stored lists never hold them). Without effect
            in data in which any user takes an item again.
    """

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        items: Literal["all", "top", "sampled"] = "all",
        k: Annotated[int, Field(ge=1)] = 100,
        places: Literal["all", "newest"] = "all",
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        direction: Literal["forward", "reverse"] = "forward",
        mask_seen: bool = False,
    ) -> None:
        super().__init__()
        self.weight, self.items, self.k, self.places = weight, items, k, places
        self.temperature, self.reverse, self.mask_seen = temperature, direction == "reverse", mask_seen
        if places == "all":
            self.needs, self.student_needs = frozenset({"hidden_states"}), frozenset({"hidden_states"})
        else:
            self.needs = frozenset({"top_items" if items == "top" else "scores"})

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.k} if "top_items" in self.needs else {}

    def setup(self, context: Context) -> None:
        self.generator = context.generator
        self._seen = seen_of(context) if self.mask_seen else None

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        if self.places == "newest":
            return self._newest(student, teacher, batch)
        own, reads = both(student, teacher)
        if self.items == "all":
            return logit_divergence(own, reads, self._seen, self.temperature, self.reverse)
        ids = self._drawn(batch) if self.items == "sampled" else None
        ids, targets = listed(own, reads, self.k, ids, self._seen)
        scores = own.logits(reads.rows, ids)
        return divergence(scores, targets, self.temperature, self.reverse).mean()

    def _newest(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        users = batch.users
        if self.items == "top":
            ids, targets = teacher.top_items(users, self.k)
            scores = list_scores(student, users, ids)
        elif self.items == "sampled":
            ids = self._drawn(batch).expand(len(users), -1).contiguous()
            scores, targets = list_scores(student, users, ids), teacher.scores(users, ids)
            if self._seen is not None:
                seen = self._seen.contains(users.cpu(), ids.cpu()).to(targets.device)
                targets = targets.masked_fill(seen, -torch.inf)
        elif isinstance(student, SequenceState):
            return newest_divergence(student, teacher, users, self._seen, self.temperature, self.reverse)
        else:
            scores, targets = student.scores(users) * student.score_scale, teacher.scores(users)
            if self._seen is not None:
                targets = targets.index_put(_pairs(self._seen, users), targets.new_tensor(-torch.inf))
        targets = targets * teacher.score_scale
        return divergence(scores, targets.to(scores), self.temperature, self.reverse).mean()

    def _drawn(self, batch: Batch) -> Tensor:
        """k items without repeats, ascending, (k,) int64."""
        count = min(self.k, batch.num_items)
        drawn = torch.randperm(batch.num_items, generator=self.generator)[:count]
        return drawn.sort().values.to(batch.users.device)


def _pairs(seen: Interactions, users: Tensor) -> tuple[Tensor, Tensor]:
    """Which of ``users`` (b,), and the item, of each pair of theirs, shape ``(m,)`` each, int64."""
    row, item = seen.rows(users.cpu()).pairs
    return row.to(users.device), item.to(users.device)


def seen_of(context: Context) -> Interactions | None:
    """The users' own items, which are not recommended; None where they are, as users take items again."""
    if not context.interactions.has_repeats:
        return context.interactions
    context.note(
        f"{context.name}.mask_seen changes nothing: users take items again; where repeated rows mean nothing, prepare"
        " with --duplicates"
    )
    return None


def logit_divergence(
    student: SequenceState,
    teacher: SequenceReads,
    seen: Interactions | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> Tensor:
    """L over the whole catalogue, at every item for which the teacher has an answer.

    With ``seen``, the items of a window up to the place take no part.
    """
    vectors = student.next_item_vectors()
    rows = vectors.users if teacher.whole else vectors.users.index_select(0, teacher.rows)

    def before(part: slice) -> tuple[Tensor, Tensor]:
        return student.places.up_to(teacher.rows[part])

    exclude = None if seen is None else before
    return softmax_divergence(
        rows, vectors.items, vectors.item_bias, teacher.logits, temperature, reverse, exclude
    )


def newest_divergence(
    student: SequenceState,
    teacher: TeacherState,
    users: Tensor,
    seen: Interactions | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> Tensor:
    """L over the whole catalogue but for what is ``seen``, at the newest item of each of ``users``."""
    vectors = student.score_vectors_of(users)

    def targets(part: slice) -> Tensor:
        return teacher.scores(users[part]) * teacher.score_scale

    def own(part: slice) -> tuple[Tensor, Tensor]:
        assert seen is not None
        return _pairs(seen, users[part])

    exclude = None if seen is None else own
    return softmax_divergence(
        vectors.users, vectors.items, vectors.item_bias, targets, temperature, reverse, exclude
    )


@torch.no_grad()
def listed(
    student: SequenceState,
    teacher: SequenceReads,
    k: int,
    drawn: Tensor | None,
    seen: Interactions | None = None,
) -> tuple[Tensor, Tensor]:
    """Ids and teacher's scores of each place's list, (n, k + 1): its top k or what was drawn, and the next item.

    Scores are −inf, and ids −1, where the next item is listed already or there is none, and with ``seen`` at the items
    of the window up to the place.
    """
    assert student.batch is not None
    following = student.batch.next_items[teacher.rows]
    k = min(k, student.num_items) if drawn is None else len(drawn)
    ids = torch.full((len(following), k + 1), -1, device=following.device)
    targets = torch.full(ids.shape, -torch.inf, device=ids.device, dtype=teacher.vectors.users.dtype)
    column_of = torch.arange(student.num_items, device=ids.device)
    if drawn is not None:
        column_of.fill_(-1)[drawn] = torch.arange(k, device=ids.device)
    for start in range(0, len(following), _TILE):
        part = slice(start, start + _TILE)
        logits = teacher.logits(part, drawn)
        if seen is not None:
            place, item = student.places.up_to(teacher.rows[part])
            column = column_of[item]
            logits[place[column >= 0], column[column >= 0]] = -torch.inf
        if drawn is None:
            targets[part, :k], ids[part, :k] = logits.topk(k, dim=1)
            last = logits.gather(1, following[part, None].clamp(min=0))
        else:
            targets[part, :k], ids[part, :k] = logits, drawn
            outputs, table, bias = (
                teacher.vectors.users[part],
                teacher.vectors.items,
                teacher.vectors.item_bias,
            )
            place = following[part].clamp(min=0)
            last = (outputs * table[place]).sum(dim=1, keepdim=True)
            last = last if bias is None else last + bias[place][:, None]
        targets[part, k:] = last
    ids.masked_fill_(torch.isneginf(targets), -1)[:, k] = following
    twice = (following < 0) | (ids[:, :k] == following[:, None]).any(dim=1)
    targets[twice, k], ids[twice, k] = -torch.inf, -1
    return ids, targets
