"""Processes of a run: each sees its own users, together they train as one would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from recdistill.models.bpr import BPR
from recdistill.testing import tiny_interactions
from recdistill.training.group import Group


def test_rows_are_split_by_user() -> None:
    pairs = tiny_interactions(20, 30, seed=2)
    parts = [Group(rank, 3).own_rows(pairs) for rank in range(3)]
    assert sum(part.num_pairs for part in parts) == pairs.num_pairs
    for rank, part in enumerate(parts):
        assert set((part.users % 3).tolist()) == {rank}
    assert Group().own_rows(pairs) is pairs


def test_two_processes_keep_one_model(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "group_worker.py"), str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first["table"], second["table"])
    assert first["rows"] + second["rows"] == 3 * tiny_interactions(21, 30, seed=2).num_pairs
    start = BPR(dim=4)
    start.build(tiny_interactions(21, 30, seed=2), torch.Generator().manual_seed(0))
    assert not torch.equal(first["table"], start.item_table.detach())
