"""AdaRec's target-oriented loss: embeddings, layers by transport, and logits, for a student of any shape.

Chen et al., Scene-adaptive Knowledge Distillation for Sequential Recommendation via Differentiable Architecture
Search, 2021.

    L = a ‖V e^S + c − e^T‖²  +  b Σ_ij F_ij D_ij  +  l · KL(softmax t ‖ softmax s)
    D_ij = KL(softmax h^T_j ‖ softmax(W h^S_i + b)) over channels,      F = argmin of the transport from w to u

e: what enters the first layer; h_i: what layer i leaves; t, s: scores of items as the next one; w, u: weights of
layers, moved after each step; W, b, V, c learnt; a, b, l: ``embeddings``, ``hidden``, ``logits``. Each term is a mean
over the items of the batch's windows. Logits are compared there, or at the newest item of each user alone
(``places="newest"``): the teacher was trained on what follows the others. Much of its probability may be on items that
the user has already, which are not recommended: ``mask_seen`` leaves them out.

The authors' code calls every KL with its arguments exchanged (``direction="reverse"``; the weights of the teacher's
layers then follow the one that is not), counts padding, and divides by sequences in place of items, so that its KLs
grow with the length: weight' = weight · items a sequence. Its weights of layers have no smoothing (``smoothing=0``).
Its joint loss (1 − γ) CE + γ L, γ = .5, is a base weight of .5 and a weight of .5.
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
from recdistill.distillers.logit_kd import logit_divergence, newest_divergence, seen_of
from recdistill.errors import OptionError
from recdistill.knowledge.base import TeacherState
from recdistill.knowledge.sequence import SequenceReads
from recdistill.models.base import Batch, State
from recdistill.models.sequence_state import SequenceState


class AdaRec(Distiller):
    """Embeddings, layers by transport, and logits.

    Args:
        weight: of this term in the objective, above 0 (paper: as much as the student's own loss).
        embeddings: weight of the squared error of the embeddings, at least 0 (paper: 1).
        hidden: weight of the distance between layers, at least 0 (paper: 1).
        logits: weight of the divergence over items, at least 0 (paper: 1).
        metric: the distance of two layers: ``kl`` (paper's code), ``mse`` or ``cosine``.
        direction: of each KL: ``forward`` is KL(teacher ‖ student), ``reverse`` the other (paper's code).
        places: where logits are compared: at ``all`` items of the windows (paper), or at the ``newest`` of each user.
        logit_rows: items of a step (users, at the newest) at which logits are compared, drawn anew each step, at least
            1; all by default (paper). The divergence is most of a step's time over a large catalogue, and its mean over
            some has the same expectation.
        mask_seen: leave out of the logits, as recommendations do, the items that the user has already: those of the
            window up to the place, or at the newest all train items (paper: not left out). Without effect in data in
            which any user takes an item again.
        temperature: of the logits, above 0 (paper's code: 1).
        solver: of the transport: ``exact`` (paper) or ``sinkhorn``.
        weight_temperature: of the layers' weights, above 0 (paper: 10).
        smoothing: of the layers' weights, at least 0; the larger, the less a layer that fits well takes (paper: 0).
    """

    student_needs = frozenset({"hidden_states"})
    metric: Metric
    solver: Literal["exact", "sinkhorn"]

    @validated
    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        embeddings: Annotated[float, Field(ge=0)] = 1.0,
        hidden: Annotated[float, Field(ge=0)] = 1.0,
        logits: Annotated[float, Field(ge=0)] = 1.0,
        metric: Metric = "kl",
        direction: Literal["forward", "reverse"] = "forward",
        places: Literal["all", "newest"] = "all",
        logit_rows: Annotated[int, Field(ge=1)] | None = None,
        mask_seen: bool = False,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        solver: Literal["exact", "sinkhorn"] = "exact",
        weight_temperature: Annotated[float, Field(gt=0)] = 10.0,
        smoothing: Annotated[float, Field(ge=0)] = 0.1,
    ) -> None:
        super().__init__()
        if embeddings + hidden + logits == 0:
            raise OptionError("adarec: every part has weight 0", "give embeddings, hidden or logits a weight")
        self.weight, self.embeddings, self.hidden, self.logits = weight, embeddings, hidden, logits
        self.places, self.logit_rows = places, logit_rows
        self.mask_seen, self.temperature = mask_seen, temperature
        self._item_by_item = embeddings + hidden > 0 or places == "all"
        self.needs = frozenset({"hidden_states"} if self._item_by_item else set[str]())
        if logits > 0 and places == "newest":
            self.needs |= {"scores"}
        self.metric, self.reverse = metric, direction == "reverse"
        self.solver, self.weight_temperature, self.smoothing = solver, weight_temperature, smoothing

    def setup(self, context: Context) -> None:
        self.generator = context.generator
        self._seen = seen_of(context) if self.mask_seen else None
        if self.embeddings + self.hidden == 0:
            return
        own, other = shapes(context)
        if self.embeddings > 0:
            self.of_embeddings = Projection(own.embeddings, other.embeddings, context.generator)
        if self.hidden > 0:
            self.of_layers = Projection(own.hidden_states[0], other.hidden_states[0], context.generator)
            self.transport = LayerTransport(
                len(own.hidden_states),
                len(other.hidden_states),
                solver=self.solver,
                temperature=self.weight_temperature,
                smoothing=self.smoothing,
            )

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        assert isinstance(student, SequenceState)
        loss = student.embeddings.new_zeros(())
        if self._item_by_item:
            loss = loss + self._of_items(*both(student, teacher))
        if self.logits > 0 and self.places == "newest":
            drawn = self._drawn(len(batch.users))
            users = batch.users if drawn is None else batch.users[drawn.to(batch.users.device)]
            newest = newest_divergence(student, teacher, users, self._seen, self.temperature, self.reverse)
            loss = loss + self.logits * newest
        return loss

    def _of_items(self, own: SequenceState, reads: SequenceReads) -> Tensor:
        """The parts that are compared item by item."""
        loss = own.embeddings.new_zeros(())
        if self.embeddings > 0:
            first = self.of_embeddings(stacked([own.embeddings], reads))
            loss = loss + self.embeddings * pair_distances(first, reads.embeddings[None], "mse")[0]
        if self.hidden > 0:
            layers = self.of_layers(stacked(own.hidden_states, reads))
            targets = torch.stack(reads.hidden_states)
            cost = layer_distances(layers, targets, self.metric, self.reverse)
            exchanged = None
            if self.reverse and self.metric == "kl":
                exchanged = layer_distances(layers.detach(), targets)
            loss = loss + self.hidden * self.transport(cost, len(layers), exchanged)
        if self.logits > 0 and self.places == "all":
            drawn = self._drawn(len(reads.rows))
            if drawn is not None:
                drawn = drawn.to(reads.rows.device)
                reads = reads.at(reads.rows[drawn], drawn)
            loss = loss + self.logits * logit_divergence(
                own, reads, self._seen, self.temperature, self.reverse
            )
        return loss

    def _drawn(self, count: int) -> Tensor | None:
        """Which of ``count`` places are compared, ascending; None for all of them."""
        if self.logit_rows is None or count <= self.logit_rows:
            return None
        return torch.randperm(count, generator=self.generator)[: self.logit_rows].sort().values

    def after_step(self) -> None:
        if self.hidden > 0:
            self.transport.after_step()

    def facts(self) -> dict[str, float]:
        return self.transport.facts() if self.hidden > 0 else {}
