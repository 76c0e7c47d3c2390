"""Which states a training run keeps, wherever its best epoch lies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recdistill.training.trajectory import Trajectory

SHARES = (0.25, 0.5, 0.75, 1.0)


class Counter(nn.Module):
    """A model whose one number is the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("epoch", torch.zeros(()))


def kept(num_epochs: int, bests: list[int]) -> list[int]:
    """The epochs kept in a run whose best epochs are one after the other those of ``bests``."""
    model, trajectory, best, most = Counter(), Trajectory(), 0, 0
    for epoch in range(1, num_epochs + 1):
        model.get_buffer("epoch").fill_(epoch)
        best = epoch if epoch in bests or not bests else best
        trajectory.offer(epoch, model, best)
        most = max(most, len(trajectory.states))
        again = Trajectory()  # a killed run goes on with what a checkpoint holds
        again.load(trajectory.tensors())
        assert list(again.states) == list(trajectory.states)
        assert again.interval == trajectory.interval or not again.states
    assert most <= 24
    model.get_buffer("epoch").fill_(best)
    trajectory.settle(best, model.state_dict(), SHARES)
    assert all(int(state["epoch"]) == epoch for epoch, state in trajectory.states.items())
    return list(trajectory.states)


@pytest.mark.parametrize(
    ("num_epochs", "bests", "expected"),
    [
        (4, [4], [1, 2, 3, 4]),
        (115, [5, 10, 15], [4, 7, 11, 15]),  # 0.5 of 15 lies between 7 and 8
        (2000, [54, 108], [24, 56, 80, 108]),
        (200, list(range(10, 191, 10)), [48, 96, 144, 190]),
        (100, [], [24, 48, 72, 100]),  # nothing is validated: the last is the best
        (1000, [10, 990], [256, 512, 768, 990]),  # a late best after a long lull
    ],
)
def test_states_lie_at_their_shares_of_the_best_epoch(
    num_epochs: int, bests: list[int], expected: list[int]
) -> None:
    found = kept(num_epochs, bests)
    assert len(found) == len(SHARES)
    best = expected[-1]
    assert found[-1] == best
    for epoch, share in zip(found, SHARES, strict=True):
        assert abs(epoch - share * best) <= max(best / 10, 1)
    assert found == expected


def test_the_best_epoch_takes_the_place_of_no_share() -> None:
    trajectory, model = Trajectory(), nn.Linear(1, 1)
    for epoch in (1, 2, 3, 4):
        trajectory.offer(epoch, model, epoch)
    trajectory.settle(4, model.state_dict(), (0.9, 1.0))  # 3.6 is nearer to 4
    assert list(trajectory.states) == [3, 4]
