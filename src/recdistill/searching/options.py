"""How to search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from recdistill.config import validated
from recdistill.errors import OptionError
from recdistill.models.architecture import SPACES
from recdistill.searching.costs import CostName
from recdistill.searching.derivation import Policy
from recdistill.searching.mixture import Mixture

Positive = Annotated[float, Field(gt=0)]
_CANDIDATES = 32


class SearchOptions:
    """How to search for an architecture, and what to do with it.

    Args:
        space: candidates of an edge: ``causal``, or ``released``, the published ones, most of which look ahead
            (with ``causal=false``).
        operations: candidates by name, in place of a space's.
        causal: refuse operations that look ahead.
        nodes: of a cell, at least 1 (paper's code: 3).
        cells: at most, at least 1 (paper's code: always 4).
        search_cells: the number of cells is chosen too, from 1 (paper's code: false).
        mixture: ``full`` evaluates every candidate in each step (paper's code), ``single`` the drawn one: half
            the time, with another gradient.
        bilevel: the architecture learns from half of the users, the weights from the others (paper's code: false).
        architecture_rate: learning rate of the architecture, above 0 (paper's code: 2e-5, which hardly moves it).
        architecture_decay: its weight decay in the gradient, at least 0 (paper's code: 1e-4, but as AdamW's, which at
            its rate is none).
        cost: what is priced: ``linear``, ``adabert`` or ``released`` (paper's code), or ``latency``, as measured here.
        beta: the trade-off, at least 0; budgets take its place (paper's code: 8 with ``released``
            beside halves of the other losses, which is 16 here; 0 is no cost).
        max_latency_ms: budget of the encoder, from histories to vectors, on this machine, above 0.
        max_megabytes: budget of the weights, tables among them, above 0.
        latency_batch: histories a request for which the encoder's latency is measured, at least 1.
        latency_table: JSON file of measured latencies, read and added to; measured anew without it. For a budget
            of latency, or its price.
        price_rate: step of the prices that budgets have, above 0.
        temperature: of the draws at the start, above 0 (paper's code: 1).
        temperature_decay: factor, in (0, 1] (paper's code: .8).
        temperature_every: epochs between two decays, at least 1 (paper's code: 5).
        temperature_floor: least temperature, above 0 (paper's code has none: 1e-9).
        warmup: epochs in which only the weights learn, and whose state is never taken, at least 0 (paper's code: 0).
        epochs: of the search at most, at least 1 (paper's code: 200).
        batch_size: of the search, at least 1; the training's by default.
        learning_rate: of the weights in the search, above 0; the training's by default (paper's code: 5e-3).
        candidates: architectures that are read on the valid rows with the search's weights, the most probable one and
            others drawn by the shares; the best is the student. A random architecture has no others. At least 1;
            32 with a budget, within which all of them are, and 1 without, where a price has already weighed cost
            against accuracy (paper's code: 1).
        policy: ``argmax`` keeps every edge (paper's code), ``darts`` the two strongest of a node; not with a budget.
        allow_none: an edge may become ``none`` (paper's code: true).
        max_skips: ``skip`` edges of a cell at most, at least 0.
        init: of the student: ``inherit`` the search's weights (paper's code), or ``scratch``.
        retrain_with_teacher: the student learns from the teacher again (paper's code: false).
    """

    options: dict[str, Any]

    @validated
    def __init__(
        self,
        *,
        space: Literal["causal", "released"] = "causal",
        operations: tuple[str, ...] = (),
        causal: bool = True,
        nodes: Annotated[int, Field(ge=1, le=5)] = 3,
        cells: Annotated[int, Field(ge=1)] = 4,
        search_cells: bool = True,
        mixture: Mixture = "full",
        bilevel: bool = False,
        architecture_rate: Positive = 1e-3,
        architecture_decay: Annotated[float, Field(ge=0)] = 0.0,
        cost: CostName = "linear",
        beta: Annotated[float, Field(ge=0)] = 1.0,
        max_latency_ms: Positive | None = None,
        max_megabytes: Positive | None = None,
        latency_batch: Annotated[int, Field(ge=1)] = 1,
        latency_table: str | None = None,
        price_rate: Positive = 0.05,
        temperature: Positive = 1.0,
        temperature_decay: Annotated[float, Field(gt=0, le=1)] = 0.8,
        temperature_every: Annotated[int, Field(ge=1)] = 5,
        temperature_floor: Positive = 0.1,
        warmup: Annotated[int, Field(ge=0)] = 5,
        epochs: Annotated[int, Field(ge=1)] = 60,
        batch_size: Annotated[int, Field(ge=1)] | None = None,
        learning_rate: Positive | None = None,
        candidates: Annotated[int, Field(ge=1)] | None = None,
        policy: Policy = "argmax",
        allow_none: bool = False,
        max_skips: Annotated[int, Field(ge=0)] | None = None,
        init: Literal["inherit", "scratch"] = "inherit",
        retrain_with_teacher: bool = True,
    ) -> None:
        if policy == "darts" and not (max_latency_ms is None and max_megabytes is None):
            raise OptionError(
                "search.policy is darts, and a budget is met by choosing every edge",
                "leave out the budget, or set search.policy=argmax",
            )
        if latency_table is not None and max_latency_ms is None and cost != "latency":
            raise OptionError(
                f"search.latency_table is {latency_table}, and no latency is measured",
                "leave it out, or set search.max_latency_ms or search.cost=latency",
            )
        self.operations = operations or SPACES[space]
        skips_only = set(self.operations) <= {"skip", "none"} and (max_skips == 0 or not allow_none)
        if max_skips is not None and max_skips < nodes * (nodes + 1) // 2 and skips_only:
            raise OptionError(
                f"search.max_skips is {max_skips}, and the space has nothing but 'skip' for the other edges",
                "raise search.max_skips, or name more search.operations",
            )
        self.causal, self.nodes, self.cells, self.search_cells = causal, nodes, cells, search_cells
        self.mixture: Mixture = mixture
        self.bilevel = bilevel
        self.architecture_rate, self.architecture_decay = architecture_rate, architecture_decay
        self.cost: CostName = cost
        self.beta, self.price_rate = beta, price_rate
        self.max_latency_ms, self.max_megabytes = max_latency_ms, max_megabytes
        self.latency_batch, self.latency_table = latency_batch, latency_table
        self.schedule = (temperature, temperature_decay, temperature_every, temperature_floor)
        self.warmup, self.epochs = warmup, epochs
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.candidates = candidates or (_CANDIDATES if self.budgeted else 1)
        self.policy: Policy = policy
        self.allow_none, self.max_skips = allow_none, max_skips
        self.init, self.retrain_with_teacher = init, retrain_with_teacher

    @property
    def budgeted(self) -> bool:
        """There is a budget."""
        return self.max_latency_ms is not None or self.max_megabytes is not None
