"""The term of a search that prices what the drawn architecture takes, and keeps the search's schedule.

    trade-off:   L = β · L_E(z)                          L_E of :mod:`recdistill.searching.costs`
    budget:      L = Σ_m p_m · (r_m(z) − 1),   r_m = (cost_m − base_m) / max(limit_m − base_m, least_m),
                 p_m ← max(0, p_m + η min(1, r_m − 1)) after a step
                 base: what every architecture takes, such as tables; least: what the cheapest cell takes beside it

With a budget the prices p find the trade-off themselves: they rise while what is drawn costs more than the limit,
and fall, no faster, while it costs less. The temperature of the draws, and whether the architecture learns yet
(``warmup``), are set at the start of an epoch; both are buffers of the supernet, and the prices are buffers here, so
that a resumed search has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recdistill.distillers.base import Context, Distiller
from recdistill.knowledge.base import TeacherState
from recdistill.models.architecture import Architecture
from recdistill.models.base import Batch, State
from recdistill.searching.budget import Meter, width_of
from recdistill.searching.costs import SHIPPED, CostName, cell_cost, cost_table, latency_table
from recdistill.searching.derivation import entropy
from recdistill.searching.relaxation import annealed
from recdistill.searching.supernet import Supernet


class CostTerm(Distiller):
    """What the drawn architecture costs.

    Args:
        cost: the form of L_E.
        beta: β, at least 0.
        meters: those with limits price instead of β; the form ``latency`` reads its table off that of the latency.
        price_rate: η, above 0.
        warmup: epochs in which only the weights learn, at least 0.
        schedule: the temperature's start, decay, epochs between decays, and floor.
    """

    needs: frozenset[str] = frozenset()
    student_needs: frozenset[str] = frozenset()
    weight = 1.0

    def __init__(
        self,
        *,
        cost: CostName = "linear",
        beta: float = 1.0,
        meters: Sequence[Meter] = (),
        price_rate: float = 0.05,
        warmup: int = 0,
        schedule: tuple[float, float, int, float] = (1.0, 0.8, 5, 0.1),
    ) -> None:
        super().__init__()
        self.cost: CostName = cost
        self.beta, self.warmup, self.schedule, self.price_rate = beta, warmup, schedule, price_rate
        self.meters = [meter for meter in meters if meter.limit is not None]
        self.latency = next((meter for meter in meters if meter.name == "latency_ms"), None)
        self.register_buffer("prices", torch.zeros(len(self.meters)))
        self.register_buffer("ratios", torch.ones(len(self.meters)))

    def setup(self, context: Context) -> None:
        assert isinstance(context.model, Supernet)
        self._supernet = (context.model,)  # in a tuple, so that its parameters are not this module's
        self.net.generator = context.generator
        self.register_buffer("table", self._table(), persistent=False)

    def _table(self) -> Tensor:
        net = self.net
        if self.cost == "latency":
            if self.latency is None:  # nothing is priced
                return torch.zeros(len(net.operations))
            return latency_table(
                [self.latency.operations[name].at(float(net.max_length)) for name in net.operations]
            )
        size = SHIPPED if self.cost == "released" else (net.max_length, net.dim)
        return cost_table(self.cost, net.operations, *size)

    @property
    def net(self) -> Supernet:
        return self._supernet[0]

    def start_epoch(self, epoch: int, context: Context) -> None:
        start, decay, every, floor = self.schedule
        self.net.temperature.fill_(annealed(epoch, start, decay, every, floor))
        self.net.frozen_architecture.fill_(epoch < self.warmup)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        assert self.net.drawn is not None
        choices, depth = self.net.drawn
        cells = (depth * torch.arange(1, len(depth) + 1).to(depth)).sum()
        if not self.meters:
            table = self.get_buffer("table")
            return self.beta * cell_cost(choices, table, self.cost, cells, self.net.num_cells)
        names = self.net.operations
        drawn = Architecture.from_edges([names[int(place)] for place in choices.detach().argmax(dim=1)])
        width = width_of(drawn, round(float(cells.detach())), self.net.max_length)
        found = [meter.pressure(choices, cells, names, width) for meter in self.meters]
        ratios = torch.stack(found)
        self.get_buffer("ratios").copy_(ratios.detach())
        return (self.get_buffer("prices").to(ratios) * (ratios - 1)).sum()

    def after_step(self) -> None:
        if self.meters and not bool(self.net.frozen_architecture):
            prices = self.get_buffer("prices")
            prices.add_(self.price_rate * (self.get_buffer("ratios") - 1).clamp(max=1)).clamp_(min=0)

    def facts(self) -> dict[str, float]:
        operations, cells = self.net.shares()
        found = {
            "temperature": float(self.net.temperature),
            "entropy": entropy(self.net.architecture["operations"]),
            **{
                f"price {meter.name}": float(p)
                for meter, p in zip(self.meters, self.get_buffer("prices"), strict=True)
            },
        }
        if self.net.search_cells:
            found |= {f"cells {n}": float(share) for n, share in enumerate(cells, start=1)}
        edges = [f"{n}<{s or 'input'}" for n in range(1, self.net.num_nodes + 1) for s in range(n)]
        for edge, row in zip(edges, operations, strict=True):
            found |= {f"{edge} {name}": float(p) for name, p in zip(self.net.operations, row, strict=True)}
        return found
