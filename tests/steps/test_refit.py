"""Refitted teachers: what is learned from them is learned on train and valid rows, and nothing chooses by these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recdistill as rd
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import OptionError
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.progress import Silent
from recdistill.steps.distill import open_knowledge

FAST = {"epochs": 4, "batch_size": 128, "learning_rate": 0.02}
REFITTED = ("train", "valid")
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}


class Said(Silent):
    def __init__(self) -> None:
        self.text = ""

    def note(self, text: str) -> None:
        self.text += text + "\n"


pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of 60 users with 12 of 50 items in some order each, and teachers that saw its valid rows."""
    root = tmp_path_factory.mktemp("refit")
    rng = np.random.default_rng(0)
    items = np.argsort(rng.gumbel(size=(60, 50)), axis=1)[:, :12].reshape(-1)
    users = np.repeat([f"u{n}" for n in range(60)], 12)
    pl.DataFrame({"user_id": users, "item_id": items, "position": np.tile(np.arange(12), 60)}).write_csv(
        root / "log.csv"
    )
    data = rd.prepare(root / "log.csv", root / "data")
    training = {**FAST, "trajectory": (0.5, 1.0)}
    rd.train(data, {"name": "bpr", "dim": 8}, root / "teacher", training=training, on=REFITTED)
    rd.train(data, {"name": "sasrec", "dim": 8, "heads": 1}, root / "reader", training=FAST, on=REFITTED)
    rd.train(data, {"name": "bpr", "dim": 8}, root / "first", training=FAST)
    for name in ("teacher", "first"):
        rd.extract(data, root / name, root / f"knowledge-{name}", depth=20)
    return root


def observed_in(knowledge: TeacherKnowledge, data: Data, split: str) -> int:
    """How many pairs of a split stand on the teacher's lists, of its items, its users and its earlier states."""
    users, items = torch.arange(data.num_users), torch.arange(data.num_items)
    (member,) = knowledge.members(20)
    lists = [knowledge.top_items(users, 20).ids, *(state.long() for state in member.states)]
    found = sum(int(data.split(split).contains(users, ids).sum()) for ids in lists)
    ids = knowledge.top_users(items, 20).ids
    return found + int(
        data.split(split).contains(ids.clamp(min=0).reshape(-1), items.repeat_interleave(20)).sum()
    )


def test_its_lists_hold_nothing_that_it_was_fitted_on(line: Path) -> None:
    data = Data.load(line / "data")
    stored = open_knowledge(line / "knowledge-teacher", data)
    for knowledge in (stored, open_knowledge(line / "teacher", data)):
        assert knowledge.on == REFITTED
        assert observed_in(knowledge, data, "train") == observed_in(knowledge, data, "valid") == 0
        assert len(knowledge.observed_scores()) == data.train.num_pairs + data.valid.num_pairs
    assert len(stored.members(20)[0].states) == 2
    first = open_knowledge(line / "knowledge-first", data)
    assert observed_in(first, data, "train") == 0 < observed_in(first, data, "valid")


@pytest.mark.parametrize("source", ["knowledge-teacher", "teacher", "ensemble"])
def test_its_student_is_trained_on_what_it_was_fitted_on(line: Path, tmp_path: Path, source: str) -> None:
    data, said = Data.load(line / "data"), Said()
    if source == "ensemble":
        rd.ensemble([line / "knowledge-teacher"], tmp_path / source, data=data)
        assert read_manifest(tmp_path / source).summary["validation"] == {}
    knowledge = tmp_path / source if source == "ensemble" else line / source
    student = rd.distill(
        data, knowledge, {"name": "bpr", "dim": 4}, ["hetcomp", {"method": "rce-kd", "k": 10}],
        tmp_path / "student", training=FAST, progress=said,
    )  # fmt: skip
    assert "the teacher was fitted on train and valid rows: so is the student" in said.text
    assert "nothing to validate on: the last epoch is kept" in said.text
    assert student.train_pairs is not None
    assert student.train_pairs.num_pairs == data.train.num_pairs + data.valid.num_pairs
    manifest = read_manifest(tmp_path / "student")
    assert (manifest.on, manifest.summary["best_metric"]) == (REFITTED, None)
    models = {"student": tmp_path / "student", "source": knowledge}
    found = rd.evaluate(data, models, tmp_path / "e", k=(5,), latency=False)
    assert found["masked"] == ["train", "valid"]
    assert found["history"] == ["train", "valid"]
    for name in models.values():
        with pytest.raises(OptionError, match="trained on the valid split"):
            rd.evaluate(data, name, tmp_path / "v", split="valid", latency=False)


