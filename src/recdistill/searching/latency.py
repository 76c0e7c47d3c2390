"""How long the parts of a student take on this machine, measured in whole models.

The encoder (from histories that are at hand to their vectors) is timed with every edge the same operation and with
one and two cells of ``skip`` alone, at two numbers of items read; the differences are what an operation, a cell and the
rest take, on a line through both. ``none`` counts as ``skip``, which costs next to nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from recdistill.data.interactions import Interactions
from recdistill.errors import ArtifactError
from recdistill.files import write_json
from recdistill.models.architecture import Architecture
from recdistill.models.cellnet import CellNet
from recdistill.searching.budget import Meter, Part

_SECONDS = 0.05
_REPEATS = 5
_ROUNDS = 3
_ITEMS = 1000


@dataclass(frozen=True)
class Setting:
    """What was timed.

    Attributes:
        batch: histories a request.
        dim: channels.
        max_length: items read at most.
        nodes: of a cell.
        threads: of torch.
        operations: candidates.
    """

    batch: int
    dim: int
    max_length: int
    nodes: int
    threads: int
    operations: tuple[str, ...]


def latency_meter(setting: Setting, limit: float | None = None, cache: Path | None = None) -> Meter:
    """The latency of the encoder in milliseconds, from ``cache`` where that holds this setting's, else timed.

    Args:
        setting: what to time.
        limit: milliseconds.
        cache: a JSON file; what is timed is added to it.

    Raises:
        ArtifactError: ``cache`` is no such file.
    """
    key = json.dumps(asdict(setting), sort_keys=True)
    stored = _read(cache)
    if key not in stored:
        stored[key] = _timed(setting)
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, stored)
    parts = stored[key]
    try:
        base, cell = Part(*parts["base"]), Part(*parts["cell"])
        operations = {name: Part(*parts["operations"][name]) for name in setting.operations}
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{cache} is no table of latencies: {error}", "delete it, or name another file"
        ) from None
    return Meter("latency_ms", base, cell, operations, limit)


def _read(cache: Path | None) -> dict[str, Any]:
    if cache is None or not cache.exists():
        return {}
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{cache} is no table of latencies: {error}", "delete it, or name another file"
        ) from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{cache} is no table of latencies", "delete it, or name another file")
    return found


def _timed(setting: Setting) -> dict[str, Any]:
    edges = setting.nodes * (setting.nodes + 1) // 2
    widths = min(4, setting.max_length), setting.max_length

    def line(name: str, cells: int) -> list[float]:
        return [_encoder(setting, [name] * edges, cells, width) for width in widths]

    def part(values: Sequence[float]) -> list[float]:
        slope = max(0.0, (values[1] - values[0]) / max(widths[1] - widths[0], 1))
        return [max(0.0, values[0] - slope * widths[0]), slope]

    one, two = line("skip", 1), line("skip", 2)
    cell = [max(0.0, b - a) for a, b in zip(one, two, strict=True)]
    base = [max(0.0, a - c) for a, c in zip(one, cell, strict=True)]
    operations = {
        name: part([max(0.0, b - a) / edges for a, b in zip(one, line(name, 1), strict=True)])
        for name in setting.operations
        if name not in ("skip", "none")
    }
    free = {name: [0.0, 0.0] for name in ("skip", "none")}
    return {"base": part(base), "cell": part(cell), "operations": {**operations, **free}}


def _encoder(setting: Setting, edges: Sequence[str], cells: int, width: int) -> float:
    """Milliseconds of the encoder for histories of ``width`` items, all of them read."""
    model = _WholeHistory(
        architecture=str(Architecture.from_edges(edges)),
        cells=cells,
        dim=setting.dim,
        max_length=max(2, width),
        causal=False,
    )
    return encoder_latency(model, setting.batch, width)


class _WholeHistory(CellNet):
    """Reads every item, however far its convolutions reach."""

    @property
    def lookback(self) -> int:
        return self.max_length


def encoder_latency(model: CellNet, batch: int, width: int) -> float:
    """Milliseconds of ``model``'s encoder for ``batch`` histories of ``width`` items.

    The median of a round, and of some rounds the least: what else the machine does for a moment is not the model's.

    Args:
        model: unbuilt (it is then built on items drawn at random), or built.
        batch: histories.
        width: items of each.
    """
    generator = torch.Generator().manual_seed(0)
    num_items = model.num_items or _ITEMS
    items = torch.randint(num_items, (batch * width,), generator=generator)
    users = torch.arange(batch).repeat_interleave(width)
    histories = Interactions.from_events(users, items, batch, num_items, positions=torch.arange(len(items)))
    if model.num_users == 0:
        model.build(histories, generator)
    model.eval()
    everyone = torch.arange(batch)
    with torch.inference_mode():
        for _ in range(_REPEATS):
            model.vectors_of(histories, everyone)
        return min(_median(model, histories, everyone) for _ in range(_ROUNDS))


def _median(model: CellNet, histories: Interactions, users: torch.Tensor) -> float:
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < _REPEATS or time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        model.vectors_of(histories, users)
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)
