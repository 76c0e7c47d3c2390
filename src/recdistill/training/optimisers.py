"""Optimisers over tables of rows: dense Adam, Adam on touched rows, row-wise Adagrad.

Gradients may be dense or row-sparse (repeated rows allowed). On a CPU in float32 one fused kernel does a step;
elsewhere the same arithmetic runs in plain torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from recdistill import ops
from recdistill.models.base import ParameterGroup

OptimiserName = Literal["adam", "sparse-adam", "rowwise-adagrad"]


class Optimiser(Protocol):
    """What the loop needs of an optimiser."""

    def step(self) -> None: ...

    def zero_grad(self) -> None: ...

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""
        ...

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None: ...


def _rows(values: Tensor) -> Tensor:
    """A parameter as a table: the rows of a vector, or of a single number, have one column."""
    return values if values.dim() > 1 else values.view(-1, 1)


class _TableOptimiser:
    """Shared book-keeping: one state per parameter, parameters by name."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.parameters = [(name, p) for name, p in parameters if p.requires_grad]
        self.slots: dict[str, Tensor] = {}

    def zero_grad(self) -> None:
        for _, parameter in self.parameters:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        return dict(self.slots)

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, slot in self.slots.items():
            slot.copy_(tensors[name])


class Adam(_TableOptimiser):
    """Adam (Kingma & Ba, ICLR 2015) with coupled weight decay; a parameter counts the steps in which it has a gradient.

    Args:
        parameters: names and parameters.
        learning_rate: step size, above 0.
        weight_decay: L2 coefficient added to the gradient, at least 0.
        epsilon: added to the root of the second moment, above 0.
        touched_only: read and write only the rows that have a gradient (``sparse-adam``). Rows keep their
            moments while untouched, and weight decay reaches a row only when it is touched, so this is not the
            papers' optimiser; False moves every row at each step.
    """

    betas = (0.9, 0.999)

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        learning_rate: float,
        weight_decay: float,
        epsilon: float,
        touched_only: bool = False,
    ) -> None:
        super().__init__(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epsilon = epsilon
        self.touched_only = touched_only
        for name, parameter in self.parameters:
            self.slots[f"{name}.first"] = torch.zeros_like(parameter.data)
            self.slots[f"{name}.second"] = torch.zeros_like(parameter.data)
            self.slots[f"{name}.steps"] = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self.parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            rows = _rows(parameter.data)
            self.slots[f"{name}.steps"] += 1
            update = ops.adam_touched if self.touched_only else ops.adam_all
            update(
                rows,
                self.slots[f"{name}.first"].view_as(rows),
                self.slots[f"{name}.second"].view_as(rows),
                gradient if gradient.is_sparse else gradient.view_as(rows),
                step=int(self.slots[f"{name}.steps"]),
                learning_rate=self.learning_rate,
                betas=self.betas,
                epsilon=self.epsilon,
                weight_decay=self.weight_decay,
            )


class RowwiseAdagrad(_TableOptimiser):
    """Adagrad with one accumulated mean square a row, touched rows only: a float of state a row.

    Args:
        parameters: names and parameters.
        learning_rate: step size, above 0 (0.01 to 0.1 is usual: larger than Adam's).
        weight_decay: L2 coefficient on touched rows, at least 0.
        epsilon: added to the root, above 0.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        learning_rate: float,
        weight_decay: float,
        epsilon: float,
    ) -> None:
        super().__init__(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epsilon = epsilon
        for name, parameter in self.parameters:
            self.slots[f"{name}.square"] = torch.zeros(len(_rows(parameter.data)), device=parameter.device)

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self.parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            rows = _rows(parameter.data)
            ops.rowwise_adagrad(
                rows,
                self.slots[f"{name}.square"],
                gradient if gradient.is_sparse else gradient.view_as(rows),
                learning_rate=self.learning_rate,
                epsilon=self.epsilon,
                weight_decay=self.weight_decay,
            )


def make_optimiser(
    name: OptimiserName,
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    epsilon: float,
) -> Optimiser:
    """The optimiser called ``name`` over ``parameters``."""
    if name == "rowwise-adagrad":
        return RowwiseAdagrad(
            parameters, learning_rate=learning_rate, weight_decay=weight_decay, epsilon=epsilon
        )
    return Adam(
        parameters,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epsilon=epsilon,
        touched_only=name == "sparse-adam",
    )


class Several:
    """Optimisers of different parameters as one.

    Args:
        parts: by names that no other has.
    """

    def __init__(self, parts: dict[str, Optimiser]) -> None:
        self.parts = parts

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad()

    def state_tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": value
            for name, part in self.parts.items()
            for key, value in part.state_tensors().items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, part in self.parts.items():
            start = f"{name}/"
            part.load_state_tensors(
                {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
            )


def group_optimiser(
    groups: Sequence[ParameterGroup], parameters: Iterable[tuple[str, nn.Parameter]]
) -> Several:
    """Adam for each of ``groups`` over those of ``parameters`` (of a model, by name) that are its own."""
    named = list(parameters)
    return Several(
        {
            group.prefix: Adam(
                [(name, p) for name, p in named if name.startswith(group.prefix)],
                learning_rate=group.learning_rate,
                weight_decay=group.weight_decay,
                epsilon=1e-8,
            )
            for group in groups
        }
    )
