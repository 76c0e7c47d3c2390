"""The metric that training selects by: the valid split, by full ranking or among sampled candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from recdistill.data.interactions import Interactions
from recdistill.errors import DataError, OptionError
from recdistill.evaluation.candidates import Negatives, candidate_ranks
from recdistill.evaluation.metrics import ACCURACY, list_metrics, rank_metrics
from recdistill.evaluation.rankers import ListRanker, Ranker, blocks, model_ranker
from recdistill.models.base import Recommender
from recdistill.ops import Rows


def validator(
    valid: Interactions,
    masked: Sequence[Interactions] = (),
    metric: str = "ndcg@10",
    negatives: Negatives | None = None,
    histories: Interactions | None = None,
) -> Callable[[Recommender], float]:
    """A function from a model to its metric, averaged over the users with a valid row.

    Args:
        valid: the pairs to be found.
        masked: pairs that are not ranked (train), their union.
        metric: ``recall``, ``ndcg``, ``mrr``, ``hit`` or ``precision``, with ``@k``.
        negatives: rank each target among these candidates of its user; None ranks all items.
        histories: what a sequence model reads of the users; what it is trained on by default.

    Returns:
        the function; it ranks in blocks, without gradient, and leaves the model's mode as it was.

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
    if negatives is not None:
        values_of = partial(_sampled, drawn=negatives, users=users, valid=valid, metric=metric, k=k)
    else:
        targets = [(block, valid.rows(block)) for block in blocks(users)]
        values_of = partial(_full, targets=targets, hidden=hidden, metric=metric, k=k)

    def validate(model: Recommender) -> float:
        training = model.training
        values = torch.cat(list(values_of(model_ranker(model, histories))))
        model.train(training)
        return float(values.mean())

    return validate


def list_validation(ids: Tensor, train: Interactions, valid: Interactions) -> dict[str, float]:
    """What :func:`validator` would find for stored lists, by full ranking, of every metric at the usual cut-offs.

    Args:
        ids: ``(U, L)``, best first, padded with −1, such pairs removed.
        train: the pairs that are not ranked.
        valid: the pairs to be found.

    Returns:
        means over the users with a valid row, at those of 5, 10, 20, 50 and 100 that the lists are long enough for.
    """
    users = (valid.user_counts > 0).nonzero().squeeze(1)
    ks = [k for k in (5, 10, 20, 50, 100) if k <= ids.shape[1]]
    if not ks or not len(users):
        return {}
    ranker = ListRanker("lists", ids, train)
    found = [list_metrics(ranker.top(block, ks[-1], train), valid.rows(block), ks) for block in blocks(users)]
    return {name: float(torch.cat([part[name] for part in found]).mean()) for name in found[0]}


def _full(
    ranker: Ranker, targets: Sequence[tuple[Tensor, Rows]], hidden: Interactions | None, metric: str, k: int
) -> Iterator[Tensor]:
    for users, rows in targets:
        yield list_metrics(ranker.top(users, k, hidden), rows, (k,))[metric]


def _sampled(
    ranker: Ranker, drawn: Negatives, users: Tensor, valid: Interactions, metric: str, k: int
) -> Iterator[Tensor]:
    for block, negatives in drawn.blocks(users):
        rows = valid.rows(block)
        ranks = candidate_ranks(ranker, block, *rows.pairs, negatives)
        yield rank_metrics(ranks, rows.indptr, (k,))[metric]


def _cut_off(metric: str) -> int:
    name, at, cut = metric.partition("@")
    if name not in ACCURACY or not at or not cut.isdecimal() or int(cut) < 1:
        raise OptionError(
            f"training.validate_metric: expected one of {', '.join(ACCURACY)} with @k, found '{metric}'",
            "for instance ndcg@10",
        )
    return int(cut)
