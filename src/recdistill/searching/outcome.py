"""From a trained supernet, or from nothing but a generator, to one architecture, within its budgets if there are
any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from recdistill.errors import OptionError
from recdistill.searching.budget import Found, Meter, best_within, bytes_meter
from recdistill.searching.derivation import derive, log_shares
from recdistill.searching.latency import Setting, encoder_latency, latency_meter
from recdistill.searching.options import SearchOptions
from recdistill.searching.relaxation import gumbel
from recdistill.searching.supernet import Supernet

_TRIES = 3


def meters_of(options: SearchOptions, net: Supernet, num_items: int, cache: Path) -> list[Meter]:
    """What is counted of every architecture, and what is measured where there is a budget for it.

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
    if options.max_latency_ms is not None:
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
    )
    if options.budgeted and not found.within:
        wanted = ", ".join(f"{m.name} {m.limit:g}" for m in meters if m.limit is not None)
        takes = ", ".join(f"{name} {value:.3g}" for name, value in found.takes.items())
        raise OptionError(
            f"no architecture of this space meets {wanted}; the nearest, '{found.architecture}' in"
            f" {found.cells} cells, takes {takes}",
            "raise the budget, or lower model.dim (tables take dim numbers an item)",
        )


def _log_cells(logits: Tensor, net: Supernet) -> Tensor:
    """log shares of 1 to K cells; K alone where their number is not searched."""
    if net.search_cells:
        return torch.log_softmax(logits.detach().double().cpu(), dim=0)
    fixed = torch.full((net.num_cells,), -torch.inf, dtype=torch.float64)
    fixed[-1] = 0.0
    return fixed


def searched(
    options: SearchOptions, net: Supernet, meters: Sequence[Meter], note: Callable[[str], None]
) -> Found:
    """The architecture that a trained supernet prefers."""
    alpha, delta = net.architecture["operations"], net.architecture["cells"][0]
    cells = _log_cells(delta, net)
    if options.budgeted:
        return _within(options, net, alpha, cells, meters, note, options.allow_none)
    names, count = net.operations, int(cells.argmax()) + 1
    found = derive(
        alpha, names, policy=options.policy, allow_none=options.allow_none, max_skips=options.max_skips
    )
    if found.empty:
        note("every edge prefers 'none', which would leave the newest item alone: the best others are taken")
        found = derive(alpha, names, policy=options.policy, max_skips=options.max_skips)
    return Found(found, count, {m.name: m.of(found, count, net.max_length) for m in meters}, True)


def drawn(
    options: SearchOptions,
    net: Supernet,
    meters: Sequence[Meter],
    generator: torch.Generator,
    note: Callable[[str], None],
) -> Found:
    """A random architecture: every edge uniform over the candidates; of a budget, the likeliest under random shares."""
    alpha = gumbel((net.num_edges, len(net.operations)), generator)
    delta = gumbel((1, net.num_cells), generator)[0]
    return _within(options, net, alpha, _log_cells(delta, net), meters, note, options.allow_none)


def _within(
    options: SearchOptions,
    net: Supernet,
    alpha: Tensor,
    cells: Tensor,
    meters: Sequence[Meter],
    note: Callable[[str], None],
    allow_none: bool,
) -> Found:
    """The most probable architecture within the budgets: predicted, then measured, and if need be corrected."""
    meters = list(meters)
    shares = log_shares(alpha, net.operations, allow_none)
    found = best_within(shares, cells, net.operations, meters, net.max_length)
    for _ in range(_TRIES):
        place = next((n for n, meter in enumerate(meters) if meter.name == "latency_ms"), None)
        if place is None:
            break
        student = net.student(found.architecture, found.cells)
        measured = encoder_latency(student, options.latency_batch, net.max_length)
        predicted = found.takes["latency_ms"]
        found = replace(found, takes={**found.takes, "latency_ms": measured})
        if measured <= (options.max_latency_ms or measured):
            break
        note(
            f"'{found.architecture}' takes {measured:.3g} ms, predicted {predicted:.3g}: looking for another"
        )
        meters[place] = meters[place].scaled(max(1.01, measured / predicted))
        found = best_within(shares, cells, net.operations, meters, net.max_length)
    if found.architecture.empty:
        note("every edge became 'none': the budget leaves nothing else, or it is preferred")
        return _within(options, net, alpha, cells, meters, note, False)
    return found
