"""From a trained supernet, or from nothing but a generator, to one architecture, within its budgets if there are
any."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from recdistill.errors import OptionError
from recdistill.models.architecture import Architecture
from recdistill.searching.budget import Found, Meter, best_within, bytes_meter
from recdistill.searching.derivation import derive, log_shares
from recdistill.searching.latency import Setting, encoder_latency, latency_meter
from recdistill.searching.options import SearchOptions
from recdistill.searching.relaxation import gumbel
from recdistill.searching.supernet import Supernet
from recdistill.wording import counted

_TRIES = 5
_DECIDED = 1.5
"""How many times an even share the largest ones are, on average, of a search that has decided something."""


@dataclass(frozen=True)
class Rated:
    """A candidate, what it takes, and the metric of the valid rows that it has with the supernet's weights."""

    text: str
    cells: int
    takes: dict[str, float]
    metric: float


def meters_of(options: SearchOptions, net: Supernet, num_items: int, cache: Path) -> list[Meter]:
    """What is counted of every architecture, and what is measured where it has a budget or is the price.

    Args:
        options: budgets.
        net: sizes; need not be built.
        num_items: of the catalogue.
        cache: where measured latencies are kept unless the options name another file.
    """
    found = [
        bytes_meter(
            net.operations,
            num_items,
            net.dim,
            net.max_length,
            net.num_nodes,
            net.head == "untied",
            options.max_megabytes,
        )
    ]
    if options.max_latency_ms is not None or options.cost == "latency":
        setting = Setting(
            options.latency_batch,
            net.dim,
            net.max_length,
            net.num_nodes,
            torch.get_num_threads(),
            tuple(net.operations),
        )
        table = cache if options.latency_table is None else Path(options.latency_table)
        found.append(latency_meter(setting, options.max_latency_ms, table))
    return found


def check_budget(options: SearchOptions, net: Supernet, meters: Sequence[Meter]) -> None:
    """Refuse budgets that no architecture of the space meets.

    Raises:
        OptionError: with the nearest architecture and what it takes.
    """
    even = torch.zeros(net.num_edges, len(net.operations))
    found = best_within(
        log_shares(even, net.operations, options.allow_none),
        _log_cells(torch.zeros(net.num_cells), net),
        net.operations,
        meters,
        net.max_length,
        options.max_skips,
    )
    if options.budgeted and not found.within:
        missed = {m.name for m in meters if m.limit is not None and found.takes[m.name] > m.limit}
        wanted = ", ".join(f"{m.name} {m.limit:g}" for m in meters if m.limit is not None)
        takes = ", ".join(f"{name} {_upwards(value):g}" for name, value in found.takes.items())
        raise OptionError(
            f"no architecture of this space meets {wanted}; the nearest, '{found.architecture}' in"
            f" {counted(found.cells, 'cell')}, takes {takes}",
            "raise the budget, or lower model.dim"
            + (" (tables take dim numbers an item)" if "megabytes" in missed else "")
            + (" or model.max_length" if "latency_ms" in missed else ""),
        )


