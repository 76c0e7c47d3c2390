"""States kept along a training run, for methods that learn from how a teacher came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

_EARLY, _LATE = 16, 8


class Trajectory:
    """States on a grid of epochs: at most 16 up to the best epoch so far, and 8 after it, which may become the best.

    When a part is full its grid doubles. What is kept up to the best epoch does not thin out while later ones pass.
    """

    def __init__(self) -> None:
        self.interval = 1
        self.states: dict[int, dict[str, Tensor]] = {}

    def offer(self, epoch: int, model: nn.Module, best_epoch: int) -> None:
        """Keep the model's state of ``epoch`` (from 1) if it falls on the grid; ``best_epoch`` is the best so far."""
        if best_epoch == epoch:
            while len(self.states) >= _EARLY:
                kept = {old: state for old, state in self.states.items() if old % self.interval == 0}
                if len(kept) == len(self.states):
                    self.interval *= 2
                self.states = kept
        elif sum(old > best_epoch for old in self.states) == _LATE and epoch % self.interval == 0:
            self.interval *= 2
            self.states = {
                old: state
                for old, state in self.states.items()
                if old < best_epoch or old % self.interval == 0
            }
        if epoch % self.interval == 0:
            self.states[epoch] = {
                name: value.detach().cpu().clone() for name, value in model.state_dict().items()
            }

    def settle(self, best_epoch: int, best: Mapping[str, Tensor], shares: Sequence[float]) -> None:
        """Keep only the states nearest to ``shares`` of the best epoch, in order, and last the best itself."""
        kept: dict[int, dict[str, Tensor]] = {best_epoch: {name: value.cpu() for name, value in best.items()}}
        for share in sorted(shares):
            within = [epoch for epoch in self.states if epoch < best_epoch]
            if within and share < 1:
                nearest = min(within, key=lambda epoch: (abs(epoch - share * best_epoch), epoch))
                kept[nearest] = self.states[nearest]
        self.states = dict(sorted(kept.items()))

    def tensors(self) -> dict[str, Tensor]:
        """Everything, flat, for a checkpoint."""
        return {
            f"{self.interval}:{epoch}:{name}": value
            for epoch, state in self.states.items()
            for name, value in state.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Read back what :meth:`tensors` gave."""
        self.states = {}
        for key, value in tensors.items():
            interval, epoch, name = key.split(":", 2)
            self.interval = int(interval)
            self.states.setdefault(int(epoch), {})[name] = value
