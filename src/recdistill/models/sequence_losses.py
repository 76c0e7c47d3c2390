"""Losses of next-item models: pure functions of scores.

s_p is the score of the item that came next, s_j those of the negatives; each is a mean over rows.

    sampled softmax   −s_p + log(exp(s_p) + Σ_j exp(s_j − log(k q_j)))      Jean et al., ACL 2015
    BCE               softplus(−s_p) + mean over j of softplus(s_j)         Kang and McAuley, ICDM 2018
    gBCE              (β softplus(−s_p) + Σ_j softplus(s_j)) / (k + 1)      Petrov and Macdonald, RecSys 2023
                      a = k / (I − 1),  β = a (t (1 − 1/a) + 1/a)

k is the number of negatives, q_j the chance of j to be drawn, I the number of items, t the calibration: 0 gives
BCE but for a factor, 1 calibrated probabilities. A negative that is the row's own positive is left out of the sampled
softmax, so that its sum of exponentials is that of the full softmax in expectation. β softplus(−s_p) is the published
code's loss without its detour through float64. The full softmax is :func:`recdistill.ops.softmax_cross_entropy`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def sampled_softmax(
    positives: Tensor, negatives: Tensor, log_chances: Tensor | None = None, hits: Tensor | None = None
) -> Tensor:
    """The softmax over the positive and the negatives, these weighted as a sample of all items.

    Args:
        positives: scores, shape ``(n,)``.
        negatives: scores, shape ``(n, k)``.
        log_chances: log q, shape ``(k,)`` or ``(n, k)``; None leaves the correction out.
        hits: True where a negative is the row's positive, shape ``(n, k)``.
    """
    corrected = negatives
    if log_chances is not None:
        corrected = negatives - (log_chances + math.log(negatives.shape[1]))
    if hits is not None:
        corrected = corrected.masked_fill(hits, -torch.inf)
    return (torch.cat([positives[:, None], corrected], dim=1).logsumexp(dim=1) - positives).mean()


def bce(positives: Tensor, negatives: Tensor, present: Tensor | None = None) -> Tensor:
    """Binary cross entropy, the negatives of a row averaged.

    Args:
        positives: scores, shape ``(n,)``.
        negatives: scores, shape ``(n, k)``.
        present: False where a negative is padding, shape ``(n, k)``.
    """
    present = torch.ones_like(negatives, dtype=torch.bool) if present is None else present
    other = (F.softplus(negatives) * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
    return (F.softplus(-positives) + other).mean()


def gbce(positives: Tensor, negatives: Tensor, num_items: int, calibration: float) -> Tensor:
    """Generalised binary cross entropy.

    Args:
        positives: scores, shape ``(n,)``.
        negatives: scores, shape ``(n, k)``.
        num_items: I, at least 2.
        calibration: t, within [0, 1].
    """
    k = negatives.shape[1]
    weight = gbce_weight(k, num_items, calibration)
    return ((weight * F.softplus(-positives) + F.softplus(negatives).sum(dim=1)) / (k + 1)).mean()


def gbce_weight(k: int, num_items: int, calibration: float) -> float:
    """β, the weight of the positive."""
    rate = k / (num_items - 1)
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)
