"""Seconds a training epoch of the sequence models, peak memory, and the largest tensor of a step, on one thread.

    python benchmarks/sequences.py PATH/TO/amazon-beauty/interactions.parquet [--only NAME …] [--dim 64] [--epochs 3]

Leave-one-out in time, full softmax, steps of 2,048 targets, everything else at its defaults; each model in a
process of its own. An epoch is the fastest of those after the first, without validation. Peak memory is the
process' resident set, torch's import included. The largest tensor is that of the first step, forward and
backward; what a dense one-hot of its targets would take stands beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = ("sasrec", "nextitnet", "gru4rec", "hstu", "bert4rec", "cellnet")
BATCH = 2048


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=MODELS, metavar="NAME")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.model:
        print(json.dumps(measure(chosen.source, chosen.model, chosen.dim, chosen.epochs)))
        return
    import recdistill

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        recdistill.prepare(chosen.source, data, split="leave-one-out", holdout="last")
        print("| model     | s an epoch | peak GB | largest tensor of a step, MB | targets x items, MB |")
        print("|-----------|-----------:|--------:|-----------------------------:|--------------------:|")
        for name in chosen.only:
            command = [sys.executable, __file__, str(data), "--model", name]
            command += ["--dim", str(chosen.dim), "--epochs", str(chosen.epochs)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"| {name:<9} | {found['seconds']:10.1f} | {found['peak']:7.2f} | {found['largest']:28.1f} |"
                f" {found['dense']:19.0f} |",
                flush=True,
            )


def measure(data_path: Path, name: str, dim: int, epochs: int) -> dict[str, float]:
    """Train a few epochs; the least of them, the peak, and the largest tensor of a step."""
    import torch

    from recdistill.data.prepared import Data
    from recdistill.distillers import Objective
    from recdistill.steps.fit import make_model
    from recdistill.testing.tiny import largest_tensor
    from recdistill.training.loop import train
    from recdistill.training.options import TrainingOptions

    torch.set_num_threads(1)
    train_rows = Data.load(data_path).train
    model = make_model({"name": name, "dim": dim})
    options = TrainingOptions(batch_size=BATCH, epochs=epochs, weight_decay=0.0)
    result = train(model, Objective(), train_rows, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    batch = next(model.batches(train_rows, BATCH, torch.Generator().manual_seed(0)))
    with largest_tensor() as watch:
        model.loss(model.state(batch), batch).backward()
    return {
        "seconds": min(record["seconds"] for record in result.history[1:]),
        "peak": peak,
        "largest": watch.elements * 4 / 1e6,
        "dense": BATCH * train_rows.num_items * 4 / 1e6,
    }


if __name__ == "__main__":
    main()
