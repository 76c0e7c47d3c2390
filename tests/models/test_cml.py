"""CML: golden distances and hinge, the ball, the conformance kit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from recdistill.distillers.rrd import RRD
from recdistill.models.cml import CML, CMLState, covariance_loss, hinge_loss, project_rows
from recdistill.testing import batch_of, built, check_distiller, check_model, tiny_interactions

USERS = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
ITEMS = torch.tensor([[1.0, 1.0], [0.5, -1.0], [0.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)


def test_golden_value() -> None:
    # row 0: d² of item 2 is 5, of item 0 is 1; row 1: item 3 is 2.5, item 1 is 4: max(0, 1 + 5 - 1) and 0
    scores = CMLState(USERS, ITEMS).scores(torch.arange(2), torch.tensor([[2, 0], [3, 1]]))
    assert scores.tolist() == [[-5.0, -1.0], [-2.5, -4.0]]
    assert float(hinge_loss(scores, 1.0)) * 2 == pytest.approx(5.0)


def test_rank_weight_is_the_log_of_the_estimated_rank() -> None:
    scores = torch.tensor([[-1.0, -1.5, -3.0]])  # one of two negatives is inside the margin of 1
    assert float(hinge_loss(scores, 1.0, num_items=14)) == pytest.approx(math.log(1 + 7) * (0.5 + 0) / 2)
    assert float(hinge_loss(scores, 1.0)) == pytest.approx(0.25)


def test_covariance_of_uncorrelated_columns_is_0() -> None:
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(covariance_loss(square)) == 0
    line = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])  # covariance 2, twice in the matrix
    assert float(covariance_loss(line)) == pytest.approx(8.0)


def test_projection_moves_outer_rows_only_and_is_done_once() -> None:
    table = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    project_rows(table, 1.0)
    torch.testing.assert_close(table, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    assert table[1].tolist() == torch.tensor([0.3, 0.4]).tolist()
    torch.manual_seed(0)
    many = torch.randn(1000, 7)
    project_rows(many, 0.5)
    again = many.clone()
    project_rows(again, 0.5)
    assert torch.equal(many, again)
    assert float(many.norm(dim=1).max()) <= 0.5


def test_a_state_is_of_projected_tables_and_eval_changes_nothing() -> None:
    model = built(CML(dim=3, max_norm=0.7), tiny_interactions())
    assert float(model.parameter("item_table").detach().norm(dim=1).max()) > 0.7
    model.state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert float(before["item_table"].norm(dim=1).max()) <= 0.7
    model.frozen()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_gradients_of_few_rows_stay_row_sparse() -> None:
    pairs = tiny_interactions(200, 300)
    model = built(CML(dim=3), pairs)
    batch = batch_of(pairs, rows=3)
    model.loss(model.state(batch), batch).backward()
    for side in ("user_table", "item_table"):
        gradient = model.parameter(side).grad
        assert gradient is not None
        assert gradient.is_sparse


def test_options_change_the_loss() -> None:
    pairs = tiny_interactions()
    batch = batch_of(pairs)

    def loss(**options: Any) -> float:
        model = built(CML(dim=3, **options), pairs, scale=1.0)
        return float(model.loss(model.state(batch), batch).detach())

    plain = loss()
    for options in ({"margin": 0.5}, {"rank_weight": True}, {"covariance_weight": 2.0}, {"max_norm": 0.3}):
        assert loss(**options) != plain, options
    assert built(CML(score_scale=3.0), pairs).frozen().score_scale == 3.0


@pytest.mark.parametrize(
    "options", [{}, {"num_negatives": 3, "rank_weight": True, "covariance_weight": 1.0, "max_norm": 0.5}]
)
def test_conforms(options: dict[str, Any]) -> None:
    check_model(lambda: CML(dim=3, **options))


def test_is_a_student_of_list_wise_methods() -> None:
    check_distiller(lambda: RRD(num_interesting=3, num_uninteresting=4, depth=5), lambda: CML(dim=3))


def test_the_estimated_rank_is_rounded_down() -> None:
    scores = torch.tensor([[-1.0, -1.5, -3.0, -3.0]])  # one of three: 14 / 3 = 4.67
    assert float(hinge_loss(scores, 1.0, num_items=14)) == pytest.approx(math.log(1 + 4) * 0.5 / 3)


def test_the_covariance_is_over_users_and_items() -> None:
    pairs = tiny_interactions()
    batch = batch_of(pairs)
    losses = []
    for weight in (0.0, 2.0):
        model: Any = built(CML(dim=3, covariance_weight=weight), pairs)
        losses.append(float(model.loss(model.state(batch), batch).detach()))
    vectors = torch.cat([model.user_table[batch.users], model.item_table[batch.items]]).detach()
    assert losses[1] - losses[0] == pytest.approx(2 * float(covariance_loss(vectors)), rel=1e-4)
