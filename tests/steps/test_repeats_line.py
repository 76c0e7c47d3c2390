"""Data whose users take items again: rankings leave nothing out, and neither do lists of teacher and student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recdistill as rd
from recdistill.artifacts import save_arrays
from recdistill.data.prepared import Data
from recdistill.distillers.base import Objective
from recdistill.distillers.hetcomp import HetComp
from recdistill.distillers.rce_kd import RCEKD
from recdistill.knowledge.teacher import live, load_knowledge
from recdistill.models.ranking import top_items, top_users
from recdistill.steps.ensemble import lists_validation
from recdistill.testing import CPU

ITEMS = 12
FAST: dict[str, Any] = {"epochs": 25, "batch_size": 20, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who go to and fro between two items; a teacher, its store and a student of that."""
    rng = np.random.default_rng(0)
    pairs = [rng.choice(ITEMS, 2, replace=False) for _ in range(60)]
    rows = [(user, int(pair[step % 2]), step) for user, pair in enumerate(pairs) for step in range(6)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row")
    folder = tmp_path_factory.mktemp("repeats")
    rd.prepare(table, folder / "data", split="leave-one-out", holdout="last")
    rd.train(folder / "data", {"name": "sasrec", "dim": 12}, folder / "teacher", training=FAST)
    rd.extract(folder / "data", folder / "teacher", folder / "knowledge", depth=ITEMS)
    return folder


def test_lists_hold_what_users_have_taken(root: Path) -> None:
    data = Data.load(root / "data")
    teacher = rd.load(root / "teacher")
    users, items = torch.arange(data.num_users), torch.arange(data.num_items)
    stored, alive = load_knowledge(root / "knowledge", data), live(teacher, data.train)
    by_user = top_items(teacher.frozen(), users, ITEMS)[0]
    by_item = top_users(teacher.frozen(), items, data.num_users)[0]
    for knowledge in (stored, alive):
        assert torch.equal(knowledge.top_items(users, ITEMS).ids.long(), by_user)
        assert torch.equal(knowledge.top_users(items, data.num_users).ids.long(), by_item)
    assert bool((by_user >= 0).all())


def test_stored_lists_rank_as_their_model_does(root: Path) -> None:
    found = rd.evaluate(
        root / "data",
        [root / "teacher", root / "knowledge"],
        root / "evaluation",
        split="valid",
        k=[1, 5, 10],
        latency=False,
    )
    teacher, store = (found["models"][name]["metrics"] for name in ("teacher", "knowledge"))
    assert found["masked"] == []
    assert store == teacher
    assert store["hit@1"]["mean"] > 0.9  # each valid row is an item of train
    data = Data.load(root / "data")
    lists = load_knowledge(root / "knowledge", data).top_items(torch.arange(data.num_users), ITEMS).ids
    assert lists_validation(lists, data, ["train"])["ndcg@10"] == pytest.approx(teacher["ndcg@10"]["mean"])


def test_lists_from_elsewhere_keep_it(root: Path, tmp_path: Path) -> None:
    data = Data.load(root / "data")
    lists = data.train.items.view(-1, 2)  # what each user has taken, and nothing else
    (tmp_path / "theirs").mkdir()
    save_arrays(tmp_path / "theirs" / "top_items.safetensors", {"ids": lists})
    manifest = {"kind": "knowledge", "format": 1, "inputs": {"data": data.hash}}
    (tmp_path / "theirs" / "manifest.json").write_text(json.dumps(manifest))
    found = load_knowledge(tmp_path / "theirs", data).top_items(torch.arange(data.num_users), 2)
    assert torch.equal(found.ids, lists)


def test_the_students_lists_hold_it_too(root: Path) -> None:
    data, student = Data.load(root / "data"), rd.load(root / "teacher")
    method = RCEKD(k=3, num_sampled=2)
    objective = Objective([method], load_knowledge(root / "knowledge", data), base_weight=1.0)
    objective.setup(student, data.train, 3, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    users = torch.arange(data.num_users)
    newest = data.train.event_items[data.train.event_indptr[1:] - 2].int()  # taken before, and next again
    assert float((method.get_buffer("items")[:, 0] == newest).float().mean()) > 0.9
    teachers = load_knowledge(root / "knowledge", data).top_items(users, 3).ids
    assert torch.equal(method.get_buffer("items")[:, :3].sort().values, teachers.int().sort().values)


def test_hetcomp_reads_no_observed_items_beside_lists_that_hold_them(root: Path) -> None:
    data, student = Data.load(root / "data"), rd.load(root / "teacher")
    method = HetComp(depth=6, discrepancy_depth=4)
    objective = Objective([method], load_knowledge(root / "knowledge", data), base_weight=0.0)
    objective.setup(student, data.train, 3, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    assert method.get_buffer("ordered").shape == (data.num_users, 0)
    batch = next(student.batches(data.train, 20, torch.Generator().manual_seed(1)))
    (term,) = objective.terms(student, student.state(batch), batch).values()
    assert bool(torch.isfinite(term))


@pytest.mark.parametrize("method", ["rrd", "rce-kd", "cd", "rrd-dcd", "unkd", "sld", "kd"])
def test_methods_learn_from_such_lists(root: Path, tmp_path: Path, method: str) -> None:
    made = rd.distill(
        root / "data",
        root / "knowledge",
        {"name": "sasrec", "dim": 4},
        [{"method": method}],
        tmp_path / "student",
        training={**FAST, "epochs": 2},
    )
    assert made.recommend([0], k=ITEMS, exclude_seen=False).height == ITEMS
