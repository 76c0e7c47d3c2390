"""Bidirectional Distillation: a teacher and a student that train together and learn from each other.

Kweon et al., Bidirectional Distillation for Top-K Recommender System, WWW 2021.

    L_S = own loss + λ_TS · mean over rows (u, ·) of BCE(σ(s_uj), σ(t_uj / τ_T)),   j drawn by p_TS(· | u)
    L_T = own loss + λ_ST · mean over rows (u, ·) of BCE(σ(t_uj), σ(s_uj / τ_S)),   j drawn by p_ST(· | u)

    p_TS(j | u) ∝ tanh(max((rank_S(j) − rank_T(j)) · ε_t, 0)): what the student ranks lower than the teacher does
    p_ST(j | u) ∝ exp((rank_T(j) − rank_S(j)) · ε_e): above all what the teacher ranks lower than the student does

s, t: scores of student and teacher; ranks count from 1 (best) among u's unobserved items; labels carry no gradient
and are those of the forward pass that precedes both updates. Every ``refresh`` epochs the ranks are made in blocks
of users, and ``num_draws`` items a user and direction are drawn from these laws, exactly and with replacement; each
training row takes one of its user's at random. So every row's item follows the law, but rows between two refreshes
share draws. A user whose weights are all 0 has no draw; such rows count 0 in the mean.

The authors' code ranks from the worst item but subtracts as if from the best, so that each model teaches what the
other ranks *higher* than itself: ``direction="code"``. It also ranks observed items (as of score 0), takes the
distilled items as the negatives of both models' own losses, and draws negatives outside of train, valid and test;
none of that is followed.

Both own losses and both terms cover the rows of a batch, so published weights on sums stay as they are; weight decay
and Adam's epsilon are divided by B.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recdistill.config import validated
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Objective, list_scores
from recdistill.errors import OptionError
from recdistill.models.base import Batch, Recommender, State
from recdistill.models.sequential import SequenceModel

_BLOCK_BYTES = 64 << 20
"""Upper bound of one block of scores, ranks and weights."""


class Pair(Recommender):
    """A teacher and a student as one model for the loop: the student's batches, state and validation.

    Args:
        teacher: unbuilt, or trained (warmed up) on the same users and items.
        student: the same.
    """

    def __init__(self, teacher: Recommender, student: Recommender) -> None:
        super().__init__()
        for model in (teacher, student):
            if model.closed_form:
                raise OptionError(
                    f"{model.model_name()} is fitted at once, so it cannot learn from another model",
                    "choose models that are trained by steps, such as bpr",
                )
        _check_batches(teacher, student)
        self.teacher, self.student = teacher, student
        self.options = {}
        if teacher.num_users and student.num_users:
            self.num_users, self.num_items = student.num_users, student.num_items

    def build(self, interactions: Interactions, generator: torch.Generator) -> None:
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        for model in (self.teacher, self.student):
            if model.num_users == 0:
                model.build(interactions, generator)

    def state(self, batch: Batch | None = None) -> State:
        return self.student.state(batch)

    def batches(
        self, interactions: Interactions, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        return self.student.batches(interactions, batch_size, generator)


def _check_batches(teacher: Recommender, student: Recommender) -> None:
    """Refuse a sequence teacher whose loss cannot be taken on the student's batches."""
    if not isinstance(teacher, SequenceModel) or teacher.loss_name == "softmax":
        return
    names = ("max_length", "samples", "loss", "num_negatives")
    wanted, found = ([model.options.get(name) for name in names] for model in (teacher, student))
    if wanted != found:
        raise OptionError(
            f"a teacher with the loss {teacher.loss_name} learns from a sequence student's batches with the same"
            f" {', '.join(names)}: {wanted}, found {found}",
            "give both the same, or the teacher the loss softmax",
        )


