"""RRD: golden values, the conformance kit, and each option."""

from __future__ import annotations

import pytest
import torch

from method_cases import INTERACTIONS, set_up
from recdistill import config, models
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Objective
from recdistill.distillers.rrd import RRD, draw_positions, relaxed_ranking_loss, with_lists
from recdistill.knowledge.teacher import live
from recdistill.testing import CPU, built, check_distiller

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
    left = 60 - INTERACTIONS.user_counts  # one user has 3 left, one of them in his list; the others 37 to 60
    assert outside.tolist() == [2 if few == 3 else 6 for few in left.tolist()]
    (note,) = [line for line in notes if "end before" in line]
    assert "of 40 users the lists end before their depth, the first after 1," in note
    assert note.endswith("6 items are left to be drawn outside of each, or what there is, 2 at the fewest")


def test_lists_with_room_outside_stay_as_they_are() -> None:
    notes: list[str] = []
    method = RRD(num_interesting=4, num_uninteresting=6, depth=20)
    set_up(method, note=notes.append)
    (note,) = notes  # on the one user who has 3 items left, fewer than are to be drawn
    assert note.startswith("rrd: of 1 user the lists end")
    left = 60 - INTERACTIONS.user_counts
    assert method._lengths.tolist() == [1 if few == 3 else 20 for few in left.tolist()]


@pytest.mark.parametrize(
    ("interesting", "uninteresting", "expected"),
    [
        (4, 4, (3, 3)),  # half each
        (5, 2, (4, 2)),  # what asks for less than half gets it
        (2, 5, (2, 4)),
        (9, 9, (3, 3)),
        (2, 2, (4, 2)),  # room for both: the list is as long as may be
    ],
)
def test_interesting_and_uninteresting_items_share_what_is_left(
    interesting: int, uninteresting: int, expected: tuple[int, int]
) -> None:
    pairs = Interactions.from_events([0, 0, 0, 0, 1], [0, 1, 2, 3, 9], 2, 10)  # user 0 has 6 items left
    knowledge = live(built(models.BPR(dim=3), pairs), pairs)
    method = RRD(num_interesting=interesting, num_uninteresting=uninteresting)
    objective = Objective([method], knowledge, base_weight=0.0)
    objective.setup(built(models.BPR(dim=2), pairs), pairs, 1, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    assert int(method._lengths[0]) == expected[0]
    found = method.get_buffer("drawn")[0] >= 0
    asked = method.num_interesting
    assert (int(found[:asked].sum()), int(found[asked:].sum())) == (min(asked, expected[0]), expected[1])


def test_lists_may_hold_observed_items() -> None:
    pairs = Interactions.from_events([0, 0, 1], [1, 3, 2], 2, 6)
    found = with_lists(pairs, torch.tensor([[3, 2, -1], [5, 2, 0]]))
    assert found.indptr.tolist() == [0, 3, 6]
    assert found.items.tolist() == [1, 2, 3, 0, 2, 5]
