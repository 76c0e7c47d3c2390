"""The line at growing sizes: seconds and peak memory of each stage, each in a process of its own.

    python benchmarks/scale.py [--users 200000 --items 200000 --interactions 4000000] [--folder DIR]

Synthetic interactions (Zipf items), dim 32: prepare, train one epoch, extract top 100, distil one epoch with RRD
(sparse-adam, which reads and writes only touched rows), evaluate 10,000 users. Split at random 9:1 without a valid
part, so that the epochs are training alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("prepare", "train", "extract", "distill", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--interactions", type=int, default=4_000_000)
    parser.add_argument("--evaluated", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        started = time.perf_counter()
        stage(arguments.stage, arguments.folder, arguments.evaluated)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        generate(folder, arguments.users, arguments.items, arguments.interactions)
        print(
            f"{arguments.users:,} users x {arguments.items:,} items, {arguments.interactions:,} interactions"
        )
        print("| stage    | seconds | peak GB |\n|----------|--------:|--------:|")
        for name in STAGES:
            command = [sys.executable, __file__, "--stage", name, "--folder", str(folder)]
            command += ["--evaluated", str(arguments.evaluated)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            print(f"| {name:<8} | {found['seconds']:7.1f} | {found['peak']:7.2f} |", flush=True)


def generate(folder: Path, num_users: int, num_items: int, count: int) -> None:
    """Write random interactions: users alike, items by a Zipf law."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    mass = np.cumsum((np.arange(num_items) + 20.0) ** -0.8)
    items = np.searchsorted(mass, rng.random(count) * mass[-1])
    users = np.concatenate(
        [np.arange(num_users).repeat(3), rng.integers(0, num_users, count - 3 * num_users)]
    )
    pl.DataFrame({"user_id": users, "item_id": items}).write_parquet(folder / "log.parquet")


def stage(name: str, folder: Path, evaluated: int) -> None:
    """Run one stage on what the stages before left in ``folder``."""
    import recdistill

    data, training = folder / "data", {"epochs": 1, "optimiser": "sparse-adam", "learning_rate": 0.01}
    if name == "prepare":
        recdistill.prepare(folder / "log.parquet", data, split="random", ratios=(0.9, 0.0, 0.1))
        return
    if name == "train":
        recdistill.train(data, recdistill.models.BPR(dim=32), folder / "teacher", training=training)
    elif name == "extract":
        recdistill.extract(data, folder / "teacher", folder / "knowledge", kinds=["top_items"], depth=100)
    elif name == "distill":
        method = recdistill.distillers.RRD(depth=100)
        recdistill.distill(
            data,
            folder / "knowledge",
            recdistill.models.BPR(dim=32),
            method,
            folder / "student",
            training=training,
        )
    else:
        evaluate(data, folder / "student", evaluated)


def evaluate(data_path: Path, model_path: Path, count: int) -> None:
    """All metrics by full ranking, for the first ``count`` users."""
    import torch

    import recdistill
    from recdistill.data.prepared import Data
    from recdistill.evaluation.metrics import list_metrics
    from recdistill.models.ranking import top_items

    data, model = Data.load(data_path), recdistill.load(model_path)
    users = torch.nonzero(data.test.user_counts > 0)[:count, 0]
    ids, _ = top_items(model.frozen(), users, 20, [data.train, data.valid])
    found = list_metrics(ids, data.test.rows(users), (5, 10, 20))
    print({name: round(float(value.mean()), 5) for name, value in found.items()}, file=sys.stderr)


if __name__ == "__main__":
    main()
