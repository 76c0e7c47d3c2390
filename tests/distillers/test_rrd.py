"""RRD: golden values, the conformance kit, and each option."""

from __future__ import annotations

import pytest
import torch

from method_cases import INTERACTIONS, set_up
from recdistill import config
from recdistill.data.interactions import Interactions
from recdistill.distillers.rrd import RRD, draw_positions, relaxed_ranking_loss, with_lists
from recdistill.testing import check_distiller

SCORES = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)


def test_golden_value() -> None:
    # user 0: teacher's 1, 2 over 3; user 1: 2, 1 over 0; the sum over both users is 3.65652342
    items = torch.tensor([[1, 2, 3], [2, 1, 0]])
    loss = relaxed_ranking_loss(SCORES.gather(1, items), items, num_interesting=2)
    assert float(loss) * 2 == pytest.approx(1.65434665 + 2.00217677, abs=1e-7)


def test_golden_value_with_several_uninteresting_items() -> None:
    scores = torch.tensor([[0.5, -0.5, 0.0, 1.0, 0.2]], dtype=torch.float64)
    loss = relaxed_ranking_loss(scores, torch.arange(5)[None], num_interesting=3)
    assert float(loss) == pytest.approx(5.28379475, abs=1e-7)


def test_padding_changes_nothing() -> None:
    items = torch.tensor([[1, 2, -1, 3, -1]])
    scores = torch.tensor([[0.5, -0.5, 99.0, 0.0, 99.0]], dtype=torch.float64)
    loss = relaxed_ranking_loss(scores, items, num_interesting=3)
    assert float(loss) == pytest.approx(1.65434665, abs=1e-7)


@pytest.mark.parametrize("sampling", ["position", "none"])
def test_conforms(sampling: str) -> None:
    check_distiller(
        lambda: RRD(
            weight=1.0, num_interesting=3, num_uninteresting=4, depth=5, temperature=2.0, sampling=sampling
        )
    )


def drawn(method: RRD, epochs: int = 1) -> torch.Tensor:
    set_up(method, epochs=epochs)
    return method.get_buffer("drawn").clone()


def test_without_sampling_the_first_items_of_the_list_are_taken() -> None:
    method = RRD(num_interesting=4, num_uninteresting=2, depth=8, sampling="none")
    found = drawn(method)
    everyone = torch.arange(40)
    top = method._top[everyone, :4]
    assert torch.equal(found[:, :4], top)


def test_uninteresting_items_are_neither_observed_nor_in_the_list() -> None:
    method = RRD(num_interesting=4, num_uninteresting=6, depth=8)
    found = drawn(method)
    taken = with_lists(INTERACTIONS, method._top)
    users = torch.arange(40)[:, None].expand(40, 6).reshape(-1)
    others = found[:, 4:].reshape(-1).long()
    present = others >= 0
    assert bool(present.any())
    assert not bool(taken.contains(users[present], others[present]).any())


def test_interesting_items_keep_the_teachers_order() -> None:
    positions = draw_positions(torch.tensor([30, 2, 0]), 5, "position", 3.0, torch.Generator().manual_seed(0))
    assert bool((positions[0].diff() > 0).all())
    assert positions[1].tolist() == [0, 1, -1, -1, -1]
    assert positions[2].tolist() == [-1] * 5


def test_a_low_temperature_draws_the_top() -> None:
    lengths = torch.full((200,), 50)
    generator = torch.Generator().manual_seed(0)
    cold = draw_positions(lengths, 5, "position", 0.1, generator).double().mean()
    warm = draw_positions(lengths, 5, "position", 50.0, generator).double().mean()
    assert float(cold) == pytest.approx(2.0)
    assert float(warm) > 10


def test_resample_every() -> None:
    kept = RRD(num_interesting=4, num_uninteresting=4, depth=20, resample_every=2)
    first, second, third = (drawn(kept, epochs) for epochs in (1, 2, 3))
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("method", ["rrd", "sld"])
def test_lists_longer_than_the_catalogue_leave_the_uninteresting_items_outside(method: str) -> None:
    made = config.find("distillers", method)(num_interesting=4, num_uninteresting=6, depth=500)
    notes: list[str] = []
    set_up(made, note=notes.append)
    outside = (made.get_buffer("drawn")[:, -6:] >= 0).sum(dim=1)
    left = 60 - INTERACTIONS.user_counts  # one user has 3 left, all of them in his list; the others 37 to 60
    assert outside.tolist() == [0 if few == 3 else 6 for few in left.tolist()]
    (note,) = [line for line in notes if "end before their depth" in line]
    assert "the lists of 39 users end before their depth, the first after 31," in note


def test_lists_with_room_outside_stay_as_they_are() -> None:
    notes: list[str] = []
    method = RRD(num_interesting=4, num_uninteresting=6, depth=20)
    set_up(method, note=notes.append)
    assert notes == []
    assert method._lengths.tolist() == (60 - INTERACTIONS.user_counts).clamp(max=20).tolist()


def test_where_less_is_left_than_is_drawn_the_list_comes_first() -> None:
    method = RRD(num_interesting=40, num_uninteresting=40, depth=500)
    found = drawn(method) >= 0
    left = 60 - INTERACTIONS.user_counts
    assert torch.equal(found[:, :40].sum(dim=1), left.clamp(max=40))
    assert torch.equal(found[:, 40:].sum(dim=1), (left - 40).clamp(min=0))


def test_lists_may_hold_observed_items() -> None:
    pairs = Interactions.from_events([0, 0, 1], [1, 3, 2], 2, 6)
    found = with_lists(pairs, torch.tensor([[3, 2, -1], [5, 2, 0]]))
    assert found.indptr.tolist() == [0, 3, 6]
    assert found.items.tolist() == [1, 2, 3, 0, 2, 5]
