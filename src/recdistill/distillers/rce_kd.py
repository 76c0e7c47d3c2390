"""RCE-KD: cross-entropy on the student's own top items, and on the teacher's top items that it misses.

Zhu and Zhang, Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender Systems, ICLR 2026.

    L = mean over the batch's users u of (1 − γ_u) CE(S_u) + γ_u CE(A_u ∪ (T_u ∖ (A_u ∪ S_u)))
    CE(J) = −Σ_{j ∈ J} softmax_j(t_u· / τ) log softmax_j(s_u· / τ),   both softmaxes over J alone
    γ_u = exp(−β |T_u ∩ A_u| / K)

T_u, S_u: the top K items of the teacher (scores t) and of the student (scores s). Cross-entropy on a set bounds the
NDCG there only if the set holds whatever the student ranks above its members; A_u is to come near that for the
teacher's items: L of the student's top M items, drawn without replacement, position k with probability
∝ exp((min(c_k, 50) + 1) / T), where c_k counts the items of T_u that the student has at position k or below it (within
M). The student's lists and the draws are made anew at the start of each epoch, or of each ``refresh``-th where a
catalogue is so large that ranking it for all users takes longer than the epoch's steps.

The paper splits T_u by membership of S_u; the authors' code, followed here, has all of S_u in the first term and
measures the overlap with A_u. Deviations: each user counts once a step, where the code has a term for each training
row; train items are masked in all lists unless ``mask_train`` is false. Softmaxes are computed in log space, where the
code's exponentials overflow for scores above 88 τ.

A published weight λ on a sum over training rows is ``weight = λ`` here, as both losses become means.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill import ops
from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.distillers.sld import soft_cross_entropy, teacher_labels
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State
from recdistill.models.ranking import top_items

_MOST = 50
"""Counts of the teacher's items above this do not raise a position's chance any more."""


class RCEKD(Distiller):
    """Rejuvenated Cross-Entropy for Knowledge Distillation.

    Args:
        weight: of this term in the objective, above 0 (authors' code: 10 on Gowalla and Yelp, 500 on CiteULike).
        k: K, top items of teacher and student in the loss, at least 1 (authors' code: 50 or 100).
        num_sampled: L, items drawn from the student's list, at least 1 (authors' code: 50 or 100).
        depth: M, of the student's list, at least 1 (authors' code: 100 or 200).
        temperature: τ of both softmaxes, above 0 (authors' code: 1; 10 for a LightGCN teacher of a BPR student).
        decay: β, how fast the second term fades as the draws meet the teacher's items, at least 0 (authors' code: 3
            to 15).
        sampling: ``overlap`` draws as above; ``position`` draws position k with probability ∝ exp(−k / T).
        sampling_temperature: T of the draw, above 0 (authors' code: 10).
        refresh: epochs between two rankings of the student, at least 1 (authors' code: 1).
        mask_train: whether train items are left out of all lists (authors' code: no).
    """

    needs = frozenset({"top_items", "scores"})

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 10.0,
        k: Annotated[int, Field(ge=1)] = 50,
        num_sampled: Annotated[int, Field(ge=1)] = 50,
        depth: Annotated[int, Field(ge=1)] = 200,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        decay: Annotated[float, Field(ge=0)] = 3.0,
        sampling: Literal["overlap", "position"] = "overlap",
        sampling_temperature: Annotated[float, Field(gt=0)] = 10.0,
        refresh: Annotated[int, Field(ge=1)] = 1,
        mask_train: bool = True,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.k = k
        self.num_sampled = num_sampled
        self.depth = depth
        self.temperature = temperature
        self.decay = decay
        self.sampling = sampling
        self.sampling_temperature = sampling_temperature
        self.refresh = refresh
        self.mask_train = mask_train
        if not mask_train:  # stored lists have no train items
            self.needs = frozenset({"scores"})

    def list_depths(self) -> dict[str, int]:
        return {"top_items": self.k} if self.mask_train else {}

    def setup(self, context: Context) -> None:
        users = torch.arange(context.interactions.num_users)
        self.num_sampled = context.drawn_items("num_sampled", self.num_sampled)
        if self.mask_train:
            self.k = context.drawn_items("k", self.k)
            self._teacher_top = context.knowledge.top_items(users, self.k).ids
        else:
            self.k = min(self.k, context.interactions.num_items)
            self._teacher_top = top_items(context.knowledge, users, self.k)[0]
        width = 2 * self.k + self.num_sampled
        self.register_buffer("items", torch.full((len(users), width), -1, dtype=torch.int32))
        self.register_buffer("labels", torch.zeros(len(users), width))
        self.register_buffer("gamma", torch.zeros(len(users)))

    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch % self.refresh:
            return
        student_top, _ = context.student_top_items(max(self.k, self.depth), observed=not self.mask_train)
        sampled = self._sample(student_top[:, : self.depth], context.generator)
        own, others = correction_sets(self._teacher_top, student_top, sampled)
        labels = [teacher_labels(context.knowledge, items, self.temperature) for items in (own, others)]
        self.get_buffer("items").copy_(torch.cat([own, others], dim=1))
        self.get_buffer("labels").copy_(torch.cat(labels, dim=1))
        self.get_buffer("gamma").copy_(second_share(self._teacher_top, sampled, self.decay))

    def _sample(self, lists: Tensor, generator: torch.Generator) -> Tensor:
        """A: items of the student's lists (U, M), padded with −1, shape ``(U, L)``."""
        if self.sampling == "position":
            lengths = (lists >= 0).sum(dim=1)
            columns = ops.sample_positions(lengths, self.num_sampled, self.sampling_temperature, generator)
        else:
            weights = overlap_weights(lists, self._teacher_top, self.sampling_temperature)
            columns = ops.sample_weighted(weights, self.num_sampled, generator)
        return lists.gather(1, columns.clamp(min=0)).masked_fill_(columns < 0, -1)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        items = self.get_buffer("items")[batch.users].long()  # (b, 2K + L)
        labels = self.get_buffer("labels")[batch.users]
        logits = list_scores(student, batch.users, items) / self.temperature
        gamma = self.get_buffer("gamma")[batch.users]
        return rejuvenated_cross_entropy(logits, labels, items >= 0, gamma, self.k).mean()


def overlap_weights(student_top: Tensor, teacher_top: Tensor, temperature: float) -> Tensor:
    """Weights of the student's positions (U, M), ∝ exp(min(c_k, 50) / T); 0 at padding; a row's largest is 1."""
    found = ops.listed(student_top, teacher_top)
    below = found.flip(1).cumsum(1).flip(1).clamp(max=_MOST)  # c_k, never rising along a row
    # e^-80 is as good as never, and no 0, which would be never
    weights = ((below - below[:, :1]) / temperature).clamp(min=-80).exp()
    return weights.masked_fill(student_top < 0, 0.0)


def correction_sets(teacher_top: Tensor, student_top: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
    """S (U, K) and A ∪ (T ∖ (A ∪ S)) (U, L + K), padded with −1 anywhere.

    Args:
        teacher_top: T, shape ``(U, K)``.
        student_top: the student's list, of which S is the head, shape ``(U, K)`` or deeper.
        sampled: A, shape ``(U, L)``.
    """
    own = student_top[:, : teacher_top.shape[1]]
    known = ops.listed(teacher_top, torch.cat([sampled, own], dim=1))
    return own, torch.cat([sampled, teacher_top.masked_fill(known, -1)], dim=1)


def second_share(teacher_top: Tensor, sampled: Tensor, decay: float) -> Tensor:
    """γ = exp(−β |T ∩ A| / K), shape ``(U,)``."""
    overlap = ops.listed(sampled, teacher_top).sum(dim=1)
    return torch.exp(-decay * overlap / teacher_top.shape[1])


def rejuvenated_cross_entropy(
    logits: Tensor, labels: Tensor, present: Tensor, gamma: Tensor, k: int
) -> Tensor:
    """(1 − γ) CE of the first k columns + γ CE of the others.

    Args:
        logits: the student's scores / τ, shape ``(b, n)``.
        labels: the teacher's, each part summing to 1, shape ``(b, n)``.
        present: which entries are there, shape ``(b, n)``, bool.
        gamma: shape ``(b,)``.
        k: K.

    Returns:
        Shape ``(b,)``.
    """
    own, others = (
        soft_cross_entropy(logits[:, part], labels[:, part], present[:, part])
        for part in (slice(None, k), slice(k, None))
    )
    return (1 - gamma) * own + gamma * others
