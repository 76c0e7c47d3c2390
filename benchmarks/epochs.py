"""Seconds a training epoch and peak memory of the models and methods, each in a process of its own.

    python benchmarks/epochs.py PATH/TO/citeulike-t/interactions.parquet [--only NAME …]

Users with at least 5 interactions, random 8:1:1, batch 2,048, student dim 20, teacher dim 400; RRD with K 100 and
L 200, DE with 30 experts. An epoch is the median of those after the first; validation is not in it. Peak memory is the
process' resident set, torch's import included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ADAM, SPARSE = {"optimiser": "adam"}, {"optimiser": "sparse-adam"}
CASES: dict[str, dict[str, object]] = {
    "bpr dim 20, adam": {"dim": 20, "training": ADAM, "target": 0.25, "published": 1.9},
    "bpr dim 20, sparse-adam": {"dim": 20, "training": SPARSE, "target": 0.1, "published": 1.9},
    "bpr dim 400, adam": {"dim": 400, "training": ADAM, "target": 3.0, "published": 6.0},
    "bpr dim 400, sparse-adam": {"dim": 400, "training": SPARSE, "target": 0.5, "published": 6.0},
    "rrd": {"dim": 20, "training": ADAM, "rrd": True, "target": 0.5, "published": 8.0},
    "de, soft": {"dim": 20, "training": ADAM, "de": 1000, "target": 16.0, "published": 80.0, "epochs": 3},
    "de, soft, bf16": {
        "dim": 20, "training": {**ADAM, "precision": "bf16"}, "de": 1000, "target": 8.0, "published": 80.0, "epochs": 3,
    },
    "de, one-hot": {"dim": 20, "training": ADAM, "de": 1, "target": 1.5, "published": 80.0},
    "de-rrd, one-hot": {"dim": 20, "training": ADAM, "rrd": True, "de": 1, "target": None, "published": None},
}  # fmt: skip


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
        print(f"| {'case':<26} | s an epoch | target | published code | peak GB |")
        print(f"|{'-' * 28}|-----------:|-------:|---------------:|--------:|")
        for name in arguments.only:
            command = [sys.executable, __file__, str(Path(folder) / "data"), "--case", name]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            case = CASES[name]
            print(
                f"| {name:<26} | {found['seconds']:10.3f} | {case['target'] or '':>6} |"
                f" {case['published'] or '':>14} | {found['peak']:7.2f} |",
                flush=True,
            )


def measure(data_path: Path, case: dict[str, object]) -> dict[str, float]:
    """Train a few epochs; the median epoch and the peak."""
    import torch

    from recdistill.data.prepared import Data
    from recdistill.distillers import DE, RRD, Objective
    from recdistill.knowledge.teacher import live
    from recdistill.models import BPR
    from recdistill.training.loop import TrainingOptions, train

    pairs = Data.load(data_path).train
    methods = []
    if case.get("rrd"):
        methods.append(RRD(num_interesting=100, num_uninteresting=200))
    if case.get("de"):  # annealed over 1 epoch: one-hot from the second on
        methods.append(DE(num_experts=30, anneal_epochs=int(str(case["de"]))))
    objective = Objective()
    if methods:
        teacher = BPR(dim=400)
        teacher.build(pairs, torch.Generator().manual_seed(1))
        objective = Objective(methods, live(teacher, pairs))
    training = case["training"]
    assert isinstance(training, dict)
    options = TrainingOptions(batch_size=2048, epochs=int(str(case.get("epochs", 8))), **training)
    model = BPR(dim=int(str(case["dim"])))
    result = train(model, objective, pairs, options)
    return {
        "seconds": median(record["seconds"] for record in result.history[1:]),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


if __name__ == "__main__":
    main()
