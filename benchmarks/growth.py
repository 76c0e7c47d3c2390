"""How methods grow: seconds an epoch and peak memory at four sizes, each in a process of its own.

    python benchmarks/growth.py [--methods NAME …] [--sizes 1 4 10 20]

Size 1 is 5,219 users x 25,181 items with 103,000 long-tailed random interactions; size s has s times the users, items
and interactions; users x items grow by s². Student dim 20, teacher dim 64, batch 2,048, else defaults; lists are
derived first. An epoch is the median of those after the first; "start" is the part of it before the first step, when
methods that read the student's ranking rank all items for all users: users x items, at as many epochs as one likes
(``refresh``, ``resample_every``). Its steps are the rest, given by interaction too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from statistics import median
from typing import Any

METHODS = ["rrd", "cd", "dcd", "rce-kd", "kd", "sld", "unkd", "de", "ftd"]
OPTIONS: dict[str, dict[str, Any]] = {"de": {"num_experts": 5, "anneal_epochs": 1}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 10, 20])
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case[0], int(arguments.case[1]))))
        return
    print("| method | size | interactions | start, s | steps, s | steps, µs an interaction | peak GB |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.methods:
        for size in arguments.sizes:
            command = [sys.executable, __file__, "--case", name, str(size)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            steps = found["seconds"] - found["start"]
            print(
                f"| {name} | {size} | {found['pairs']:,} | {found['start']:.2f} | {steps:.2f} |"
                f" {1e6 * steps / found['pairs']:.1f} | {found['peak']:.2f} |",
                flush=True,
            )


def measure(name: str, size: int) -> dict[str, float]:
    """Three epochs of one method at one size."""
    import time

    import torch

    from recdistill.data.interactions import Interactions
    from recdistill.distillers import Objective
    from recdistill.knowledge.teacher import live
    from recdistill.models import BPR
    from recdistill.steps.distill import make_methods
    from recdistill.training.loop import train
    from recdistill.training.options import TrainingOptions

    generator = torch.Generator().manual_seed(0)
    users, items, rows = 5219 * size, 25181 * size, 103_000 * size
    drawn = (torch.rand(rows, generator=generator) ** 3 * items).long()  # a long tail
    owners = torch.randint(0, users, (rows,), generator=generator)
    pairs = Interactions.from_events(owners, drawn, users, items)
    teacher = BPR(dim=64)
    teacher.build(pairs, torch.Generator().manual_seed(1))

    class Timed(Objective):
        starts: list[float]

        def start_epoch(self, epoch: int) -> None:
            began = time.perf_counter()
            super().start_epoch(epoch)
            self.starts.append(time.perf_counter() - began)

    table = {"method": name, **OPTIONS.get(name, {})}
    objective = Timed(make_methods([table]), live(teacher, pairs))
    objective.starts = []
    options = TrainingOptions(epochs=4, optimiser="sparse-adam", weight_decay=0.0)
    result = train(BPR(dim=20), objective, pairs, options)
    return {
        "pairs": pairs.num_pairs,
        "seconds": median(record["seconds"] for record in result.history[1:]),
        "start": median(objective.starts[1:]),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


if __name__ == "__main__":
    main()
