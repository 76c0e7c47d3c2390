"""How to train: the options of the one loop."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from recdistill.config import validated
from recdistill.training.optimisers import OptimiserName

_METRICS = ("ndcg", "recall", "mrr", "hit", "precision")


def _metric(text: str) -> str:
    name, at, cut = text.partition("@")
    if name in _METRICS and at and cut.isdecimal() and int(cut) > 0:
        return text
    near = difflib.get_close_matches(name, _METRICS, n=1)
    such = f"{near[0] if near else 'ndcg'}@{cut if cut.isdecimal() and int(cut) > 0 else 10}"
    raise ValueError(f"expected {', '.join(_METRICS)} with @k, such as {such}")


def _ascending(shares: tuple[float, ...]) -> tuple[float, ...]:
    if list(shares) != sorted(set(shares)):
        raise ValueError("expected shares in ascending order, each once, such as [0.25, 0.5, 1.0]")
    return shares


class TrainingOptions:
    """How to train.

    Losses are means over a batch's rows. A published setting that sums over a batch of B rows is matched by
    ``weight_decay / B`` and ``epsilon / B``: the papers' 1e-3 at B = 2,048 is 5e-7 here.

    Args:
        epochs: the most epochs, at least 1.
        batch_size: rows a step, at least 1 (papers: 1,024 or 2,048).
        learning_rate: step size, above 0 (papers: 1e-3).
        weight_decay: L2 coefficient in the gradient of every parameter, at least 0.
        optimiser: ``adam`` moves every row at each step as the papers do; ``sparse-adam`` and
            ``rowwise-adagrad`` read and write only the rows that a step touches, for large tables.
        epsilon: Adam's, above 0 (papers: 1e-8 on a summed loss, so 1e-8 / B here).
        patience: validations without a better metric before the run stops, at least 1 (papers: 20). They count from
            the end of a method's schedule (HetComp's teachers at their final states).
        validate_every: epochs between validations, at least 1.
        validate_metric: what is validated, ``name@k``.
        validate_negatives: rank each valid row among so many unobserved items of its user, at least 1, for runs
            that are judged by sampled candidates; full ranking without it.
        precision: ``bf16`` runs matrix products in bfloat16 under autocast.
        trajectory: shares of the best epoch whose states are kept, in (0, 1], ascending, e.g.
            ``(.25, .5, .75, 1)``.
        checkpoint_seconds: least time between two checkpoints, at least 0.
    """

    @validated
    def __init__(
        self,
        *,
        epochs: Annotated[int, Field(ge=1)] = 200,
        batch_size: Annotated[int, Field(ge=1)] = 2048,
        learning_rate: Annotated[float, Field(gt=0)] = 1e-3,
        weight_decay: Annotated[float, Field(ge=0)] = 5e-7,
        optimiser: OptimiserName = "adam",
        epsilon: Annotated[float, Field(gt=0)] = 5e-12,
        patience: Annotated[int, Field(ge=1)] = 20,
        validate_every: Annotated[int, Field(ge=1)] = 1,
        validate_metric: Annotated[str, AfterValidator(_metric)] = "ndcg@10",
        validate_negatives: Annotated[int, Field(ge=1)] | None = None,
        precision: Literal["float32", "bf16"] = "float32",
        trajectory: Annotated[
            tuple[Annotated[float, Field(gt=0, le=1)], ...], AfterValidator(_ascending)
        ] = (),
        checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.optimiser: OptimiserName = optimiser
        self.epsilon = epsilon
        self.patience = patience
        self.validate_every = validate_every
        self.validate_metric = validate_metric
        self.validate_negatives = validate_negatives
        self.precision = precision
        self.trajectory = trajectory
        self.checkpoint_seconds = checkpoint_seconds

    options: dict[str, Any]
