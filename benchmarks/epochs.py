"""Seconds a training epoch and peak memory of the models and methods, each in a process of its own.

    python benchmarks/epochs.py PATH/TO/citeulike-t/interactions.parquet [--only NAME …]

Users with at least 5 interactions, random 8:1:1, batch 2,048, student dim 20, teacher dim 400; RRD: K 100 and L 200;
30 experts or groups, everything else at its defaults. An epoch is the median of those after the first (DCD refreshes
every third epoch: the mean), with what the method does at its start; validation is not in it. Peak memory is the
process' resident set, torch's import included. HetComp with several teachers reads lists of perturbed copies of one,
four states each, and compares the student with all of them at each epoch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from recdistill.knowledge.base import Member
    from recdistill.knowledge.teacher import TeacherKnowledge

RRD: dict[str, object] = {"method": "rrd", "num_interesting": 100, "num_uninteresting": 200}
SOFT: dict[str, object] = {"num_experts": 30, "anneal_epochs": 1000}
HARD: dict[str, object] = {"num_experts": 30, "anneal_epochs": 1}  # one-hot from the second epoch on
HETCOMP: dict[str, Any] = {"target": 4.0, "published": 100.0, "epochs": 5}
GROUPS_SOFT: dict[str, object] = {"num_groups": 30, "anneal_epochs": 1000}
GROUPS_HARD: dict[str, object] = {"num_groups": 30, "anneal_epochs": 1}


def case(
    *methods: dict[str, object],
    target: float | None = None,
    published: float | None = None,
    dim: int = 20,
    epochs: int = 8,
    teachers: int = 1,
    **training: object,
) -> dict[str, object]:
    """One row of the table: what is trained, and what it is compared with (seconds an epoch)."""
    return {
        "methods": list(methods),
        "target": target,
        "published": published,
        "dim": dim,
        "epochs": epochs,
        "teachers": teachers,
        "training": training,
    }


CASES: dict[str, dict[str, object]] = {
    "bpr dim 20, adam": case(target=0.25, published=1.9),
    "bpr dim 20, sparse-adam": case(target=0.1, published=1.9, optimiser="sparse-adam"),
    "bpr dim 400, adam": case(dim=400, target=3.0, published=6.0),
    "bpr dim 400, sparse-adam": case(dim=400, target=0.5, published=6.0, optimiser="sparse-adam"),
    "rrd": case(RRD, target=0.5, published=8.0),
    "de, soft": case({"method": "de", **SOFT}, target=8.0, published=80.0, epochs=3),
    "de, soft, bf16": case({"method": "de", **SOFT}, target=8.0, published=80.0, epochs=3, precision="bf16"),
    "de, one-hot": case({"method": "de", **HARD}, target=1.5, published=80.0),
    "de-rrd, one-hot": case({"method": "de", **HARD}, RRD),
    "cd": case({"method": "cd"}, target=0.35, published=3.5),
    "dcd, both sides": case({"method": "dcd"}, target=1.5, published=15.5, epochs=13),
    "rce-kd": case({"method": "rce-kd"}, target=1.44, published=14.4),
    "hetcomp, overall": case({"method": "hetcomp", "transfer": "overall"}, **HETCOMP),
    "hetcomp, fine": case({"method": "hetcomp", "transfer": "fine"}, **HETCOMP),
    "hetcomp, sampled": case({"method": "hetcomp", "num_sampled": 4096}, epochs=5),
    "hetcomp, dim 6": case({"method": "hetcomp", "transfer": "overall"}, dim=6, **HETCOMP),
    "hetcomp, dim 6, six teachers": case(
        {"method": "hetcomp", "transfer": "overall", "refresh": 1}, dim=6, teachers=6, target=6.0, epochs=5
    ),
    "htd, soft": case({"method": "htd", **GROUPS_SOFT}, target=8.0, published=151.0, epochs=3),
    "htd, hard": case({"method": "htd", **GROUPS_HARD}, target=2.0, published=151.0),
    "htd, hard, all pairs": case(
        {"method": "htd", **GROUPS_HARD, "positive_only": False}, target=2.0, published=151.0
    ),
    "rd": case({"method": "rd"}),
    "ir-rrd": case({"method": "ir-rrd"}),
    "kd": case({"method": "kd"}),
    "soft-labels": case({"method": "soft-labels"}),
    "sld": case({"method": "sld"}),
    "unkd": case({"method": "unkd"}),
    "fitnet": case({"method": "fitnet"}),
    "vkd": case({"method": "vkd"}),
    "ftd": case({"method": "ftd"}),
    "nkd": case({"method": "nkd"}, epochs=4),
    "cpd, hard": case({"method": "cpd", **HARD}, epochs=4),
    "freqd": case({"method": "freqd"}, epochs=3),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES), metavar="NAME")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.source, CASES[arguments.case])))
        return
    import recdistill

    with tempfile.TemporaryDirectory() as folder:
        recdistill.prepare(arguments.source, Path(folder) / "data", min_user_interactions=5, split="random")
        print(f"| {'case':<28} | s an epoch | target | published code | peak GB |")
        print(f"|{'-' * 30}|-----------:|-------:|---------------:|--------:|")
        for name in arguments.only:
            command = [sys.executable, __file__, str(Path(folder) / "data"), "--case", name]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            case = CASES[name]
            print(
                f"| {name:<28} | {found['seconds']:10.3f} | {case['target'] or '':>6} |"
                f" {case['published'] or '':>14} | {found['peak']:7.2f} |",
                flush=True,
            )


def measure(data_path: Path, case: dict[str, object]) -> dict[str, float]:
    """Train a few epochs; the median epoch and the peak."""
    import torch

    from recdistill.data.prepared import Data
    from recdistill.distillers import Objective
    from recdistill.knowledge.teacher import live
    from recdistill.models import BPR
    from recdistill.steps.methods import make_methods
    from recdistill.training.loop import train
    from recdistill.training.options import TrainingOptions

    pairs = Data.load(data_path).train
    tables = case["methods"]
    assert isinstance(tables, list)
    objective = Objective()
    if tables:
        teacher = BPR(dim=400)
        teacher.build(pairs, torch.Generator().manual_seed(1))
        knowledge = live(teacher, pairs)
        if case["teachers"] != 1:
            knowledge = several(knowledge, perturbed(knowledge, int(str(case["teachers"])), num_states=4))
        objective = Objective(make_methods(tables), knowledge)
    training = case["training"]
    assert isinstance(training, dict)
    options = TrainingOptions(batch_size=2048, epochs=int(str(case["epochs"])), **training)
    model = BPR(dim=int(str(case["dim"])))
    statistic = (
        mean if any(table["method"] == "dcd" for table in tables) else median
    )  # it refreshes every 3rd
    result = train(model, objective, pairs, options)
    return {
        "seconds": statistic(record["seconds"] for record in result.history[1:]),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def several(knowledge: TeacherKnowledge, found: tuple[Member, ...]) -> TeacherKnowledge:
    """The knowledge with ``found`` as the teachers behind it."""
    from recdistill.knowledge.teacher import TeacherKnowledge

    class Several(TeacherKnowledge):
        def members(self, depth: int = 0) -> tuple[Member, ...]:
            return found

    return Several(knowledge.train, knowledge.frozen)


def perturbed(knowledge: TeacherKnowledge, num_teachers: int, num_states: int) -> tuple[Member, ...]:
    """Teachers whose lists are those of noisy copies of one model, the last state with the least noise."""
    import torch

    from recdistill.knowledge.base import Member
    from recdistill.models.base import EmbeddingState
    from recdistill.models.ranking import top_items

    vectors = knowledge.score_vectors()
    assert vectors is not None
    everyone, generator = torch.arange(knowledge.num_users), torch.Generator().manual_seed(2)
    found: list[Member] = []
    for number in range(num_teachers):
        states: list[torch.Tensor] = []
        for place in range(num_states):
            noise = torch.randn(vectors.users.shape, generator=generator) * vectors.users.std()
            state = EmbeddingState(vectors.users + noise * (num_states - place) / 4, vectors.items)
            states.append(top_items(state, everyone, 100, [knowledge.train])[0].int())
        epochs = tuple(range(1, num_states + 1))
        found.append(Member(f"teacher {number}", tuple(states), epochs, knowledge.observed_scores()))
    return tuple(found)


if __name__ == "__main__":
    main()
