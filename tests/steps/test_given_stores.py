"""`run` and `compare` with teachers from elsewhere: their stores take part like those of trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import recdistill as rd
from line_cases import Notes, log_of_tastes
from recdistill.artifacts import read_manifest, save_arrays
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.reporting.overall import comparison_lines

FAST: dict[str, Any] = {"epochs": 3, "batch_size": 256, "learning_rate": 0.02}
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}
BPR = {"name": "bpr", "dim": 16, "training": FAST}
pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "log.csv"
    log_of_tastes().write_csv(path)
    return path


@pytest.fixture(scope="module")
def stores(log: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What another program wrote for splits 3 and 4: the most popular items to each user."""
    folder = tmp_path_factory.mktemp("stores")
    for split in (3, 4):
        by_hand(folder / f"split-{split}", rd.prepare(log, folder / f"data-{split}", seed=split))
    return str(folder / "split-{split}")


def by_hand(path: Path, data: Data) -> None:
    popular = data.train.item_counts.argsort(descending=True)
    lists = torch.full((data.num_users, 20), -1, dtype=torch.int32)
    for user in range(data.num_users):
        own = data.train.items[data.train.indptr[user] : data.train.indptr[user + 1]]
        new = popular[~torch.isin(popular, own)][:20]
        lists[user, : len(new)] = new.int()
    path.mkdir()
    save_arrays(path / "top_items.safetensors", {"ids": lists})
    manifest = {"kind": "knowledge", "format": 1, "inputs": {"data": data.hash}}
    (path / "manifest.json").write_text(json.dumps(manifest))


def file_of(log: Path, *teachers: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "data": {"source": str(log)},
        "teacher": list(teachers),
        "student": {"dim": 4, "training": FAST},
        "evaluate": {"k": [5, 10], "latency": False},
        **changed,
    }


def test_a_comparison_of_what_was_given_and_what_is_trained(log: Path, stores: str, tmp_path: Path) -> None:
    method = {"name": "rrd", "distill": [RRD], "teachers": ["ensemble", "mine"]}
    tree = file_of(
        log, BPR, {"name": "mine", "knowledge": stores}, ensemble={}, method=[method], split_seeds=[3, 4]
    )
    notes = Notes()
    found = rd.compare(tree, tmp_path / "out", progress=notes)
    assert any(
        "8 runs, 0 of them done" in line for line in notes.notes
    )  # 2 splits x (bpr, alone, 2 students)
    combined = found.comparison["evaluations"]["full"]["rows"]
    assert set(combined) == {"teacher-bpr", "teacher-mine", "ensemble", "alone", "rrd", "rrd-mine"}
    assert found.comparison["roles"]["teacher-mine"] == "teacher"
    assert found.comparison["lineage"]["rrd-mine"] == {"teacher": "teacher-mine", "alone": "alone"}
    for split in (3, 4):
        folder = tmp_path / "out" / f"split-{split}"
        store = read_manifest(Path(stores.replace("{split}", str(split))))
        told = read_manifest(folder / "ensemble").summary["members"]
        assert (told[1]["knowledge"], told[1]["epochs"]) == (store.hash, [0])
        assert read_manifest(folder / "rrd-mine-seed-0").inputs["knowledge"] == store.hash
    (each,) = {len(combined[row]["metrics"]["ndcg@10"]["each"]) for row in ("teacher-mine", "rrd-mine")}
    assert each == 2
    (table,) = comparison_lines(found.comparison)
    costs = {line[0]: line[-4:] for line in table}
    assert costs["teacher-mine"] == costs["ensemble"] == ["–"] * 4
    assert "–" not in costs["teacher-bpr"]
    assert set(pl.read_parquet(found.out / "comparison" / "runs.parquet")["name"]) == {
        "teacher-bpr", "alone", "rrd", "rrd-mine"
    }  # fmt: skip
    page = found.page.read_text(encoding="utf-8")
    assert "It was not trained here, or a teacher of it was not" in page
    again = Notes()
    rd.compare(tree, tmp_path / "out", progress=again)
    assert any("8 runs, 8 of them done" in line for line in again.notes)


def test_a_run_from_a_store_alone(log: Path, stores: str, tmp_path: Path) -> None:
    notes = Notes()
    found = rd.run(file_of(log, {"knowledge": stores}), tmp_path / "run", seed=3, progress=notes)
    assert any("the method is recommended-lists" in line for line in notes.notes)
    assert list(found.evaluation["models"]) == ["split-3", "alone", "student"]
    assert found.evaluation["models"]["student"]["teacher"] == "split-3"
    assert not list((tmp_path / "run").glob("teacher*")) + list((tmp_path / "run").glob("knowledge*"))


