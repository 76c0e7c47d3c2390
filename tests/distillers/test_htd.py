"""HTD: golden values, groups against the matrix of pairs, each option, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from method_cases import INTERACTIONS, KNOWLEDGE, loss_of, set_up
from method_cases import STUDENT as MODEL
from recdistill.distillers import relations
from recdistill.distillers.htd import HTD, group_error, prototypes, topology_loss
from recdistill.distillers.projectors import unit_rows
from recdistill.distillers.relations import relation_error
from recdistill.testing import batch_of, check_distiller

# users 0, 1 and items 0, 1; users are of group 0, items of group 2
STUDENT = torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
TEACHER = torch.tensor(
    [[1.0, 0.0, 1.0], [0.0, 1.0, -1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64
)
GROUPS = torch.tensor([0, 0, 2, 2])


def entity(positive_only: bool) -> float:
    return float(relation_error(unit_rows(STUDENT), unit_rows(TEACHER), [2, 2], positive_only))


def group(level: str) -> float:
    place, sizes = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 2])
    groups = prototypes(STUDENT, place, sizes), prototypes(TEACHER, place, sizes)
    return float(group_error(unit_rows(STUDENT), groups[0], unit_rows(TEACHER), groups[1], level))


def test_golden_values_of_both_levels() -> None:
    # within groups: users' teacher cosine is negative, so 2 pairs (i = i) are left, and 4 of the items
    assert entity(positive_only=True) * 6 == pytest.approx(1.33245553, abs=1e-8)
    assert entity(positive_only=False) * 8 == pytest.approx(3.12688272, abs=1e-8)
    assert group("first") * 4 == pytest.approx(0.00230862, abs=1e-8)
    assert group("second") * 8 == pytest.approx(1.04008257, abs=1e-8)


@pytest.mark.parametrize(
    ("level", "positive_only", "expected"),
    [
        ("second", True, 1.33245553 / 6 + 1.04008257 / 8),
        ("first", True, 1.33245553 / 6 + 0.00230862 / 4),
        ("second", False, 3.12688272 / 8 + 1.04008257 / 8),
        ("first", False, 3.12688272 / 8 + 0.00230862 / 4),
    ],
)
def test_golden_values_of_the_topology(level: str, positive_only: bool, expected: float) -> None:
    order = torch.tensor([2, 0, 3, 1])  # groups need not come sorted
    loss = topology_loss(STUDENT[order], TEACHER[order], GROUPS[order], level, positive_only)
    assert float(loss) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("positive_only", [True, False])
def test_groups_are_the_blocks_of_the_matrix_of_pairs(
    positive_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relations, "_BLOCK_ROWS", 6)
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(30, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    t = unit_rows(torch.randn(30, 6, dtype=torch.float64, generator=generator))
    s = unit_rows(student)
    place = torch.repeat_interleave(torch.arange(3), torch.tensor([20, 1, 9]))
    wanted = t @ t.T
    counted = (place[:, None] == place) & ((wanted > 0) | (not positive_only))
    expected = ((s @ s.T - wanted).square() * counted).sum() / counted.sum()
    found = relation_error(s, t, [20, 1, 9], positive_only)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_groups_against_groups_have_no_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    place, sizes = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 2])
    assert not prototypes(student, place, sizes).requires_grad


def value(**options: Any) -> float:
    chosen = {"weight": 1.0, "num_groups": 3, "gamma": 0.5, "anneal_epochs": 5, **options}
    return loss_of(set_up(HTD(**chosen), epochs=3))


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {"gamma": 0.9},
        {"num_groups": 2},
        {"level": "first"},
        {"positive_only": False},
        {"anneal_epochs": 50},
    ]
    found = [value(), *(value(**change) for change in changes)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("level", ["first", "second"])
@pytest.mark.parametrize("positive_only", [True, False])
def test_conforms(level: Any, positive_only: bool) -> None:
    check_distiller(
        lambda: HTD(weight=1.0, num_groups=3, gamma=0.5, level=level, positive_only=positive_only),
        stops_gradients=True,  # groups' means are held fixed
    )


def test_the_assignments_gradient_reaches_the_student() -> None:
    check_distiller(lambda: HTD(weight=1.0, num_groups=3, gamma=0.0))


@pytest.mark.parametrize("positive_only", [True, False])
def test_the_topologys_gradient_with_groups_held_fixed(positive_only: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, other = (torch.randn(7, d, generator=generator, dtype=torch.float64) for d in (3, 5))
    own, theirs = (unit_rows(torch.randn(2, d, generator=generator, dtype=torch.float64)) for d in (3, 5))

    def loss(s: torch.Tensor) -> torch.Tensor:
        s, t = unit_rows(s), unit_rows(other)
        return relation_error(s, t, [4, 3], positive_only) + group_error(s, own, t, theirs, "second")

    assert torch.autograd.gradcheck(loss, vectors.requires_grad_())


def test_users_and_items_share_no_group() -> None:
    method: Any = HTD(weight=1.0, gamma=1.0, num_groups=1, positive_only=False)
    objective = set_up(method)
    batch = batch_of(INTERACTIONS)
    users, items = batch.users, batch.items
    tables = [
        torch.cat([state.user_embeddings(users), state.item_embeddings(items)]).detach()
        for state in (MODEL.state(), KNOWLEDGE)
    ]
    groups = torch.cat([torch.zeros(len(users)), torch.ones(len(items))]).long()
    expected = topology_loss(*tables, groups, "second", False)
    (found,) = objective.terms(MODEL, MODEL.state(batch), batch).values()
    torch.testing.assert_close(found.detach(), expected)


def test_the_temperature_starts_at_1_and_falls() -> None:
    found = []
    for epochs in (1, 2, 6):
        method = HTD(num_groups=2, anneal_epochs=5)
        set_up(method, epochs=epochs)
        found.append(float(method.get_buffer("temperature")))
    assert found == pytest.approx([1.0, 1e-2, 1e-10])


def test_pairs_of_cosine_0_do_not_count() -> None:
    s = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    t = torch.eye(2)  # the pair of different ones has a cosine of 0
    assert float(relation_error(s, t, [2], True)) == 0.0
    assert float(relation_error(s, t, [2], False)) == pytest.approx(2 * 0.36 / 4)


def test_wide_teachers_by_blocks_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "_BLOCK_ROWS", 4)
    generator = torch.Generator().manual_seed(0)
    s, t = (unit_rows(torch.randn(40, d, generator=generator, dtype=torch.float64)) for d in (3, 11))
    expected = (s @ s.T - t @ t.T).square().mean()
    torch.testing.assert_close(relations.relation_error(s, t, [40], False), expected)


def test_gamma_is_the_share_of_the_topology() -> None:
    found = [loss_of(set_up(HTD(weight=1.0, num_groups=3, gamma=gamma))) for gamma in (0.0, 1.0, 0.9)]
    assert found[2] == pytest.approx(0.1 * found[0] + 0.9 * found[1], rel=1e-5)
    assert found[1] < found[0]  # squared differences of cosines against those of vectors
