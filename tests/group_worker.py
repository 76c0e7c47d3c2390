"""One process of the two that tests/training/test_group.py starts."""

from __future__ import annotations

import sys

import torch
from torch import distributed

from recdistill.distillers.base import Objective
from recdistill.models.bpr import BPR
from recdistill.testing import tiny_interactions
from recdistill.training.group import Group
from recdistill.training.loop import train
from recdistill.training.options import TrainingOptions


def work(folder: str, rank: int) -> None:
    """Train as process ``rank`` of two and leave the item table in ``folder``."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = BPR(dim=4)
    options = TrainingOptions(epochs=3, batch_size=32, learning_rate=0.01)
    result = train(model, Objective(), tiny_interactions(21, 30, seed=2), options, group=Group(rank, 2))
    rows = sum(record["rows"] for record in result.history)
    torch.save({"table": model.item_table.detach(), "rows": rows}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
