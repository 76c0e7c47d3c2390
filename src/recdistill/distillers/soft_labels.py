"""Soft labels from a plain table of the teacher's scores: ids and scores of each user's top items, nothing else.

    listwise (ListNet):   ℓ_u = −Σ_i P_i log softmax_i(s_u· / τ),   P = softmax(t_u· / τ)
    pairwise (RankNet):   ℓ_u = mean over pairs (i, j) of BCE(σ((t_ui − t_uj) / τ), σ((s_ui − s_uj) / τ))
    pointwise:            ℓ_u = mean over items i of BCE(σ(t_ui / τ), σ(s_ui / τ))
    L = mean over the batch's users u of ℓ_u

Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach, ICML 2007, with the teacher's scores as
judgements; Burges et al., Learning to Rank using Gradient Descent, ICML 2005, with its target probabilities; and, for
labels softened by a temperature, Hinton et al., Distilling the Knowledge in a Neural Network, 2015.

i, j: the teacher's top k unobserved items, which are all that the loss sees; t, s: scores of teacher and student. Each
form is smallest where the student scores as the teacher does; a constant added to a user's scores matters to the
pointwise form alone, which needs teacher's scores that are logits. RankNet sums all k (k − 1) / 2 pairs; here
``num_pairs`` of them are drawn each step, uniformly with repeats, so that a step costs no more than the other forms. No
factor τ². Users with empty lists (with one item, for pairs) have loss 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.distillers.sld import soft_cross_entropy
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class SoftLabels(Distiller):
    """The teacher's stored scores as soft labels of its top items.

    Args:
        weight: of this term in the objective, above 0.
        form: ``listwise``, ``pairwise`` or ``pointwise``.
        k: items of the teacher's list, at least 1.
        temperature: τ of labels and student, above 0.
        num_pairs: pairs of each user a step, at least 1; the pairwise form alone reads it.
    """

    needs = frozenset({"top_items"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.1,
        form: Literal["listwise", "pairwise", "pointwise"] = "listwise",
        k: Annotated[int, Field(ge=1)] = 50,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        num_pairs: Annotated[int, Field(ge=1)] = 50,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.form = form
        self.k = k
        self.temperature = temperature
        self.num_pairs = num_pairs

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.k}

    def setup(self, context: Context) -> None:
        self.k = context.drawn_items("k", self.k)
        top = context.knowledge.top_items(torch.arange(context.interactions.num_users), self.k)
        scores = top.scores * context.knowledge.score_scale
        self.register_buffer("top", top.ids.int(), persistent=False)
        self.register_buffer("teacher", scores.masked_fill(top.ids < 0, 0.0), persistent=False)
        self.generator = context.generator

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("top")[batch.users].long()  # (b, k)
        targets = self.get_buffer("teacher")[batch.users] / self.temperature
        logits = list_scores(student, batch.users, items) / self.temperature
        present = items >= 0
        if self.form == "listwise":
            return soft_cross_entropy(logits, soft_labels(targets, present), present).mean()
        if self.form == "pairwise":
            first, second, present = draw_pairs(present.sum(dim=1), self.num_pairs, self.generator)
            logits = logits.gather(1, first) - logits.gather(1, second)  # (b, num_pairs)
            targets = targets.gather(1, first) - targets.gather(1, second)
        return binary_loss(logits, torch.sigmoid(targets), present)


def soft_labels(targets: Tensor, present: Tensor) -> Tensor:
    """softmax of ``targets`` (b, n) over the entries that are there, 0 elsewhere."""
    return torch.softmax(targets.masked_fill(~present, -torch.inf), dim=1).masked_fill(~present, 0.0)


def binary_loss(logits: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Mean over users of the mean of BCE(label, σ(logit)) over the entries that are there; all ``(b, n)``."""
    terms = (F.softplus(logits) - labels.to(logits.dtype) * logits).masked_fill(~present, 0.0)
    return (terms.sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()


def draw_pairs(lengths: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two different positions of each list, uniformly.

    Args:
        lengths: (b,) int64, of each list.
        n: pairs a list, at least 1.
        generator: a CPU generator.

    Returns:
        first and second positions (from 0), each (b, n) int64, and which pairs are there: none where a list has
        fewer than two entries.
    """
    uniform = torch.rand(2, len(lengths), n, dtype=torch.float64, generator=generator).to(lengths.device)
    length = lengths[:, None].clamp(min=2)
    first = (uniform[0] * length).long()
    second = (first + 1 + (uniform[1] * (length - 1)).long()) % length
    present = (lengths[:, None] > 1).expand_as(first)
    return first.masked_fill(~present, 0), second.masked_fill(~present, 0), present
