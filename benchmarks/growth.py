"""How methods grow: seconds an epoch and peak memory at four sizes, each in a process of its own.

    python benchmarks/growth.py [--methods NAME …] [--sizes 1 4 10 20] [--base USERS ITEMS INTERACTIONS]

Size 1 is 5,219 users x 25,181 items with 103,000 long-tailed random interactions, or what ``--base`` says; size s has s
times the users, items and interactions; users x items grow by s². Student dim 20, teacher dim 64, batch 2,048, else
defaults; lists are derived first. An epoch is the mean of the three after the first, one of which compares DCD's lists.
"Start" is the part of it before the first step, when methods that read the student's ranking rank all items for all
users: users x items, at as many epochs as one likes (``refresh``, ``resample_every``). Its steps are the rest, given by
interaction too.

HetComp has a student of dim 6, six teachers of four states each (lists of 100, drawn from one model's first 200 with
noise), compares the student with all of them at each epoch and estimates its normaliser from 4,096 items.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from statistics import mean
from typing import TYPE_CHECKING, Any

from epochs import several

if TYPE_CHECKING:
    from recdistill.knowledge.base import Member
    from recdistill.knowledge.teacher import TeacherKnowledge

METHODS = ["rrd", "cd", "dcd", "rce-kd", "kd", "sld", "unkd", "de", "ftd", "htd", "hetcomp"]
OPTIONS: dict[str, dict[str, Any]] = {
    "de": {"num_experts": 5, "anneal_epochs": 1},
    "htd": {"num_groups": 5, "anneal_epochs": 1},
    "hetcomp": {"num_sampled": 4096, "refresh": 1},
}
BASE = [5219, 25181, 103_000]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 10, 20])
    parser.add_argument("--base", type=int, nargs=3, default=BASE, metavar=("USERS", "ITEMS", "INTERACTIONS"))
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        sizes = [base * arguments.sizes[0] for base in arguments.base]
        print(json.dumps(measure(arguments.methods[0], *sizes)))
        return
    print("| method | size | interactions | start, s | steps, s | steps, µs an interaction | peak GB |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.methods:
        for size in arguments.sizes:
            case = ["--methods", name, "--sizes", str(size), "--base", *map(str, arguments.base)]
            command = [sys.executable, __file__, "--case", *case]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            steps = found["seconds"] - found["start"]
            print(
                f"| {name} | {size} | {found['pairs']:,} | {found['start']:.2f} | {steps:.2f} |"
                f" {1e6 * steps / found['pairs']:.1f} | {found['peak']:.2f} |",
                flush=True,
            )


def measure(name: str, users: int, items: int, rows: int) -> dict[str, float]:
    """Three epochs of one method at one size, after a first that is not counted."""
    import time

    import torch

    from recdistill.data.interactions import Interactions
    from recdistill.distillers import Objective
    from recdistill.knowledge.teacher import live
    from recdistill.models import BPR
    from recdistill.steps.methods import make_methods
    from recdistill.training.loop import train
    from recdistill.training.options import TrainingOptions

    generator = torch.Generator().manual_seed(0)
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
    knowledge = live(teacher, pairs)
    if name == "hetcomp":
        knowledge = several(knowledge, members(knowledge, num_teachers=6, num_states=4))
    objective = Timed(make_methods([table]), knowledge)
    objective.starts = []
    options = TrainingOptions(epochs=4, optimiser="sparse-adam", weight_decay=0.0)
    result = train(BPR(dim=6 if name == "hetcomp" else 20), objective, pairs, options)
    return {
        "pairs": pairs.num_pairs,
        "seconds": mean(record["seconds"] for record in result.history[1:]),
        "start": mean(objective.starts[1:]),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def members(knowledge: TeacherKnowledge, num_teachers: int, num_states: int) -> tuple[Member, ...]:
    """Teachers whose lists are 100 of one model's first 200 items, in an order with noise; least at the last state."""
    import torch

    from recdistill.knowledge.base import Member

    everyone, generator = torch.arange(knowledge.num_users), torch.Generator().manual_seed(2)
    ids = knowledge.top_items(everyone, 200).ids.int()
    place, epochs = torch.arange(200), tuple(range(1, num_states + 1))
    found: list[Member] = []
    for number in range(num_teachers):
        states: list[torch.Tensor] = []
        for left in range(num_states, 0, -1):
            order = place + 50 * left * torch.rand(ids.shape, generator=generator)
            states.append(ids.gather(1, order.topk(100, dim=1, largest=False).indices))
        found.append(Member(f"teacher {number}", tuple(states), epochs, knowledge.observed_scores()))
    return tuple(found)


if __name__ == "__main__":
    main()
