"""What `distill` does where no method is named: ItemKNN beside the teacher where that ranks the valid rows better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import recdistill as rd
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import OptionError
from recdistill.knowledge.base import Lists
from recdistill.knowledge.teacher import TeacherKnowledge, load_knowledge
from recdistill.progress import Silent
from recdistill.steps import recipe
from recdistill.steps.distill import open_knowledge
from recdistill.steps.ensemble import lists_validation

FAST = {"epochs": 2, "batch_size": 128, "learning_rate": 0.02}


class Said(Silent):
    def __init__(self) -> None:
        self.text = ""

    def note(self, text: str) -> None:
        self.text += text + "\n"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 users with 12 of 60 items each, by taste; a teacher of few epochs and its store."""
    root = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    scores = 2 * rng.normal(size=(80, 3)) @ rng.normal(size=(60, 3)).T + rng.gumbel(size=(80, 60))
    items = np.argsort(-scores, axis=1)[:, :12].reshape(-1)
    table = pl.DataFrame({"user_id": np.repeat([f"u{n}" for n in range(80)], 12), "item_id": items + 1000})
    table.write_csv(root / "log.csv")
    data = rd.prepare(root / "log.csv", root / "data")
    teacher = rd.train(data, {"name": "bpr", "dim": 8}, root / "teacher", training={**FAST, "epochs": 4})
    rd.extract(data, teacher, root / "knowledge", depth=30)
    rd.train(data, {"name": "bpr", "dim": 3}, root / "alone", training=FAST)
    return root


def student(line: Path, out: Path, **others: object) -> tuple[str, Path]:
    """What a default student was told, and the directory where the knowledge of both is, or would be."""
    said = Said()
    rd.distill(
        line / "data", line / "knowledge", {"name": "bpr", "dim": 3}, out=out, training=FAST, progress=said, **others
    )  # fmt: skip
    return said.text, out.with_name(out.name + "-knowledge")


def test_itemknn_stands_beside_a_teacher_that_it_helps(line: Path, tmp_path: Path) -> None:
    told, store = student(line, tmp_path / "student")
    data = Data.load(line / "data")
    by_hand = rd.ensemble(
        [line / "knowledge"], tmp_path / "both", data=data, beside=["itemknn"], temperature=30.0
    )
    both = load_knowledge(store, data)
    assert torch.equal(both.lists["top_items"].ids, by_hand.lists["top_items"].ids)
    own = lists_validation(
        load_knowledge(line / "knowledge", data).top_items(torch.arange(80), 30), data, ("train",)
    )["ndcg@10"]
    assert both.manifest is not None
    found = both.manifest.summary["validation"]["ndcg@10"]
    assert found > own
    assert f"itemknn stands beside the teacher in {store}: ndcg@10 of the valid rows {found:.4f}" in told
    made = read_manifest(tmp_path / "student", kind="model")
    assert made.inputs["knowledge"] == both.manifest.hash
    assert made.summary["teacher"] == read_manifest(line / "teacher", kind="model").hash


def test_its_gap_is_that_of_the_teacher_that_was_named(line: Path, tmp_path: Path) -> None:
    student(line, tmp_path / "student")
    models = {"teacher": line / "teacher", "alone": line / "alone", "student": tmp_path / "student"}
    found = rd.evaluate(line / "data", models, tmp_path / "evaluation", latency=False, alone=line / "alone")
    assert found["models"]["student"]["teacher"] == "teacher"
    assert found["groups"]["student"]["gap_closed"]


def test_the_teacher_alone_where_both_are_worse(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "lists_validation", lambda *_: {"ndcg@10": 0.99})
    told, store = student(line, tmp_path / "student")
    assert "itemknn does not stand beside the teacher" in told
    assert "0.9900 without" in told
    assert not store.exists()
    used = read_manifest(tmp_path / "student", kind="model").inputs["knowledge"]
    assert used == read_manifest(line / "knowledge", kind="knowledge").hash


def test_named_methods_learn_from_what_is_named(line: Path, tmp_path: Path) -> None:
    told, store = student(line, tmp_path / "student", methods="recommended")
    assert "itemknn" not in told
    assert not store.exists()


