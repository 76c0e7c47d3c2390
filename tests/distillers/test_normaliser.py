"""The normaliser over the catalogue: every kind of student, and the sampled estimate's bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from recdistill import models, ops
from recdistill.distillers.normaliser import draw_candidates, log_normaliser
from recdistill.models.base import EmbeddingState, Recommender
from recdistill.testing import built, tiny_interactions


def direct(scores: Tensor, exclude: ops.Rows) -> Tensor:
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    owners = torch.repeat_interleave(torch.arange(len(scores)), exclude.indptr.diff())
    mask[owners, exclude.items.long()] = True
    return scores.masked_fill(mask, -torch.inf).logsumexp(dim=1)


@pytest.mark.parametrize(
    "make",
    [
        partial(models.BPR, dim=3),
        partial(models.CML, dim=3),
        partial(models.LightGCN, dim=3, num_layers=2),
        partial(models.MultVAE, dim=3),
        partial(models.NeuMF, dim=3),
        partial(models.SimpleX, dim=3),
    ],
)
@pytest.mark.parametrize("sampled", [False, True])
def test_every_kind_of_student(make: Callable[[], Recommender], sampled: bool) -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    model = built(make(), pairs).eval()  # without dropout
    users = torch.tensor([3, 0, 17])
    exclude = pairs.rows(users)
    candidates = torch.arange(40) if sampled else None
    found = log_normaliser(model.state(), users, exclude, candidates)
    found.sum().backward()
    gradients = [None if p.grad is None else p.grad.to_dense().clone() for p in model.parameters()]
    model.zero_grad()
    state = model.state()
    wanted = direct(state.scores(users) * state.score_scale, exclude)
    wanted.sum().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if parameter.grad is not None:
            assert gradient is not None
            torch.testing.assert_close(gradient, parameter.grad.to_dense(), rtol=1e-3, atol=1e-4)


def test_candidates_are_distinct_uniform_items() -> None:
    generator = torch.Generator().manual_seed(0)
    assert draw_candidates(7, 7, generator).tolist() == list(range(7))
    counts = torch.zeros(20)
    for _ in range(2000):
        drawn = draw_candidates(20, 8, generator)
        assert bool((drawn.diff() > 0).all())
        counts[drawn] += 1
    share = 1 - (19 / 20) ** 8
    assert counts.div(2000).tolist() == pytest.approx([share] * 20, abs=0.05)


def test_the_sampled_estimate_has_the_bias_that_is_documented() -> None:
    generator = torch.Generator().manual_seed(0)
    num_items, n = 2000, 100
    users, items = torch.ones(1, 1), torch.randn(num_items, 1, generator=generator)
    state = EmbeddingState(users, items)
    exclude = ops.Rows(torch.tensor([0, 3]), torch.tensor([1, 5, 8], dtype=torch.int32))
    exact = log_normaliser(state, torch.tensor([0]), exclude)
    errors = torch.cat(
        [
            log_normaliser(state, torch.tensor([0]), exclude, draw_candidates(num_items, n, generator))
            for _ in range(4000)
        ]
    ).double() - float(exact)
    spread = float(errors.std()) / math.sqrt(len(errors))
    assert float(errors.exp().mean()) == pytest.approx(1.0, abs=4 * spread)  # the sum itself has no bias
    kept = torch.ones(num_items, dtype=torch.bool)
    kept[exclude.items.long()] = False
    weights = items[kept, 0].double().exp()
    cv = float(weights.std() / weights.mean())
    assert float(errors.mean()) == pytest.approx(-(cv**2) / (2 * n), abs=4 * spread + 1e-3)
    assert float(errors.mean()) < -3 * spread


def test_nothing_left_and_nothing_drawn() -> None:
    state = EmbeddingState(torch.ones(2, 1), torch.tensor([[1.0], [2.0], [3.0]]))
    exclude = ops.Rows(torch.tensor([0, 3, 4]), torch.tensor([0, 1, 2, 0], dtype=torch.int32))
    assert log_normaliser(state, torch.tensor([0, 1]), exclude)[0] == -math.inf
    found = log_normaliser(state, torch.tensor([0, 1]), exclude, torch.tensor([0]))
    assert found.tolist() == [-math.inf, -math.inf]
    one = log_normaliser(state, torch.tensor([0, 1]), exclude, torch.tensor([0, 2]))
    assert one.tolist() == [-math.inf, pytest.approx(3 + math.log(2))]
