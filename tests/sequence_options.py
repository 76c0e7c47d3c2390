"""What the tests of all sequence models share: their common options, and that each option changes the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recdistill.models.sequential import SequenceModel
from recdistill.testing import built, tiny_sequences

Options = dict[str, Any]

SHARED: list[Options] = [
    {},
    {"head": "untied"},
    {"samples": "windows", "max_length": 5},
    {"samples": "prefix", "max_length": 6},
    {"loss": "bce"},
    {"loss": "gbce", "num_negatives": 3},
    {"loss": "sampled-softmax", "num_negatives": 5, "popularity": 0.5},
]
"""Options of windows, tables and losses that every sequence model has."""


def check_every_option(make: Callable[..., SequenceModel], own: list[Options]) -> None:
    """Assert that the losses of one epoch change with each option: with it alone, and without it among others.

    Args:
        make: the model of some options.
        own: sets of the model's own options, tried beside :data:`SHARED`.
    """
    data = tiny_sequences()

    def losses(options: Options) -> list[float]:
        torch.manual_seed(0)
        model = built(make(**options), data, scale=4.0).train()
        batches = model.batches(data, 1000, torch.Generator().manual_seed(1))
        return [float(model.loss(model.state(batch), batch).detach()) for batch in batches]

    default = losses({})
    singles: list[Options] = [{"dim": 6}, {"max_length": 7}, {"init_std": 0.03}]
    calibrated: Options = {"loss": "gbce", "num_negatives": 3, "calibration": 0.1}
    for options in [*SHARED[1:], *own, *singles, calibrated]:
        found = losses(options)
        assert found != default, options
        for name in options if len(options) > 1 else ():
            others = {other: value for other, value in options.items() if other != name}
            assert found != losses(others), f"{name} changes nothing in {options}"
