"""DE: golden values, annealing, weights of positives and negatives, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from method_cases import INTERACTIONS, KNOWLEDGE, loss_of, set_up
from method_cases import STUDENT as MODEL
from recdistill.distillers.de import DE
from recdistill.distillers.projectors import annealed, item_weights, select
from recdistill.models.sampling import make_batch
from recdistill.ops.experts import Experts, mixture_error, mixture_reference
from recdistill.testing import batch_of, check_distiller

STUDENT = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
SELECTION = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
NOISE = torch.tensor([[0.1, -0.2], [0.3, 0.0]], dtype=torch.float64)
EXPERTS = Experts(
    first=torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, -1.0]]], dtype=torch.float64),
    first_bias=torch.zeros(2, 2, dtype=torch.float64),
    # second maps hidden to teacher: the transposes of [[1,0],[0,1],[1,1]] and [[.5,0],[0,.5],[0,0]]
    second=torch.tensor(
        [[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]], dtype=torch.float64
    ),
    second_bias=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64),
)


def per_user(temperature: float) -> tuple[torch.Tensor, list[float]]:
    z = select(TEACHER @ SELECTION.T, NOISE, temperature)
    ones = torch.ones(1, dtype=torch.float64)
    rows = [slice(0, 1), slice(1, 2)]
    return z, [float(mixture_error(STUDENT[r], z[r], EXPERTS, TEACHER[r], ones)) for r in rows]


def test_golden_values_of_soft_selection() -> None:
    z, losses = per_user(0.5)
    expected = torch.tensor([[0.64565631, 0.35434369], [0.93086158, 0.06913842]], dtype=torch.float64)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-7)
    assert losses == pytest.approx([0.06277973, 6.35071246], abs=1e-7)
    assert sum(losses) == pytest.approx(6.41349219, abs=1e-7)


def test_golden_values_of_one_hot_selection() -> None:
    z, losses = per_user(1e-10)
    assert z.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert losses == pytest.approx([0.0, 6.5], abs=1e-7)


def test_the_norms_of_the_paper() -> None:
    ones = torch.ones(2, dtype=torch.float64)
    z, losses = per_user(0.5)
    found = float(mixture_error(STUDENT, z, EXPERTS, TEACHER, ones, squared=False))
    assert found == pytest.approx(sum(loss**0.5 for loss in losses), abs=1e-9)  # .25056 + 2.52006
    assert found == pytest.approx(0.250559 + 2.520062, abs=1e-5)


def test_golden_value_of_de_and_rrd_together() -> None:
    # 0.01 · DE on the two users + 0.001 · RRD, as sums
    assert 0.01 * sum(per_user(0.5)[1]) + 0.001 * 3.65652342 == pytest.approx(0.06779145, abs=1e-8)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 1.0), (100, 0.1), (500, 1e-5), (999, 1.02e-10), (2000, 1e-10)]
)
def test_annealing(epoch: int, expected: float) -> None:
    assert annealed(epoch, 1000) == pytest.approx(expected, rel=5e-3)


def test_positives_and_negatives_share_the_weight() -> None:
    # positives {1, 2}, negatives {2, 3, 4}: ½ · mean over 2, ½ · mean over 3, item 2 is in both
    batch = make_batch(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), torch.tensor([[3], [2], [4]]), 2, 6)
    assert batch.items.tolist() == [1, 2, 3, 4]
    expected = torch.tensor([1 / 4, 1 / 4 + 1 / 6, 1 / 6, 1 / 6])
    torch.testing.assert_close(item_weights(batch), expected)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("num_experts", [1, 3])
def test_conforms(num_experts: int, squared: bool) -> None:
    check_distiller(lambda: DE(weight=1.0, num_experts=num_experts, anneal_epochs=5, squared=squared))


@pytest.mark.parametrize("squared", [True, False])
def test_the_equation_by_hand(squared: bool) -> None:
    method: Any = DE(weight=1.0, num_experts=3, squared=squared)
    objective = set_up(method)
    batch, state = batch_of(INTERACTIONS), MODEL.state()
    before = method.generator.get_state()
    found = loss_of(objective)
    method.generator.set_state(before)

    def errors(part: Any, side: str, ids: Tensor) -> Tensor:
        own, other = (getattr(one, f"{side}_embeddings")(ids) for one in (state, KNOWLEDGE))
        z = select(part.logits(other), part.noise(len(ids), method.generator), 1.0)
        experts = Experts(part.first, part.first_bias, part.second, part.second_bias)
        found = (mixture_reference(own, z, experts) - other).square().sum(dim=1)
        return found if squared else found.sqrt()

    of_users, of_items = errors(method.users, "user", batch.users), errors(method.items, "item", batch.items)
    sides = [
        of_items[torch.isin(batch.items, ids)].mean()
        for ids in (batch.unique_positives, batch.unique_negatives)
    ]
    assert found == pytest.approx(float((of_users.mean() + (sides[0] + sides[1]) / 2).detach()), rel=1e-4)
