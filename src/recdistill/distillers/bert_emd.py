"""BERT-EMD: every layer of the student may learn from every layer of the teacher; transport decides how much.

Li et al., BERT-EMD: Many-to-Many Layer Mapping for BERT Compression with Earth Mover's Distance, EMNLP 2020, for
sequence models.

    D_ij = distance(W h^S_i + b, h^T_j)
    L = Σ_ij F_ij D_ij  +  ‖V e^S + c − e^T‖² (mean over items and channels),   F = argmin of the transport from w to u

w, u: weights of the student's and the teacher's layers, moved after each step so that what fits cheaply gets more; h_i:
what layer i leaves; e: what enters the first; W, b, V, c learnt. F is a constant of the gradient, which is exact. Means
are over the items of the batch's windows. The paper adds a transport between attention maps, and predictions (add
the method ``logit-kd``). Its weights have no smoothing, so that a layer that fits perfectly takes everything; see
:func:`recdistill.ops.transport.cooperative_weights`. AdaRec's students of fixed shape learn by the same loss with KL
as D.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.layers import (
    LayerTransport,
    Metric,
    Projection,
    both,
    layer_distances,
    pair_distances,
    shapes,
    stacked,
)
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class BERTEMD(Distiller):
    """Every layer of the student learns from every layer of the teacher, by transport.

    Args:
        weight: of this term in the objective, above 0.
        metric: the distance of two layers: ``mse`` (paper), ``cosine`` or ``kl`` (AdaRec).
        direction: of ``kl``: ``forward`` is KL(teacher ‖ student).
        solver: ``exact`` (paper), or ``sinkhorn``: entropic, on the layers' device.
        temperature: of the layers' weights, above 0 (paper: 1, 5 or 10).
        smoothing: of the layers' weights, at least 0; the larger, the less a layer that fits well takes (paper: 0).
        embeddings: with the term of what enters the first layers.
    """

    needs = frozenset({"hidden_states"})
    student_needs = frozenset({"hidden_states"})
    metric: Metric

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        metric: Metric = "mse",
        direction: Literal["forward", "reverse"] = "forward",
        solver: Literal["exact", "sinkhorn"] = "exact",
        temperature: Annotated[float, Field(gt=0)] = 10.0,
        smoothing: Annotated[float, Field(ge=0)] = 0.1,
        embeddings: bool = True,
    ) -> None:
        super().__init__()
        self.weight, self.metric, self.reverse = weight, metric, direction == "reverse"
        self.solver: Literal["exact", "sinkhorn"] = solver
        self.temperature, self.smoothing, self.embeddings = temperature, smoothing, embeddings

    def setup(self, context: Context) -> None:
        own, other = shapes(context)
        self.hidden = Projection(own.hidden_states[0], other.hidden_states[0], context.generator)
        if self.embeddings:
            self.first = Projection(own.embeddings, other.embeddings, context.generator)
        self.transport = LayerTransport(
            len(own.hidden_states),
            len(other.hidden_states),
            solver=self.solver,
            temperature=self.temperature,
            smoothing=self.smoothing,
        )

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        own, reads = both(student, teacher)
        projected = self.hidden(stacked(own.hidden_states, reads))
        targets = torch.stack(reads.hidden_states)
        distances = layer_distances(projected, targets, self.metric, self.reverse)
        loss = self.transport(distances, active=len(projected))
        if not self.embeddings:
            return loss
        first = self.first(stacked([own.embeddings], reads))
        return loss + pair_distances(first, reads.embeddings[None], "mse")[0]

    def after_step(self) -> None:
        self.transport.after_step()

    def facts(self) -> dict[str, float]:
        return self.transport.facts()
