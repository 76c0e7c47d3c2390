"""DCD: golden values of both sides, the conformance kit, and each option."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from method_cases import STUDENT, loss_of, set_up
from recdistill.distillers.base import Objective, user_list_scores
from recdistill.distillers.dcd import DCD, places_in_catalogue, places_in_list, signed_weights
from recdistill.distillers.rrd import relaxed_ranking_loss
from recdistill.errors import OptionError
from recdistill.knowledge.teacher import live
from recdistill.models.bpr import BPR
from recdistill.steps.methods import make_methods
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions

SCORES = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
LISTS = torch.tensor([[1, 2, 3], [2, 1, 0]])
INF = math.inf


def test_golden_weights() -> None:
    places = places_in_list(SCORES.gather(1, LISTS))
    assert places.tolist() == [[0, 2, 1]] * 2
    expected = torch.tensor([[0, 0.76159416, -0.76159416]] * 2)
    torch.testing.assert_close(signed_weights(places, slope=1.0), expected)


def test_golden_value_of_users() -> None:
    # user 0: item 2 too low, 3 too high; user 1: item 1 too low, 0 too high
    items = torch.tensor([[2, 3], [1, 0]])
    loss = relaxed_ranking_loss(SCORES.gather(1, items), items, num_interesting=1)
    assert float(loss) * 2 == pytest.approx(0.97407698 + 1.46328247, abs=1e-7)


def test_golden_value_of_items() -> None:
    # three users x two items; the teacher's lists of users: item 0 [0, 2, 1], item 1 [1, 0, 2]
    scores = torch.tensor([[0.5, -0.2], [0.9, 0.3], [-0.1, 0.7]], dtype=torch.float64).T
    lists = torch.tensor([[0, 2, 1], [1, 0, 2]])
    places = places_in_list(scores.gather(1, lists))
    assert places.tolist() == [[1, 2, 0]] * 2
    assert (signed_weights(places, 1.0) > 0).tolist() == [[True, True, False]] * 2
    loss = relaxed_ranking_loss(scores.gather(1, lists), lists, num_interesting=2)
    assert float(loss) * 2 == pytest.approx(4.79735382, abs=1e-7)


def test_padding_and_equal_scores_are_no_gaps() -> None:
    places = places_in_list(torch.tensor([[0.1, 0.9, -INF, -INF], [0.3, 0.3, 0.3, 0.3], [-INF] * 4]))
    assert places.tolist() == [[1, 0, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert places_in_catalogue(torch.tensor([[9, 1, 0]])).tolist() == [[8, 0, 2]]


@pytest.mark.parametrize(
    "options", [{}, {"item_weight": 0.0}, {"user_weight": 0.0}, {"ranks": "catalogue"}, {"refresh": 1}]
)
def test_conforms(options: dict[str, Any]) -> None:
    check_distiller(lambda: DCD(weight=1.0, num_drawn=3, depth=6, slope=0.5, **options))


INTERACTIONS = tiny_interactions(40, 60, seed=3)


def run(same: bool = False, epochs: int = 1, **options: Any) -> tuple[DCD, float, Objective]:
    """A method after some epochs, and its loss on one batch."""
    chosen: dict[str, Any] = {"num_drawn": 5, "depth": 20, **options}
    method = DCD(weight=1.0, **chosen)
    student = built(BPR(dim=5), INTERACTIONS, seed=9 if same else 1)
    objective = Objective([method], live(built(BPR(dim=5), INTERACTIONS, seed=9), INTERACTIONS), 0.0)
    objective.setup(student, INTERACTIONS, 10, torch.Generator().manual_seed(0), CPU)
    for epoch in range(epochs):
        objective.start_epoch(epoch)
        with torch.no_grad():
            student.parameter("user_table").mul_(-1)  # another ranking from the next refresh on
    with torch.no_grad():
        student.parameter("user_table").mul_((-1) ** epochs)
    rows = batch_of(INTERACTIONS)
    (loss,) = objective.terms(student, student.state(rows), rows).values()
    return method, float(loss.detach()), objective


def test_a_student_that_ranks_as_the_teacher_has_no_loss() -> None:
    assert run(same=True)[1] == 0.0
    assert run(same=True, ranks="catalogue", item_weight=0.0)[1] == 0.0
    assert run()[1] > 0


def test_draws_are_mis_ranked_in_the_teachers_order_and_on_one_side() -> None:
    method, _, _ = run(num_drawn=15)  # of lists of 20: not all can be filled
    users = torch.arange(40)
    drawn = method._draw("item", users)
    lists, gaps = method.get_buffer("item_lists").long(), method.get_buffer("item_gaps")
    for user in users.tolist():
        listed = lists[user].tolist()
        places = [
            [listed.index(item) for item in side.tolist() if item >= 0] for side in drawn[user].split(15)
        ]
        for sign, side in zip((1, -1), places, strict=True):
            assert all(sign * float(gaps[user, place]) > 0 for place in side)
            assert side == sorted(set(side))
            assert len(side) == min(15, int((sign * gaps[user] > 0).sum()))
        assert not set(places[0]) & set(places[1])


def test_each_step_draws_anew() -> None:
    method, _, _ = run()
    users = torch.arange(40)
    first, second = (method._draw("item", users) for _ in range(2))
    assert not torch.equal(first, second)


def test_sides_add_up() -> None:
    options: dict[str, Any] = {"num_drawn": 30}  # all that are mis-ranked, so nothing is left to chance
    users = run(item_weight=0.0, **options)[1]
    items = run(user_weight=0.0, **options)[1]
    assert run(user_weight=0.5, item_weight=2.0, **options)[1] == pytest.approx(0.5 * users + 2 * items)
    with pytest.raises(OptionError, match="both 0"):
        DCD(user_weight=0.0, item_weight=0.0)


@pytest.mark.parametrize(
    "options", [{"num_drawn": 6}, {"depth": 30}, {"ranks": "catalogue"}, {"slope": 0.01}]
)
def test_every_option_changes_the_loss(options: dict[str, Any]) -> None:
    assert run(**options)[1] != run()[1]


def test_refresh() -> None:
    def gaps(epochs: int, refresh: int) -> torch.Tensor:
        return run(epochs=epochs, refresh=refresh)[0].get_buffer("user_gaps").clone()

    first = gaps(1, 2)
    assert torch.equal(first, gaps(2, 2))
    assert not torch.equal(first, gaps(2, 1))


def test_a_run_resumed_within_an_epoch_goes_on_the_same() -> None:
    method, _, objective = run(epochs=2)
    saved, generator = objective.state_dict(), method.generator.get_state()
    batch = batch_of(INTERACTIONS)
    student = built(BPR(dim=5), INTERACTIONS)
    (expected,) = objective.terms(student, student.state(batch), batch).values()
    again = Objective([DCD(weight=1.0, num_drawn=5, depth=20)], objective.knowledge, 0.0)
    fresh = torch.Generator()
    again.setup(student, INTERACTIONS, 10, fresh, CPU)
    again.load_state_dict(saved)
    fresh.set_state(generator)
    (found,) = again.terms(student, student.state(batch), batch).values()
    assert torch.equal(found, expected)


def test_the_preset_adds_a_relaxed_ranking_term() -> None:
    assert [method.method_name() for method in make_methods("rrd-dcd")] == ["rrd", "dcd"]


def test_the_item_side_ranks_users_for_the_positives() -> None:
    method = DCD(weight=1.0, user_weight=0.0, num_drawn=30, depth=20)  # all that are mis-ranked
    objective = set_up(method)
    batch = batch_of(INTERACTIONS)
    users = method._draw("user", batch.unique_positives)
    scores = user_list_scores(STUDENT.state(), batch.unique_positives, users)
    expected = float(relaxed_ranking_loss(scores, users, method.num_drawn).detach())
    assert loss_of(objective) == pytest.approx(expected)