def _upwards(value: float) -> float:
    """The next number of three digits, so that a budget of it is met."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / step - 1e-9) * step:.3g}")


def undecided(net: Supernet) -> str | None:
    """What to say of a trained supernet whose shares are nearly even, so that chance decides; None where they are
    not."""
    even, largest = 1 / len(net.operations), float(net.shares()[0].max(dim=1).values.mean())
    if len(net.operations) == 1 or largest > _DECIDED * even:
        return None
    return (
        f"the search has hardly decided: an edge's largest share is {largest:.1%} on average, and {even:.1%} is even;"
        " a larger search.architecture_rate or more search.epochs (as far as training.patience lets them) decide"
    )


def _log_cells(logits: Tensor, net: Supernet) -> Tensor:
    """log shares of 1 to K cells; K alone where their number is not searched."""
    if net.search_cells:
        return torch.log_softmax(logits.detach().double().cpu(), dim=0)
    fixed = torch.full((net.num_cells,), -torch.inf, dtype=torch.float64)
    fixed[-1] = 0.0
    return fixed


def preferred(
    options: SearchOptions,
    net: Supernet,
    meters: Sequence[Meter],
    note: Callable[[str], None] = lambda text: None,
) -> Found:
    """The architecture that a supernet prefers now, by what its costs are predicted to be."""
    shares = net.architecture["operations"], net.architecture["cells"][0]
    return _most_probable(options, net, shares, meters, note)


def searched(
    options: SearchOptions,
    net: Supernet,
    meters: Sequence[Meter],
    rate: Callable[[Found], float] | None,
    generator: torch.Generator,
    note: Callable[[str], None],
) -> tuple[Found, list[Rated]]:
    """The architecture that a trained supernet prefers, or the best of several that its shares give.

    Args:
        options: the budgets, and how many candidates there are: the most probable architecture, and others that are the
            most probable after Gumbel noise, which without a budget draws each edge by its shares. Equal ones count
            once, and those whose measured latency is over its budget are out.
        net: trained.
        meters: with limits or without.
        rate: how good a candidate is; asked once for each, where there are several. Without it the most probable one is
            taken.
        generator: of the noise.
        note: takes what is to be said.

    Returns:
        The architecture, and all that were rated, the best first.
    """
    alpha, delta = (net.architecture[name].detach().cpu() for name in ("operations", "cells"))
    shares = [(alpha, delta[0])]
    for _ in range(options.candidates - 1 if rate else 0):
        noise = [gumbel((len(rows), rows.shape[1]), generator) for rows in (alpha, delta)]
        shares.append((alpha + noise[0], (delta + noise[1])[0]))
    within = _within(options, net, meters, shares, note)
    if rate is None or len(within) == 1:
        return within[0], []
    rated = [(rate(one), one) for one in within]
    rated.sort(key=lambda pair: -pair[0])  # stable: of equal ones the first drawn
    return rated[0][1], [Rated(str(one.architecture), one.cells, one.takes, metric) for metric, one in rated]


def drawn(
    options: SearchOptions,
    net: Supernet,
    meters: Sequence[Meter],
    generator: torch.Generator,
    note: Callable[[str], None],
) -> Found:
    """A random architecture: what would be derived if the shares were random."""
    shares = gumbel((net.num_edges, len(net.operations)), generator), gumbel((1, net.num_cells), generator)[0]
    return _within(options, net, meters, [shares], note)[0]


def _most_probable(
    options: SearchOptions,
    net: Supernet,
    shares: tuple[Tensor, Tensor],
    meters: Sequence[Meter],
    note: Callable[[str], None],
) -> Found:
    """The architecture that α and δ prefer within the budgets, if there are any, as far as costs are predicted."""
    alpha, delta = shares
    log_cells = _log_cells(delta, net)
    if options.budgeted:

        def within(allow_none: bool) -> Found:
            shares = log_shares(alpha, net.operations, allow_none)
            return best_within(shares, log_cells, net.operations, meters, net.max_length, options.max_skips)

        best = within(options.allow_none)
        return within(False) if best.architecture.empty else best
    one = derive(
        alpha,
        net.operations,
        policy=options.policy,
        allow_none=options.allow_none,
        max_skips=options.max_skips,
    )
    if one.empty:
        note(
            "edges prefer 'none' until no node hears the input: one edge from it takes its best other operation"
        )
        one = _with_an_input(one, alpha, net.operations, options.max_skips)
    count = int(log_cells.argmax()) + 1
    return Found(one, count, {m.name: m.of(one, count, net.max_length) for m in meters}, True)


def _with_an_input(
    one: Architecture, alpha: Tensor, names: Sequence[str], max_skips: int | None
) -> Architecture:
    """An architecture of which no node hears the input, and the edge from the input added that alpha misses least."""
    others = derive(alpha, names, max_skips=max_skips).edges
    shares = log_shares(alpha, names, allow_none=True)
    missed = shares.max(dim=1).values - shares[range(len(others)), [names.index(name) for name in others]]
    from_input = [node * (node + 1) // 2 for node in range(len(one.nodes))]
    added = min(from_input, key=lambda edge: float(missed[edge]))
    return Architecture.from_edges([*one.edges[:added], others[added], *one.edges[added + 1 :]])


def _within(
    options: SearchOptions,
    net: Supernet,
    meters: Sequence[Meter],
    shares: Sequence[tuple[Tensor, Tensor]],
    note: Callable[[str], None],
) -> list[Found]:
    """The architectures that each of ``shares`` prefers, each once, in their order; at least one.

    Latencies are measured, of each architecture the least if more than once, and decide: what the meters say is
    corrected by them only where nothing is within its budget, and then others are looked for. Where nothing that was
    tried stays within, it is the fastest of it alone, and that is said.
    """
    meters = list(meters)
    place = next((n for n, meter in enumerate(meters) if meter.name == "latency_ms"), None)
    tried: dict[tuple[str, int], Found] = {}
    for _ in range(1 if place is None else _TRIES):
        found: dict[tuple[str, int], Found] = {}
        for number, two in enumerate(shares):
            one = _most_probable(options, net, two, meters, note if number == 0 else lambda text: None)
            found.setdefault((str(one.architecture), one.cells), one)
        if place is None:
            return list(found.values())
        factors: list[float] = []
        for key, one in found.items():
            takes = one.takes | {"latency_ms": _latency(options, net, one)}
            factors.append(takes["latency_ms"] / one.takes["latency_ms"])
            if key in tried:
                takes["latency_ms"] = min(takes["latency_ms"], tried[key].takes["latency_ms"])
            kept = all(meter.limit is None or takes[meter.name] <= meter.limit for meter in meters)
            tried[key] = replace(one, takes=takes, within=kept)
        if within := [tried[key] for key in found if tried[key].within]:
            return within
        first, measured = next(iter(found.values())), next(tried[key] for key in found)
        note(
            f"'{first.architecture}' takes {measured.takes['latency_ms']:.3g} ms, predicted"
            f" {first.takes['latency_ms']:.3g}"
        )
        meters[place] = meters[place].scaled(max(1.01, min(factors)))
    fastest = min(tried.values(), key=lambda one: one.takes["latency_ms"])
    note(
        f"over budget: of {counted(len(tried), 'architecture')} measured none stays within {options.max_latency_ms} ms;"
        f" the fastest, '{fastest.architecture}' in {counted(fastest.cells, 'cell')}, takes"
        f" {fastest.takes['latency_ms']:.3g}"
    )
    return [fastest]


def _latency(options: SearchOptions, net: Supernet, one: Found) -> float:
    return encoder_latency(net.student(one.architecture, one.cells), options.latency_batch, net.max_length)
