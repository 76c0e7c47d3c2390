"""Layer maps: every layer of the student learns a layer of the teacher that a scheme gives it.

Sun et al., Patient Knowledge Distillation for BERT Model Compression, EMNLP 2019 (layers skipped, or the last ones);
Jiao et al., TinyBERT, Findings of EMNLP 2020 (one learnt map for all layers, and the embeddings).

    L = mean over i of distance(W h^S_i + b, h^T_m(i))  +  ‖V e^S + c − e^T‖² (mean over items and channels)

h_i: what layer i leaves; e: what enters the first; m: the scheme; W, b, V, c learnt. The papers sum over layers:
weight' = weight · layers. Their sets of attention maps are not read. See :mod:`recdistill.distillers.layers` for
distances and schemes.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.layers import (
    Metric,
    Projection,
    Scheme,
    both,
    layer_map,
    pair_distances,
    shapes,
    stacked,
)
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State


class LayerMap(Distiller):
    """Every layer of the student learns the teacher's layer that a scheme gives it.

    Args:
        weight: of this term in the objective, above 0.
        scheme: ``left``, ``right`` (first or last layers), ``left-jump``, ``right-jump`` (every so many;
            TinyBERT's is ``right-jump``), ``random``.
        metric: ``mse`` (papers), ``cosine`` or ``kl``.
        embeddings: with the term of what enters the first layers (TinyBERT).
    """

    needs = frozenset({"hidden_states"})
    student_needs = frozenset({"hidden_states"})
    metric: Metric
    scheme: Scheme

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        scheme: Scheme = "right-jump",
        metric: Metric = "mse",
        embeddings: bool = True,
    ) -> None:
        super().__init__()
        self.weight, self.scheme, self.metric, self.embeddings = weight, scheme, metric, embeddings

    def setup(self, context: Context) -> None:
        own, other = shapes(context)
        layers, teacher_layers = len(own.hidden_states), len(other.hidden_states)
        maps = torch.full(
            (layers, layers), -1
        )  # a search draws fewer layers in some steps: a row for each number
        maps[-1] = torch.tensor(layer_map(self.scheme, layers, teacher_layers, context.generator))
        self.hidden = Projection(own.hidden_states[0], other.hidden_states[0], context.generator)
        if self.embeddings:
            self.first = Projection(own.embeddings, other.embeddings, context.generator)
        for count in range(1, layers):
            drawn = layer_map(self.scheme, count, teacher_layers, context.generator)
            maps[count - 1, :count] = torch.tensor(drawn)
        self.register_buffer("maps", maps)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        own, reads = both(student, teacher)
        projected = self.hidden(stacked(own.hidden_states, reads))
        chosen = self.get_buffer("maps")[len(projected) - 1, : len(projected)].tolist()
        targets = torch.stack([reads.hidden_states[layer] for layer in chosen])
        loss = pair_distances(projected, targets, self.metric).mean()
        if not self.embeddings:
            return loss
        projected = self.first(stacked([own.embeddings], reads))
        return loss + pair_distances(projected, reads.embeddings[None], "mse")[0]
