"""FitNet: the golden value, projectors, drawn entities, each option, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, KNOWLEDGE, STUDENT, loss_of, set_up
from recdistill.distillers.fitnet import FitNet
from recdistill.distillers.projectors import LinearMap, MeanExperts, drop, mean_weights, squared_error
from recdistill.testing import batch_of, check_distiller

USERS = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
ITEMS = torch.tensor([[1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
TEACHER_USERS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
TEACHER_ITEMS = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(0)


def linear_map() -> LinearMap:
    """y = W x + b with W = [[1, 0], [0, 1], [½, ½]], b = [0, 0, 0.1]."""
    projector = LinearMap(2, 3, 0.0, GENERATOR).double()
    with torch.no_grad():
        projector.matrix.copy_(torch.tensor([[1, 0], [0, 1], [0.5, 0.5]]).T)
        projector.bias.copy_(torch.tensor([0, 0, 0.1]))
    return projector


def test_golden_value() -> None:
    f = linear_map()
    users = squared_error(f(USERS), TEACHER_USERS, mean_weights(USERS))
    items = squared_error(f(ITEMS), TEACHER_ITEMS, mean_weights(ITEMS))
    assert float(users.detach()) * 2 == pytest.approx(0.16 + 3.6725, abs=1e-6)
    assert float((users + items).detach()) * 2 == pytest.approx(10.615, abs=1e-6)


def test_experts_are_averaged() -> None:
    mean = MeanExperts(2, 3, width=4, num_experts=3, dropout=0.0, generator=GENERATOR).double()
    first, second = mean.first.view(2, 3, 4), mean.second.view(3, 4, 3)
    alone = [
        torch.relu(USERS @ first[:, m] + mean.first_bias.view(3, 4)[m]) @ second[m] + mean.second_bias
        for m in range(3)
    ]
    torch.testing.assert_close(mean(USERS), torch.stack(alone).mean(dim=0))


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    values = torch.ones(1000, 201)
    found = drop(values, 0.3, GENERATOR)
    assert set(found.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.7))}
    assert float((found == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    same = [drop(values, 0.3, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*same)
    assert drop(values, 0.0, GENERATOR) is values


def test_a_share_of_nearly_all_drops_nearly_all() -> None:
    found = drop(torch.ones(100_000), 0.99999999, torch.Generator().manual_seed(0))
    assert int((found != 0).sum()) < 20
    assert bool(found.isfinite().all())


def value(**options: Any) -> float:
    return loss_of(set_up(FitNet(**{"weight": 1.0, **options})))


def test_every_option_changes_the_loss() -> None:
    experts: dict[str, Any] = {"num_experts": 2}
    changes: list[dict[str, Any]] = [
        {},
        {"entities": "uniform"},
        {"normalise": True},
        {"dropout": 0.5},
        experts,
        {**experts, "hidden_ratio": 2.0},
        {**experts, "dropout": 0.5},
    ]
    found = [value(**change) for change in changes]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("entities", ["batch", "uniform"])
@pytest.mark.parametrize("num_experts", [0, 2])
def test_conforms(entities: Any, num_experts: int) -> None:
    check_distiller(
        lambda: FitNet(
            weight=1.0, entities=entities, num_experts=num_experts, dropout=0.2, normalise=num_experts == 2
        )
    )


def test_dropout_keeps_the_mean_of_the_hidden_units() -> None:
    generator = torch.Generator().manual_seed(0)
    dropped = MeanExperts(2, 3, 4, 1, 0.5, generator)
    with torch.no_grad():
        dropped.first.zero_()
        dropped.first_bias.fill_(1.0)  # every unit is 1, or 0 and then others 2
    units = dropped.hidden(torch.ones(2000, 2)).detach()
    assert units.unique().tolist() == [0.0, 2.0]
    assert float(units.mean()) == pytest.approx(1.0, abs=0.05)


def test_initial_weights_are_uniform_within_one_over_the_root_of_the_fan_in() -> None:
    made = MeanExperts(16, 3, 100, 5, 0.0, torch.Generator().manual_seed(0))
    for weight, fan_in in ((made.first, 16), (made.second, 100)):
        assert float(weight.detach().abs().max()) == pytest.approx(fan_in**-0.5, rel=0.02)


@pytest.mark.parametrize("entities", ["batch", "uniform"])
def test_the_equation_by_hand(entities: Any) -> None:
    method: Any = FitNet(weight=1.0, entities=entities)
    objective = set_up(method)
    batch, state = batch_of(INTERACTIONS), STUDENT.state()
    before = method.generator.get_state()
    found = loss_of(objective)
    method.generator.set_state(before)
    users, items = batch.users, batch.items
    if entities == "uniform":  # as many of each as the batch has rows
        users, items = (torch.randint(n, (len(batch),), generator=method.generator) for n in (40, 60))
    expected = torch.zeros(())
    for f, ids, side in ((method.users, users, "user"), (method.items, items, "item")):
        own, other = (getattr(one, f"{side}_embeddings")(ids) for one in (state, KNOWLEDGE))
        expected = expected + (own @ f.matrix + f.bias - other).square().sum(dim=1).mean()
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
