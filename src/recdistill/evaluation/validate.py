"""The metric that training selects by: full ranking of the valid split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from recdistill.data.interactions import Interactions
from recdistill.errors import DataError, OptionError
from recdistill.evaluation.metrics import ACCURACY, list_metrics
from recdistill.evaluation.rankers import blocks, model_ranker
from recdistill.models.base import Recommender


def validator(
    valid: Interactions, masked: Sequence[Interactions] = (), metric: str = "ndcg@10"
) -> Callable[[Recommender], float]:
    """A function from a model to its metric, averaged over the users with a valid row.

    Args:
        valid: the pairs to be found.
        masked: pairs that are not ranked (train), their union.
        metric: ``recall``, ``ndcg``, ``mrr``, ``hit`` or ``precision``, with ``@k``.

    Returns:
        the function; it ranks all items in blocks, without gradient, and leaves the model's mode as it was.

    Raises:
        OptionError: a metric that does not exist.
        DataError: no user has a valid row.
    """
    k = _cut_off(metric)
    users = (valid.user_counts > 0).nonzero().squeeze(1)
    if not len(users):
        raise DataError(
            "expected users with a valid row, found none",
            "prepare the data with a valid split, or train without validation",
        )
    hidden = masked[0].union(*masked[1:]) if masked else None
    targets = [valid.rows(block) for block in blocks(users)]

    def validate(model: Recommender) -> float:
        training = model.training
        ranker = model_ranker(model)
        values = [
            list_metrics(ranker.top(block, k, hidden), rows, (k,))[metric]
            for block, rows in zip(blocks(users), targets, strict=True)
        ]
        model.train(training)
        return float(torch.cat(values).mean())

    return validate


def _cut_off(metric: str) -> int:
    name, at, cut = metric.partition("@")
    if name not in ACCURACY or not at or not cut.isdecimal() or int(cut) < 1:
        raise OptionError(
            f"training.validate_metric: expected one of {', '.join(ACCURACY)} with @k, found '{metric}'",
            "for instance ndcg@10",
        )
    return int(cut)