def test_a_reader_of_sequences_is_asked_after_the_valid_rows(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")
    said = Said()
    student = rd.distill(
        data, line / "reader", {"name": "sasrec", "dim": 4, "heads": 1}, ["rce-kd", "adarec"], tmp_path / "student",
        training=FAST, progress=said,
    )  # fmt: skip
    assert "so is the student" in said.text
    pairs = student.train_pairs
    assert pairs is not None
    assert len(pairs.event_items) == len(data.train.event_items) + len(data.valid.event_items)
    knowledge = open_knowledge(line / "reader", data)
    teacher = rd.load(line / "reader")
    users = torch.arange(data.num_users)
    expected = teacher.recommend(data.users.ids(), k=5)
    lists = knowledge.top_items(users, 5).ids
    assert expected["item_id"].to_list() == data.items.ids(lists.reshape(-1)).to_list()


def test_teachers_of_different_splits_are_not_put_together(line: Path, tmp_path: Path) -> None:
    told = "fitted on different splits: teacher on train and valid, first on train"
    with pytest.raises(OptionError, match=told):
        rd.ensemble(
            [line / "knowledge-teacher", line / "knowledge-first"], tmp_path / "e", data=line / "data"
        )
    assert not (tmp_path / "e").exists()


def test_nothing_chooses_by_valid_rows_that_the_teacher_knows(line: Path, tmp_path: Path) -> None:
    inherits = {"name": "searched", "search": SEARCH, "model": {"dim": 4}}
    with pytest.raises(
        OptionError, match=r"method searched: search\.init is inherit, .* set init = \"scratch\""
    ):
        rd.compare(
            comparison(line, method=[inherits], teacher={"model": "sasrec", "live": True}), tmp_path / "c"
        )
    with pytest.raises(OptionError, match="fitted on valid rows too, by which a search chooses"):
        rd.search(line / "data", line / "reader", tmp_path / "s", model={"dim": 4}, training=FAST)
    tree = {
        "data": {"path": str(line / "data")},
        "teacher": {"knowledge": str(line / "knowledge-teacher")},
        "student": {"dim": 4, "training": FAST},
        "distill": [{"method": "rce-kd"}],
        "tune": {"trials": 1},
        "space": {"rce-kd.weight": [1.0, 2.0]},
    }
    inherits = {"name": "searched", "search": SEARCH, "model": {"dim": 4}}
    with pytest.raises(
        OptionError, match=r"method searched: search\.init is inherit, .* set init = \"scratch\""
    ):
        rd.compare(
            comparison(line, method=[inherits], teacher={"model": "sasrec", "live": True}), tmp_path / "c"
        )
    with pytest.raises(OptionError, match="fitted on valid rows too, by which tuning chooses"):
        rd.tune(tree, tmp_path / "t")
    run = {key: tree[key] for key in ("teacher", "student", "distill")} | {
        "data": {"source": str(line / "log.csv")}
    }
    inherits = {"name": "searched", "search": SEARCH, "model": {"dim": 4}}
    with pytest.raises(
        OptionError, match=r"method searched: search\.init is inherit, .* set init = \"scratch\""
    ):
        rd.compare(
            comparison(line, method=[inherits], teacher={"model": "sasrec", "live": True}), tmp_path / "c"
        )
    with pytest.raises(OptionError, match="fitted on valid rows too, by which a run chooses"):
        rd.run(run, tmp_path / "r")
    with pytest.raises(OptionError, match="by which bidirectional training chooses"):
        rd.bidirectional(line / "data", line / "teacher", "bpr", tmp_path / "b", training=FAST)


SEARCH = {"epochs": 2, "nodes": 2, "operations": ["conv3", "avg3", "skip"], "cells": 2}


def comparison(line: Path, **changed: Any) -> dict[str, Any]:
    return {
        "refit": True,
        "data": {"source": str(line / "log.csv")},
        "extract": {"depth": 20},
        "student": {"dim": 4, "training": FAST | {"validate_every": 1, "patience": 1}},
        "method": [{"name": "rrd", "distill": [RRD]}],
        "evaluate": {"k": [5], "latency": False},
        **changed,
    }


def test_a_comparison_refits_what_it_selected(line: Path, tmp_path: Path) -> None:
    teachers = [{"name": name, "model": name, "dim": 8, "training": FAST} for name in ("bpr", "cml")]
    tree = comparison(line, teacher=teachers, ensemble={"depth": 20}, seeds=[0, 1])
    found = rd.compare(tree, tmp_path / "c")
    split = tmp_path / "c" / "split-0"
    data = Data.load(split / "data")
    for first in (
        "teacher-bpr",
        "teacher-cml",
        *(f"{row}-seed-{seed}" for row in ("alone", "rrd") for seed in (0, 1)),
    ):
        before, after = read_manifest(split / first), read_manifest(split / f"{first}-refit")
        assert (before.on, after.on) == (("train",), REFITTED)
        assert after.summary["epochs"] == before.summary["best_epoch"]
        assert {**after.options["training"], "epochs": 4} == before.options["training"]
        pairs = rd.load(split / f"{first}-refit").train_pairs
        assert pairs is not None
        assert pairs.num_pairs == data.train.num_pairs + data.valid.num_pairs
    ensemble = open_knowledge(split / "ensemble-refit", data)
    assert ensemble.on == REFITTED
    assert read_manifest(split / "rrd-seed-1-refit").inputs["knowledge"] == ensemble.manifest.hash  # pyright: ignore
    models = json.loads((split / "evaluation-full" / "metrics.json").read_text())["models"]
    assert set(models) == {
        "teacher-bpr-refit", "teacher-cml-refit", "ensemble-refit",
        *(f"{row}-seed-{seed}-refit" for row in ("alone", "rrd") for seed in (0, 1)),
    }  # fmt: skip
    rows = found.comparison["evaluations"]["full"]["rows"]
    assert set(rows) == {"teacher-bpr", "teacher-cml", "ensemble", "alone", "rrd"}
    value = [models[f"rrd-seed-{seed}-refit"]["metrics"]["recall@5"]["mean"] for seed in (0, 1)]
    assert rows["rrd"]["metrics"]["recall@5"]["mean"] == pytest.approx(sum(value) / 2)
    assert "all refitted on train and valid rows" in found.page.read_text()
    made = {path: path.stat().st_mtime_ns for path in split.glob("*/manifest.json")}
    rd.compare(tree, tmp_path / "c")
    assert made == {path: path.stat().st_mtime_ns for path in split.glob("*/manifest.json")}


def test_the_refit_of_a_search_has_its_architecture(line: Path, tmp_path: Path) -> None:
    search = SEARCH | {"init": "scratch"}
    method = {"search": search, "model": {"dim": 4}, "training": FAST}
    tree = comparison(
        line,
        teacher={"model": "sasrec", "dim": 8, "heads": 1, "training": FAST, "live": True},
        student={"model": "sasrec", "dim": 4, "heads": 1, "training": FAST},
        method=[
            {"name": "searched", **method},
            {"name": "own", **method, "search": search | {"variant": "no-distillation"}},
            {"name": "drawn", **method, "search": {"variant": "random"}},
        ],
    )
    rd.compare(tree, tmp_path / "c")
    for name, learned in (("searched", ["adarec"]), ("own", []), ("drawn", ["adarec"])):
        before, after = (
            read_manifest(tmp_path / "c" / "split-0" / f"{name}-seed-0{suffix}") for suffix in ("", "-refit")
        )
        architecture = before.summary["model_options"]
        assert {key: after.options["model"][key] for key in architecture} == architecture
        assert (after.options["model"]["dim"], after.on) == (4, REFITTED)
        assert [part["method"] for part in after.options.get("distill", [])] == learned


def test_a_comparison_refuses_teachers_that_it_cannot_refit(line: Path, tmp_path: Path) -> None:
    given = {"knowledge": str(line / "knowledge-first")}
    with pytest.raises(
        OptionError, match=r"compare\.refit: teachers are trained again too, and .*knowledge-first is"
    ):
        rd.compare(comparison(line, teacher=given), tmp_path / "c")
    with pytest.raises(OptionError, match=r"evaluate\.split is valid, and refit trains on the valid rows"):
        rd.compare(comparison(line, evaluate={"split": "valid"}), tmp_path / "c")
    seen = {"knowledge": str(line / "knowledge-teacher")}
    inherits = {"name": "searched", "search": SEARCH, "model": {"dim": 4}}
    with pytest.raises(
        OptionError, match=r"method searched: search\.init is inherit, .* set init = \"scratch\""
    ):
        rd.compare(
            comparison(line, method=[inherits], teacher={"model": "sasrec", "live": True}), tmp_path / "c"
        )
    with pytest.raises(OptionError, match="fitted on valid rows too, by which a comparison chooses"):
        rd.compare(comparison(line, teacher=seen, refit=False), tmp_path / "c")


def test_a_run_that_failed_is_not_refitted(line: Path, tmp_path: Path) -> None:
    student = {"dim": 4, "training": FAST | {"learning_rate": 1e30}}
    found = rd.compare(
        comparison(line, teacher={"dim": 8, "training": FAST}, student=student, alone={"training": FAST}),
        tmp_path / "c",
    )
    assert [one["name"] for one in found.failed] == ["rrd"]
    assert not (tmp_path / "c" / "split-0" / "rrd-seed-0-refit").exists()
    assert set(found.comparison["evaluations"]["full"]["rows"]) == {"teacher", "alone"}


def test_what_some_models_know_of_a_user_is_told(line: Path, tmp_path: Path) -> None:
    said = Said()
    models = [line / "teacher", line / "first", line / "reader"]
    found = rd.evaluate(line / "data", models, tmp_path / "e", k=(5,), latency=False, progress=said)
    assert found["history"] == ["train"]
    assert "fitted on valid rows too, which the others have not seen: teacher, reader" in said.text
    assert "history: train and valid for reader, train for all others" in said.text
