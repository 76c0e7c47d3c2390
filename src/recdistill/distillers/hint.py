"""Hints: one layer of the student learns one layer of the teacher.

Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, for sequence models: at every item of the batch's
windows.

    L = distance(W h^S_i + b, h^T_j)

h^S_i, h^T_j: what layer i of the student and layer j of the teacher leave, W, b learnt. The distance is a mean over
items: of (t − s)² over channels (paper, up to its factor ½), of 1 − cos, or of KL over channels (see
:mod:`recdistill.distillers.layers`). The paper trains the hint before the rest; here it is a term of the objective.
``fitnet`` is the same for tables of users and items.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from recdistill.config import validated
from recdistill.distillers.base import Context, Distiller
from recdistill.distillers.layers import Metric, Projection, both, pair_distances, stacked
from recdistill.errors import OptionError
from recdistill.knowledge.base import TeacherState
from recdistill.knowledge.sequence import shape_of
from recdistill.models.base import Batch, State
from recdistill.models.sequential import SequenceModel


class Hint(Distiller):
    """One layer of the student learns one layer of the teacher.

    Args:
        weight: of this term in the objective, above 0.
        student_layer: i, from 0; below 0 counted from the last. Where a search draws fewer layers, the nearest one.
        teacher_layer: j, likewise.
        metric: ``mse`` (paper), ``cosine`` or ``kl``.
    """

    needs = frozenset({"hidden_states"})
    student_needs = frozenset({"hidden_states"})
    metric: Metric

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        student_layer: int = -1,
        teacher_layer: int = -1,
        metric: Metric = "mse",
    ) -> None:
        super().__init__()
        self.weight, self.metric = weight, metric
        self.student_layer, self.teacher_layer = student_layer, teacher_layer

    def setup(self, context: Context) -> None:
        assert isinstance(context.model, SequenceModel)
        dims: list[int] = []
        for whose, shape, layer in (
            ("student", shape_of(context.model), self.student_layer),
            ("teacher", context.knowledge.sequence_shape(), self.teacher_layer),
        ):
            layers = shape.hidden_states
            if not -len(layers) <= layer < len(layers):
                raise OptionError(
                    f"hint.{whose}_layer is {layer}; the {whose} has {len(layers)} layers",
                    f"from 0 to {len(layers) - 1}, or from -{len(layers)} to -1",
                )
            dims.append(layers[layer])
        self.projection = Projection(*dims, generator=context.generator)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        own, reads = both(student, teacher)
        layers = own.hidden_states
        layer = max(-len(layers), min(self.student_layer, len(layers) - 1))
        projected = self.projection(stacked([layers[layer]], reads))
        return pair_distances(projected, reads.hidden_states[self.teacher_layer][None], self.metric)[0]
