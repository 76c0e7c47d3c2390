"""BPR: golden value and the conformance kit."""

from __future__ import annotations

import pytest
import torch

from method_cases import INTERACTIONS
from recdistill.models.bpr import BPR, bpr_loss
from recdistill.models.sampling import pair_batches
from recdistill.testing import check_model


def test_golden_value() -> None:
    # user 0: item 0 over 2 (1.0, -0.5); user 1: item 3 over 1 (0.4, -1.0); the sum is .42183069
    scores = torch.tensor([[1.0, -0.5], [0.4, -1.0]], dtype=torch.float64)
    assert float(bpr_loss(scores)) * 2 == pytest.approx(0.20141328 + 0.22041741, abs=1e-7)


def test_a_gap_of_200_is_finite() -> None:
    scores = torch.tensor([[-100.0, 100.0]], requires_grad=True)
    loss = bpr_loss(scores)
    loss.backward()
    assert float(loss.detach()) == 200.0
    assert scores.grad is not None
    assert scores.grad.tolist() == [[-1.0, 1.0]]


def test_several_negatives_are_averaged() -> None:
    scores = torch.tensor([[1.0, -0.5, 0.3]])
    expected = (torch.nn.functional.softplus(torch.tensor([-1.5, -0.7]))).mean()
    torch.testing.assert_close(bpr_loss(scores), expected)


@pytest.mark.parametrize("num_negatives", [1, 3])
def test_conforms(num_negatives: int) -> None:
    check_model(lambda: BPR(dim=3, num_negatives=num_negatives))


def test_the_order_of_an_epoch_follows_the_generator() -> None:
    first, same, other = (
        torch.cat([b.positives for b in pair_batches(INTERACTIONS, 7, 1, torch.Generator().manual_seed(s))])
        for s in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
