"""What an architecture takes in all, and the most probable one that stays within a budget.

A meter adds up parts of a model of K cells that answers for W newest items (what lies further back than its
convolutions reach is not read):

    total = base + W · base_slope + K · (cell + W · cell_slope + Σ_edges (c_o + W · slope_o))

For bytes every slope is 0; for latency the parts are measured (:mod:`recdistill.searching.latency`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recdistill.models.architecture import OPERATIONS, Architecture

_MOST = 300_000
"""Cells that are looked through; with more candidates the cheapest and the most probable ones of each edge."""

_LEAST = 1e-3
"""Of a limit, what a share is of at least: measured costs of a cell may be none."""


@dataclass(frozen=True)
class Part:
    """A cost that grows with the number of items read: ``fixed + slope · W``."""

    fixed: float
    slope: float = 0.0

    def at(self, width: Tensor | float) -> Any:
        return self.fixed + self.slope * width


@dataclass(frozen=True)
class Meter:
    """What models take of one thing.

    Attributes:
        name: such as ``latency_ms``.
        base: what every model takes.
        cell: what a cell takes beside its edges.
        operations: what an edge takes, by operation.
        limit: the budget; none without it.
    """

    name: str
    base: Part
    cell: Part
    operations: dict[str, Part]
    limit: float | None = None

    def of(self, architecture: Architecture, cells: int, max_length: int) -> float:
        """What the model of ``cells`` cells of an architecture takes."""
        width = width_of(architecture, cells, max_length)
        edges = sum(self.operations[name].at(width) for name in architecture.edges)
        return float(self.base.at(width) + cells * (self.cell.at(width) + edges))

    def expected(self, choices: Tensor, cells: Tensor, names: Sequence[str], width: float) -> Tensor:
        """The same of the choices of a forward pass, scalar, with gradients.

        Args:
            choices: z, shape ``(edges, operations)``.
            cells: the number of cells, scalar.
            names: operations in the order of the columns.
            width: items read.
        """
        table = choices.new_tensor([self.operations[name].at(width) for name in names])
        return self.base.at(width) + cells * (self.cell.at(width) + (choices @ table).sum())

    def pressure(self, choices: Tensor, cells: Tensor, names: Sequence[str], width: float) -> Tensor:
        """Of what the limit leaves beside the base, the share that the choices of a forward pass take, scalar.

        So a table that takes most of the limit does not hide what is chosen. Where the limit leaves less than the
        cheapest cell takes, above 1 whatever is chosen, the share is of that cell.
        """
        assert self.limit is not None
        base = self.base.at(width)
        taken = self.expected(choices, cells, names, width) - base
        cheapest = min(self.operations[name].at(width) for name in names)
        least = self.cell.at(width) + len(choices) * cheapest
        return taken / max(self.limit - base, least, _LEAST * self.limit)

    def scaled(self, factor: float) -> Meter:
        """Every part times ``factor``."""
        parts = {name: Part(p.fixed * factor, p.slope * factor) for name, p in self.operations.items()}
        base, cell = (Part(p.fixed * factor, p.slope * factor) for p in (self.base, self.cell))
        return replace(self, base=base, cell=cell, operations=parts)


def width_of(architecture: Architecture, cells: int, max_length: int) -> int:
    """Newest items that a model reads to answer at the newest one."""
    return min(max_length, cells * architecture.reach + 1) if architecture.causal else max_length


def bytes_meter(
    names: Sequence[str],
    num_items: int,
    dim: int,
    max_length: int,
    nodes: int,
    untied: bool,
    limit: float | None,
) -> Meter:
    """Bytes of the weights file's numbers, in megabytes (10⁶), counted exactly; its header, some kilobytes, is not.

    Args:
        names: candidates.
        num_items: I.
        dim: C.
        max_length: L.
        nodes: N.
        untied: a second table and a bias.
        limit: megabytes.
    """
    tables = num_items * dim * (2 if untied else 1) + (num_items if untied else 0) + max_length * dim

    def numbers(name: str) -> int:
        operation = OPERATIONS[name]  # a convolution: weights, bias; scale, shift, mean, variance
        return operation.kernel * dim * dim + 5 * dim if operation.kind == "conv" else 0

    megabytes = 4e-6
    return Meter(
        "megabytes",
        Part(tables * megabytes),
        Part((nodes + 2 * dim) * megabytes),
        {name: Part(numbers(name) * megabytes) for name in names},
        limit,
    )


@dataclass(frozen=True)
class Found:
    """An architecture and what it takes by each meter."""

    architecture: Architecture
    cells: int
    takes: dict[str, float]
    within: bool


def best_within(
    log_operations: Tensor,
    log_cells: Tensor,
    names: Sequence[str],
    meters: Sequence[Meter],
    max_length: int,
    max_skips: int | None = None,
) -> Found:
    """The most probable architecture that stays within every meter's limit; without one, the nearest to it.

    Every cell of the space is looked at, or, of a space that is too large, every cell of each edge's cheapest
    operation and its most probable ones: what some architecture meets is met. Nearest is the smallest largest ratio of
    what is taken to its limit. A cell of which no node hears the input is none.

    Args:
        log_operations: log shares of the operations, shape ``(edges, operations)``, −inf for what may not be.
        log_cells: log shares of 1 to K cells, shape ``(K,)``, −inf for what may not be.
        names: operations in the order of the columns.
        meters: with limits or without.
        max_length: L.
        max_skips: identity operations of a cell at most; any number without it.
    """
    cells_of = _cells(log_operations, _dearness(names, meters))  # (n, edges), places of operations
    if max_skips is not None and "skip" in names:
        few = (cells_of == list(names).index("skip")).sum(dim=1) <= max_skips
        cells_of = cells_of[few] if bool(few.any()) else cells_of
    heard = _hears(cells_of, names)
    cells_of = cells_of[heard] if bool(heard.any()) else cells_of
    scores = log_operations.gather(1, cells_of.T).sum(dim=0)
    causal = all(OPERATIONS[name].causal for name in names)
    reach = _reach(cells_of, names)
    best: tuple[tuple[float, float], int, int] | None = None
    for cells in range(1, len(log_cells) + 1):
        if not torch.isfinite(log_cells[cells - 1]):
            continue
        width = (cells * reach + 1).clamp(max=max_length) if causal else torch.full_like(reach, max_length)
        over = torch.full(scores.shape, -torch.inf, dtype=torch.float64)
        for meter in meters:
            if meter.limit is not None:
                over = torch.maximum(
                    over, _totals(meter, cells_of, names, cells, width.double()) / meter.limit
                )
        within = over <= 1
        ranked = torch.where(within, scores + log_cells[cells - 1], -torch.inf)
        place = int(ranked.argmax()) if bool(within.any()) else int(over.argmin())
        key = (0.0, -float(ranked[place])) if bool(within.any()) else (1.0, float(over[place]))
        if best is None or key < best[0]:
            best = key, place, cells
    assert best is not None
    (outside, _), place, cells = best
    architecture = Architecture.from_edges([names[int(k)] for k in cells_of[place]])
    takes = {meter.name: meter.of(architecture, cells, max_length) for meter in meters}
    return Found(architecture, cells, takes, outside == 0)


def _cells(log_operations: Tensor, dearness: Sequence[float]) -> Tensor:
    """Choices of one operation an edge that may be, (n, edges) int64, the most probable operations first.

    Where these would be too many, an edge keeps the cheapest of its operations and as many of the most probable ones as
    there is room for.
    """
    edges = len(log_operations)
    order = log_operations.sort(dim=1, descending=True, stable=True)
    most = max(2, int(_MOST ** (1 / edges) + 1e-9))
    allowed: list[list[int]] = []
    for row, values in zip(order.indices, order.values, strict=True):
        known = [int(place) for place, value in zip(row, values, strict=True) if torch.isfinite(value)]
        cheapest = min(known, key=lambda place: dearness[place])
        kept = known[:most] if cheapest in known[:most] else [*known[: most - 1], cheapest]
        allowed.append(kept)
    return torch.cartesian_prod(*(torch.tensor(row) for row in allowed)).view(-1, edges)


def _dearness(names: Sequence[str], meters: Sequence[Meter]) -> list[float]:
    """What an edge with each operation takes at one item, as the largest share of a limit."""
    limited = [(meter, meter.limit) for meter in meters if meter.limit is not None]
    return [
        max((meter.operations[name].at(1.0) / limit for meter, limit in limited), default=0.0)
        for name in names
    ]


def _reach(cells_of: Tensor, names: Sequence[str]) -> Tensor:
    """:attr:`Architecture.reach` of each row of ``cells_of``, (n,) int64."""
    reach = torch.tensor([OPERATIONS[name].reach for name in names])
    kinds = [OPERATIONS[name].kind for name in names]
    none, conv = (torch.tensor([kind == wanted for kind in kinds]) for wanted in ("none", "conv"))
    found = [torch.zeros(len(cells_of), dtype=torch.int64)]
    edge = itertools.count()
    while (start := next(edge)) < cells_of.shape[1]:
        heard = torch.full((len(cells_of),), -1)
        for place, source in zip([start, *itertools.islice(edge, len(found) - 1)], found, strict=True):
            chosen = cells_of[:, place]
            through = torch.where(source >= 0, source + reach[chosen], torch.where(conv[chosen], 0, -1))
            heard = torch.maximum(heard, through.masked_fill(none[chosen], -1))
        found.append(heard)
    return torch.stack(found).max(dim=0).values


def _hears(cells_of: Tensor, names: Sequence[str]) -> Tensor:
    """Whether some node of each row of ``cells_of`` hears the input, (n,) bool: not :attr:`Architecture.empty`."""
    passes = torch.tensor([name != "none" for name in names])
    found = [torch.ones(len(cells_of), dtype=torch.bool)]
    edge = itertools.count()
    while (start := next(edge)) < cells_of.shape[1]:
        edges = [start, *itertools.islice(edge, len(found) - 1)]
        heard = [source & passes[cells_of[:, place]] for place, source in zip(edges, found, strict=True)]
        found.append(torch.stack(heard).any(dim=0))
    return torch.stack(found[1:]).any(dim=0)


def _totals(meter: Meter, cells_of: Tensor, names: Sequence[str], cells: int, width: Tensor) -> Tensor:
    fixed, slope = (
        torch.tensor([getattr(meter.operations[name], field) for name in names], dtype=torch.float64)[
            cells_of
        ].sum(dim=1)
        for field in ("fixed", "slope")
    )
    return meter.base.at(width) + cells * (meter.cell.at(width) + fixed + slope * width)
