"""Time and memory of a search step: forward, backward and both optimisers, one thread, no teacher's forward.

    python benchmarks/search_step.py --size tiny|small|released [--mixture full|single]
        [--space causal|released] [--steps 10]

Sizes are batch, length, channels, cells, nodes, items and teacher layers; the space ``causal`` has 8
operations, ``released`` 10.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from recdistill.data.interactions import Interactions
from recdistill.distillers.adarec import AdaRec
from recdistill.distillers.base import Objective
from recdistill.knowledge.teacher import live
from recdistill.models.architecture import SPACES
from recdistill.models.sasrec import SASRec
from recdistill.searching.cost_term import CostTerm
from recdistill.searching.supernet import Supernet
from recdistill.training.loop import named_parameters
from recdistill.training.optimisers import Several, group_optimiser, make_optimiser

SIZES = {
    "tiny": (16, 10, 8, 2, 2, 200, 4),
    "small": (64, 20, 32, 4, 3, 3000, 8),
    "released": (64, 50, 64, 4, 3, 8000, 8),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--mixture", choices=("full", "single"), default="full")
    parser.add_argument("--space", choices=("causal", "released"), default="causal")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--no-teacher", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    batch, length, dim, cells, nodes, items, layers = SIZES[chosen.size]
    generator = torch.Generator().manual_seed(0)
    users = torch.arange(batch).repeat_interleave(length + 1)
    drawn = torch.randint(items, users.shape, generator=generator)
    data = Interactions.from_events(users, drawn, batch, items, positions=torch.arange(len(users)))
    model = Supernet(
        operations=SPACES[chosen.space], nodes=nodes, cells=cells, dim=dim, max_length=length, mixture=chosen.mixture,
        search_cells=False, causal=chosen.space == "causal",
    )  # fmt: skip
    model.build(data, generator)
    teacher = SASRec(dim=dim, blocks=layers, max_length=length)
    teacher.build(data, generator)
    knowledge = live(teacher, data)
    methods = [CostTerm()] if chosen.no_teacher else [AdaRec(), CostTerm()]
    objective = Objective(methods, knowledge)
    objective.setup(model, data, 1, generator, torch.device("cpu"))
    main_parameters = [
        (n, p) for n, p in named_parameters(model, objective) if not n.startswith("model.architecture")
    ]
    optimiser = Several(
        {
            "main": make_optimiser(
                "adam", main_parameters, learning_rate=1e-3, weight_decay=0.0, epsilon=1e-8
            ),
            "beside": group_optimiser(model.parameter_groups(), model.named_parameters()),
        }
    )
    step = next(model.batches(data, batch * length, generator))
    taken: list[tuple[float, float]] = []
    places = model.state(step).places
    state = knowledge.state(step)
    reads = state.sequence_reads(places)  # outside of the timing
    knowledge.state = lambda batch: state  # type: ignore[method-assign]
    for _ in range(chosen.steps + 2):
        wall, cpu = time.perf_counter(), time.process_time()
        optimiser.zero_grad()
        terms = objective.terms(model, model.state(step), step)
        torch.stack([value.float() for value in terms.values()]).sum().backward()
        optimiser.step()
        objective.after_step()
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = (sorted(values)[len(values) // 2] for values in zip(*taken[2:], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    numbers = sum(p.numel() for p in model.cells.parameters())
    print(
        f"{chosen.size} {chosen.mixture}: {1000 * wall:.1f} ms a step ({1000 * cpu:.1f} ms of CPU), {peak:.2f} GB,"
        f" {numbers:,} numbers in the cells, {len(reads.rows):,} items"
    )


if __name__ == "__main__":
    main()