def test_a_run_puts_it_together_with_a_trained_one(log: Path, stores: str, tmp_path: Path) -> None:
    tree = file_of(log, BPR, {"name": "mine", "knowledge": stores}, distill=[RRD], seed=4)
    found = rd.run(tree, tmp_path / "run")
    assert list(found.evaluation["models"]) == ["teacher-bpr", "split-4", "ensemble", "alone", "student"]
    assert read_manifest(tmp_path / "run" / "ensemble").options["ensemble"] == ["bpr", "split-4"]


@pytest.mark.parametrize("command", ["run", "compare"])
@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"knowledge": "nowhere"}, "teacher.knowledge: no knowledge store at nowhere; .*docs/knowledge.md"),
        ({"knowledge": 3}, "teacher.knowledge: expected the directory of a store, found 3"),
        ({"knowledge": "STORES", "dim": 4}, "teacher.dim: a teacher with knowledge is not trained"),
        ({"knowledge": "STORES", "training": FAST}, "teacher.training: a teacher with knowledge"),
    ],
)
def test_mistakes_stop_it_before_the_first_step(
    log: Path, stores: str, tmp_path: Path, command: str, teacher: dict[str, Any], words: str
) -> None:
    given = {key: stores if value == "STORES" else value for key, value in teacher.items()}
    _refused(command, file_of(log, given), tmp_path / "out", words)


@pytest.mark.parametrize("command", ["run", "compare"])
def test_extract_has_nothing_to_do(log: Path, stores: str, tmp_path: Path, command: str) -> None:
    tree = file_of(log, {"knowledge": stores}, extract={"depth": 20})
    _refused(command, tree, tmp_path / "out", "extract: every teacher has its knowledge already")


def _refused(command: str, tree: dict[str, Any], out: Path, words: str) -> None:
    given = {**tree, "seed": 3} if command == "run" else {**tree, **_compared(split_seeds=[3])}
    with pytest.raises(OptionError, match=words):
        getattr(rd, command)(given, out)
    assert not out.exists()


def _compared(**more: Any) -> dict[str, Any]:
    return {"method": [{"name": "rrd", "distill": [RRD]}], **more}


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_store_of_other_data_is_refused_before_anything_is_trained(
    log: Path, stores: str, tmp_path: Path, command: str
) -> None:
    other = stores.replace("{split}", "4")
    tree = file_of(log, BPR, {"name": "mine", "knowledge": other}, ensemble={})
    given = {**tree, "seed": 3} if command == "run" else {**tree, **_compared(split_seeds=[3])}
    with pytest.raises(ArtifactError, match="was extracted from data"):
        getattr(rd, command)(given, tmp_path / "out")
    assert not list(tmp_path.glob("out/**/weights.safetensors"))


def test_what_the_store_lacks_is_said_before_a_student_is_trained(
    log: Path, stores: str, tmp_path: Path
) -> None:
    method = {"name": "de", "distill": [{"method": "de"}]}
    tree = file_of(log, {"knowledge": stores}, method=[method], split_seeds=[3])
    with pytest.raises(MissingKnowledgeError, match=r"de reads embeddings.*docs/knowledge.md"):
        rd.compare(tree, tmp_path / "out")
    with pytest.raises(MissingKnowledgeError, match="de reads embeddings"):
        rd.run(file_of(log, {"knowledge": stores}, distill=[{"method": "de"}], seed=3), tmp_path / "run")
    assert not list(tmp_path.glob("*/**/weights.safetensors"))


@pytest.mark.parametrize("command", ["run", "compare"])
def test_lists_too_short_to_be_evaluated_are_refused_before_anything_is_trained(
    log: Path, stores: str, tmp_path: Path, command: str
) -> None:
    tree = file_of(log, BPR, {"name": "mine", "knowledge": stores}, ensemble={})
    tree["evaluate"] = {"k": [30]}
    given = {**tree, "seed": 3} if command == "run" else {**tree, **_compared(split_seeds=[3])}
    with pytest.raises(OptionError, match="30"):
        getattr(rd, command)(given, tmp_path / "out")
    assert not list(tmp_path.glob("out/**/weights.safetensors"))


def test_tuning_with_a_store(log: Path, stores: str, tmp_path: Path) -> None:
    tree = file_of(
        log,
        {"knowledge": stores},
        distill=[RRD],
        seed=3,
        tune={"trials": 1},
        space={"rrd.weight": [0.1, 0.2]},
    )
    rd.tune(tree, tmp_path / "out")
    assert not list(tmp_path.glob("out/teacher*")) + list(tmp_path.glob("out/knowledge*"))
    with pytest.raises(OptionError, match=r"teacher\.knowledge: it is no teacher to train"):
        rd.tune({**tree, "tune": {"target": "teacher"}}, tmp_path / "other")
