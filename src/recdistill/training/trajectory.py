"""States kept along a training run, for methods that learn from how a teacher came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

_MOST = 16


class Trajectory:
    """At most 16 evenly spaced states; when full, every second is dropped and the interval doubles."""

    def __init__(self) -> None:
        self.interval = 1
        self.states: dict[int, dict[str, Tensor]] = {}

    def offer(self, epoch: int, model: nn.Module) -> None:
        """Keep the model's state of ``epoch`` (from 1) if it falls on the interval."""
        if epoch % self.interval:
            return
        if len(self.states) == _MOST:
            self.interval *= 2
            self.states = {kept: state for kept, state in self.states.items() if kept % self.interval == 0}
            if epoch % self.interval:
                return
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
