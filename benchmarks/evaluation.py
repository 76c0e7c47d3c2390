"""Full evaluation against the top-50 lists alone, on CiteULike-sized data.

    python benchmarks/evaluation.py PATH/TO/citeulike-t/interactions.parquet

Users with at least 5 interactions, random 8:1:1; a random model of dim 20 and one of dim 400. "All metrics" ranks the
test split at k 5, 10, 20 and 50 with every per-user metric, coverage and popularity groups. Medians of 5 runs, in one
process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

import recdistill
from recdistill.evaluation.protocol import make_task, rank_all
from recdistill.evaluation.rankers import model_ranker
from recdistill.models.ranking import top_items


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = recdistill.prepare(
            arguments.source, Path(folder) / "data", min_user_interactions=5, split="random"
        )
        print("| model | top-50 lists, s | all metrics, s | ratio |\n|---|---|---|---|")
        for dim in (20, 400):
            model = recdistill.models.BPR(dim=dim)
            model.build(data.train, torch.Generator().manual_seed(0))
            model.attach(data.users, data.items, data.train)
            task = make_task(data, "test", "seen", (5, 10, 20, 50))
            users = torch.nonzero(data.test.user_counts > 0)[:, 0]
            hidden = [data.train.union(data.valid)]
            lists = seconds(lambda m=model, u=users, h=hidden: top_items(m.frozen(), u, 50, h))
            whole = seconds(lambda m=model, t=task: rank_all(model_ranker(m), t))
            print(f"| bpr dim {dim} | {lists:.3f} | {whole:.3f} | {whole / lists:.2f} |")


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median time of a call, after one that is not counted."""
    call()
    found: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return median(found)


if __name__ == "__main__":
    main()
