"""Kernel of ``recdistill.ops.plackett_luce``: loss and gradient of each row in one pass over its scores."""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from recdistill.ops.kernels import kernel

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@kernel(parallel=True)
def plackett_luce(
    first: Floats,
    second: Floats,
    first_length: Ints,
    second_length: Ints,
    losses: Floats,
    first_gradient: Floats,
    second_gradient: Floats,
) -> None:
    """Fill losses (n,) and the gradients, of the shapes of first (n, K) and second (n, L).

    Z_k = Σ_{j>=k} exp(S1_j) + Σ_l exp(S2_l) is kept as exp(top) * total, with top the largest score so far.
    Going from k = K down, it gives the loss Σ_k log Z_k - S1_k, the chance exp(S1_k) / Z_k of position k, and
    Z_{k+1} / Z_k. Going up again, R_k = Σ_{i<=k} Z_k / Z_i = R_{k-1} Z_k / Z_{k-1} + 1, and the gradients are
    R_k exp(S1_k) / Z_k - 1 and R_K exp(S2_l) / Z_K. No exponent is above 0 anywhere.
    """
    for row in prange(first.shape[0]):
        length = first_length[row]
        below = second_length[row]
        top = np.float32(-np.inf)
        for column in range(below):
            top = max(top, second[row, column])
        top_of_second = top
        total = 0.0
        for column in range(second.shape[1]):
            weight = np.float32(0)
            if column < below and second[row, column] != -np.inf:
                weight = math.exp(second[row, column] - top)
            second_gradient[row, column] = weight
            total += weight

        shares = np.empty(length, np.float64)  # Z_{k+1} / Z_k
        loss = 0.0
        product = 1.0  # of totals, so that one logarithm serves many of them
        scale = 0.0  # exp(top_of_second) / Z_K
        for column in range(length - 1, -1, -1):
            score = first[row, column]
            if score == -np.inf:  # has no chance at its place
                loss = np.inf
                first_gradient[row, column] = 0.0
                shares[column] = 1.0
                continue
            before = total
            weight = 1.0
            if score > top:
                before *= np.float64(math.exp(top - score))
                top = score
            else:
                weight = np.float64(math.exp(score - top))
            total = before + weight
            inverse = 1.0 / total
            first_gradient[row, column] = weight * inverse
            shares[column] = before * inverse
            loss += np.float64(top) - np.float64(score)
            product *= total
            if product > 1e250:
                loss += math.log(product)
                product = 1.0
            if column == length - 1:
                scale = np.float64(math.exp(top_of_second - top)) * inverse
        losses[row] = loss + math.log(product)

        summed = 0.0  # R_k
        for column in range(length):
            summed = summed * (shares[column - 1] if column > 0 else 0.0) + 1.0
            first_gradient[row, column] = first_gradient[row, column] * summed - 1.0
        for column in range(length, first.shape[1]):
            first_gradient[row, column] = 0.0
        for column in range(below):
            second_gradient[row, column] *= scale * summed