def test_a_run_without_methods_shows_what_stands_beside(line: Path, tmp_path: Path) -> None:
    model = {"model": "bpr", "dim": 8, "training": {**FAST, "epochs": 4}}
    tree = {
        "data": {"source": str(line / "log.csv")},
        "teacher": model,
        "extract": {"depth": 30},
        "student": {**model, "dim": 3},
        "evaluate": {"latency": False},
    }
    found = rd.run(tree, tmp_path / "run")
    assert list(found.evaluation["models"]) == ["teacher", "student-knowledge", "alone", "student"]
    assert found.evaluation["models"]["student"]["teacher"] == "teacher"
    again = rd.run(tree, tmp_path / "run")
    assert again.evaluation == found.evaluation


def test_nothing_stands_beside_where_nothing_can_decide(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")

    def as_it_is(store: TeacherKnowledge) -> bool:
        found = recipe.with_neighbours(store, data, tmp_path / "both", force=False, progress=Silent())
        return found is store and not (tmp_path / "both").exists()

    ensemble = rd.ensemble([line / "knowledge"], tmp_path / "ensemble", data=data)
    refit = rd.train(
        data, {"name": "bpr", "dim": 8}, tmp_path / "refit", training=FAST, on=("train", "valid")
    )
    embeddings = rd.extract(data, line / "teacher", tmp_path / "embeddings", kinds=("embeddings",))
    rd.train(data, "itemknn", tmp_path / "neighbours")
    assert as_it_is(rd.extract(data, tmp_path / "neighbours", tmp_path / "of-neighbours", depth=20))
    assert as_it_is(ensemble)
    assert as_it_is(rd.extract(data, refit, tmp_path / "of-refit", depth=20))
    assert as_it_is(open_knowledge(line / "teacher", data))
    assert not as_it_is(embeddings)  # its lists are derived, to depth 100


def test_what_is_fitted_beside_is_what_a_store_of_it_holds(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")
    ease = rd.train(data, "ease", tmp_path / "ease")
    rd.extract(data, ease, tmp_path / "knowledge-ease", depth=30)
    stored = rd.ensemble([line / "knowledge", tmp_path / "knowledge-ease"], tmp_path / "stored", data=data)
    fitted = rd.ensemble([line / "knowledge"], tmp_path / "fitted", data=data, beside=["ease"])

    def same(one: Lists, other: Lists) -> bool:
        return torch.equal(one.ids, other.ids) and torch.equal(one.scores, other.scores)

    assert same(fitted.lists["top_items"], stored.lists["top_items"])
    assert torch.equal(fitted.observed_scores(), stored.observed_scores())
    assert fitted.manifest is not None
    assert stored.manifest is not None
    mine, theirs = (store.manifest.summary["members"][1] for store in (fitted, stored))
    assert mine["parameters"] == theirs["parameters"]
    assert mine["model_options"] == theirs["model_options"]
    assert fitted.manifest.options["beside"] == [mine["model_options"]]
    again = rd.ensemble([line / "knowledge"], tmp_path / "fitted", data=data, beside=["ease"])
    assert again.manifest == fitted.manifest


@pytest.mark.parametrize(
    ("beside", "told"),
    [("bpr", "beside: bpr is trained by steps"), ("knowledge", "no model is called 'knowledge'")],
)
def test_only_what_is_fitted_at_once_stands_beside(
    line: Path, tmp_path: Path, beside: str, told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        rd.ensemble([line / "knowledge"], tmp_path / "out", data=line / "data", beside=[beside])
    with pytest.raises(OptionError, match="beside: itemknn is the name of a teacher already"):
        rd.ensemble({"itemknn": line / "knowledge"}, tmp_path / "out", data=line / "data", beside=["itemknn"])
    with pytest.raises(OptionError, match="beside: ease is the name of a teacher already"):
        rd.ensemble([line / "knowledge"], tmp_path / "out", data=line / "data", beside=["ease", "ease"])
    assert not (tmp_path / "out").exists()