class BD(Objective):
    """Bidirectional Distillation of a :class:`Pair`.

    Args:
        student_weight: λ_TS, of what the student learns from the teacher, at least 0 (paper: 0.5).
        teacher_weight: λ_ST, of what the teacher learns from the student, at least 0 (paper: 0.5).
        teacher_temperature: τ_T, of the teacher's labels, above 0 (paper: 5).
        student_temperature: τ_S, of the student's labels, above 0 (paper: 5).
        student_slope: ε_t, how fast the weight of an item for the student saturates as ranks part, above 0
            (paper: 0.01).
        teacher_slope: ε_e, how fast the weight of an item for the teacher grows as ranks part, above 0
            (paper: 1e-4).
        refresh: epochs between two rankings of the catalogue by both models, at least 1 (paper: 10).
        num_draws: items drawn a user and direction at each refresh, at least 1.
        direction: ``intended`` teaches what the learner ranks too low; ``code`` the reverse, as the released code.
    """

    @validated
    def __init__(
        self,
        *,
        student_weight: Annotated[float, Field(ge=0)] = 0.5,
        teacher_weight: Annotated[float, Field(ge=0)] = 0.5,
        teacher_temperature: Annotated[float, Field(gt=0)] = 5.0,
        student_temperature: Annotated[float, Field(gt=0)] = 5.0,
        student_slope: Annotated[float, Field(gt=0)] = 1e-2,
        teacher_slope: Annotated[float, Field(gt=0)] = 1e-4,
        refresh: Annotated[int, Field(ge=1)] = 10,
        num_draws: Annotated[int, Field(ge=1)] = 100,
        direction: Literal["intended", "code"] = "intended",
    ) -> None:
        super().__init__()
        self.student_weight = student_weight
        self.teacher_weight = teacher_weight
        self.teacher_temperature = teacher_temperature
        self.student_temperature = student_temperature
        self.student_slope = student_slope
        self.teacher_slope = teacher_slope
        self.refresh = refresh
        self.num_draws = num_draws
        self.direction = direction

    def setup(
        self,
        model: Recommender,
        interactions: Interactions,
        num_epochs: int,
        generator: torch.Generator,
        device: torch.device,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        del note
        self._run = (_pair(model), interactions, generator)  # a tuple, so that the models are not submodules
        shape = (2, interactions.num_users, self.num_draws)  # for the student, for the teacher
        self.register_buffer("drawn", torch.full(shape, -1, dtype=torch.int32))
        self.to(device)

    @torch.no_grad()
    def start_epoch(self, epoch: int) -> None:
        if epoch % self.refresh:
            return
        pair, interactions, generator = self._run
        teacher, student, drawn = pair.teacher.frozen(), pair.student.frozen(), self.get_buffer("drawn")
        block = max(1, _BLOCK_BYTES // (64 * interactions.num_items))
        for users in torch.arange(interactions.num_users).split(block):
            row, item = interactions.rows(users).pairs
            seen = (row.to(drawn.device), item.to(drawn.device))
            gap = ranks(student, users.to(drawn.device), seen) - ranks(teacher, users.to(drawn.device), seen)
            if self.direction == "code":
                gap = -gap
            unobserved = torch.ones_like(gap, dtype=torch.bool).index_put_(seen, gap.new_zeros(()).bool())
            for_student = student_weights(gap, self.student_slope) * unobserved
            for_teacher = teacher_weights(gap, self.teacher_slope) * unobserved
            drawn[0, users] = draw(for_student, self.num_draws, generator).to(drawn.dtype)
            drawn[1, users] = draw(for_teacher, self.num_draws, generator).to(drawn.dtype)
        pair.train()

    def terms(self, model: Recommender, state: State, batch: Batch) -> dict[str, Tensor]:
        pair = _pair(model)
        taught = pair.teacher.state(batch)
        terms = {"student": pair.student.loss(state, batch), "teacher": pair.teacher.loss(taught, batch)}
        items = self._items(batch)  # (n, 2)
        student = list_scores(state, batch.row_users, items)
        teacher = list_scores(taught, batch.row_users, items)
        present = items >= 0
        terms["to_student"] = self.student_weight * imitation_loss(
            student[:, 0], teacher[:, 0] / self.teacher_temperature, present[:, 0]
        )
        terms["to_teacher"] = self.teacher_weight * imitation_loss(
            teacher[:, 1], student[:, 1] / self.student_temperature, present[:, 1]
        )
        return terms

    def _items(self, batch: Batch) -> Tensor:
        """One of its user's draws for each row, in both directions, −1 where there is none, shape ``(n, 2)``."""
        drawn, generator = self.get_buffer("drawn"), self._run[2]
        place = torch.randint(self.num_draws, (2, len(batch)), generator=generator).to(drawn.device)
        side = torch.arange(2, device=drawn.device)[:, None]
        return drawn[side, batch.row_users, place].long().T.contiguous()


def ranks(state: State, users: Tensor, seen: tuple[Tensor, Tensor]) -> Tensor:
    """Ranks (from 1) of the whole catalogue for a block of users, equal scores by smaller index.

    Args:
        state: what scores.
        users: shape ``(b,)``, int64.
        seen: rows (of the block) and items that take no part; they get the ranks after all others.

    Returns:
        Shape ``(b, I)``, int64.
    """
    scores = state.scores(users).float().index_put(seen, torch.tensor(-torch.inf, device=users.device))
    order = _best_first(scores)
    places = torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _best_first(scores: Tensor) -> Tensor:
    """Columns of each row by falling score, equal scores by smaller column."""
    if not scores.is_cpu:
        return scores.argsort(dim=1, descending=True, stable=True)
    bits = (0.0 - scores).view(torch.int32)
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers in the order of the floats
    keys = (rising.long() << 32) | torch.arange(scores.shape[1])
    keys.numpy().sort(axis=1)  # several times faster than torch's
    return keys.bitwise_and_(0xFFFFFFFF)


def student_weights(gap: Tensor, slope: float) -> Tensor:
    """tanh(max(gap · ε_t, 0)) for gap = rank_S − rank_T."""
    return torch.tanh((gap * slope).clamp(min=0))


def teacher_weights(gap: Tensor, slope: float) -> Tensor:
    """exp(−gap · ε_e) for gap = rank_S − rank_T (b, I), each row divided by its largest."""
    return torch.exp((gap.amin(dim=1, keepdim=True) - gap) * slope)


def draw(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` columns of each row with replacement, with chances proportional to their weights.

    Args:
        weights: shape ``(b, I)``, at least 0.
        n: draws a row.
        generator: a CPU generator.

    Returns:
        Shape ``(b, n)``, int64; −1 in a row without a weight above 0.
    """
    mass = weights.double().cumsum(dim=1)
    uniform = torch.rand(len(weights), n, dtype=torch.float64, generator=generator).to(mass.device)
    found = torch.searchsorted(mass, uniform * mass[:, -1:], right=True)
    return found.masked_fill_(found == weights.shape[1], -1)


def imitation_loss(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Mean over rows of BCE(σ(scores), σ(labels)), 0 where not ``present``; ``labels`` get no gradient."""
    losses = F.binary_cross_entropy_with_logits(scores, labels.detach().sigmoid(), reduction="none")
    return torch.where(present, losses, 0).mean()


def _pair(model: Recommender) -> Pair:
    if not isinstance(model, Pair):
        raise OptionError(
            f"bidirectional distillation trains a Pair; found {type(model).__name__}",
            "wrap teacher and student: Pair(teacher, student)",
        )
    return model
