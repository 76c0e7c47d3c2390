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
    """A candidate, and the metric of the valid rows that it has with the supernet's weights."""

    text: str
    cells: int
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
    """The architecture that a trained supernet prefers, or the best of several that its shares give; with a latency
    budget measured, and if need be another.

    Args:
        options: the budgets, and how many candidates there are: the most probable architecture, and others that are the
            most probable after Gumbel noise, which without a budget draws each edge by its shares.
        net: trained.
        meters: with limits or without.
        rate: how good a candidate is; asked once for each that is another one, not where there is one alone. Without
            it the most probable one is taken.
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
    rated: dict[tuple[str, int], float] = {}

    def best(priced: Sequence[Meter]) -> Found:
        found: dict[tuple[str, int], Found] = {}
        for place, two in enumerate(shares):
            one = _most_probable(options, net, two, priced, note if place == 0 else lambda text: None)
            found.setdefault((str(one.architecture), one.cells), one)
        if rate is None or len(found) == 1:
            return next(iter(found.values()))
        rated.update({key: rate(one) for key, one in found.items() if key not in rated})
        return found[max(found, key=lambda key: rated[key])]

    chosen = _measured(options, net, meters, best, note)
    order = sorted(rated, key=lambda key: -rated[key])
    return chosen, [Rated(text, cells, rated[text, cells]) for text, cells in order]


def drawn(
    options: SearchOptions,
    net: Supernet,
    meters: Sequence[Meter],
    generator: torch.Generator,
    note: Callable[[str], None],
) -> Found:
    """A random architecture: what would be derived if the shares were random."""
    shares = gumbel((net.num_edges, len(net.operations)), generator), gumbel((1, net.num_cells), generator)[0]
    return _measured(
        options, net, meters, lambda priced: _most_probable(options, net, shares, priced, note), note
    )


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


def _measured(
    options: SearchOptions,
    net: Supernet,
    meters: Sequence[Meter],
    choose: Callable[[Sequence[Meter]], Found],
    note: Callable[[str], None],
) -> Found:
    """What ``choose`` takes by its meters; a latency is measured, and where it is over its budget they are corrected.

    What was measured decides, not what the meters say: a moment of other work corrects them too far. Where nothing that
    was tried stays within, the fastest of it is taken, and that is said.
    """
    meters = list(meters)
    place = next((n for n, meter in enumerate(meters) if meter.name == "latency_ms"), None)
    if place is None:
        return choose(meters)
    tried: list[Found] = []
    for _ in range(_TRIES):
        found = choose(meters)
        student = net.student(found.architecture, found.cells)
        measured = encoder_latency(student, options.latency_batch, net.max_length)
        predicted, takes = found.takes["latency_ms"], {**found.takes, "latency_ms": measured}
        within = all(meter.limit is None or takes[meter.name] <= meter.limit for meter in meters)
        tried.append(replace(found, takes=takes, within=within))
        if within:
            return tried[-1]
        note(f"'{found.architecture}' takes {measured:.3g} ms, predicted {predicted:.3g}")
        meters[place] = meters[place].scaled(max(1.01, measured / predicted))
    fastest = min(tried, key=lambda one: one.takes["latency_ms"])
    note(
        f"over budget: of {_TRIES} architectures none stays within {options.max_latency_ms} ms; the fastest,"
        f" '{fastest.architecture}' in {counted(fastest.cells, 'cell')}, takes {fastest.takes['latency_ms']:.3g}"
    )
    return fastest
