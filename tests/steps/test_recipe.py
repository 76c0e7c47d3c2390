"""What `distill` does where no method is named: ItemKNN beside the teacher where that ranks the valid rows better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import recdistill as rd
from line_cases import Notes
from recdistill.artifacts import Manifest, read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, OptionError
from recdistill.knowledge.base import Lists
from recdistill.knowledge.teacher import TeacherKnowledge, load_knowledge
from recdistill.models.ease import EASE
from recdistill.models.itemknn import ItemKNN
from recdistill.progress import Silent
from recdistill.steps import recipe
from recdistill.steps.distill import open_knowledge
from recdistill.steps.ensemble import lists_validation

FAST = {"epochs": 2, "batch_size": 128, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def line(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a teacher of few epochs, its store, and a student alone."""
    root = tmp_path_factory.mktemp("recipe")
    data = rd.prepare(log, root / "data")
    teacher = rd.train(
        data, {"name": "bpr", "dim": 8}, root / "teacher", training={**FAST, "trajectory": (0.5, 1.0)}
    )
    rd.extract(data, teacher, root / "knowledge", depth=30)
    rd.train(data, {"name": "bpr", "dim": 3}, root / "alone", training=FAST)
    return root


def student(line: Path, out: Path, **others: Any) -> tuple[str, Manifest]:
    """What was said of a student, and its manifest."""
    said = Notes()
    chosen: dict[str, Any] = {"knowledge": line / "knowledge", **others}
    rd.distill(
        line / "data", model={"name": "bpr", "dim": 3}, out=out, training=FAST, progress=said, **chosen
    )
    return "\n".join(said.notes), read_manifest(out, kind="model")


def test_itemknn_stands_beside_a_teacher_that_it_helps(line: Path, tmp_path: Path) -> None:
    told, made = student(line, tmp_path / "student")
    data = Data.load(line / "data")
    by_hand = rd.ensemble(
        [line / "knowledge"], tmp_path / "both", data=data, beside=["itemknn"], temperature=30.0
    )
    teacher = load_knowledge(line / "knowledge", data)
    own = lists_validation(teacher.top_items(torch.arange(60), 30).ids, data, ("train",))["ndcg@10"]
    assert by_hand.manifest is not None
    found = by_hand.manifest.summary["validation"]["ndcg@10"]
    assert found > own
    assert (
        f"the teacher and itemknn as one: ndcg@10 of the valid rows {found:.4f} with it, {own:.4f} without"
        in told
    )
    assert made.options["beside"] == {"name": "itemknn", **ItemKNN().options, "temperature": 30.0}
    assert made.inputs["knowledge"] == read_manifest(line / "knowledge").hash
    assert made.summary["teacher"] == read_manifest(line / "teacher").hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both", "student"]


def test_both_in_memory_are_what_the_ensemble_stores(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")
    stored = rd.ensemble(
        [line / "knowledge"], tmp_path / "both", data=data, beside=["itemknn"], temperature=30.0
    )
    both = recipe.with_beside(load_knowledge(line / "knowledge", data), data, "itemknn", Silent())
    for kind in ("top_items", "top_users"):
        assert torch.equal(both.lists[kind].ids, stored.lists[kind].ids)
        assert torch.equal(both.lists[kind].scores, stored.lists[kind].scores)
    assert torch.equal(both.observed_scores(), stored.observed_scores())
    assert both.kinds == stored.kinds
    for mine, theirs in zip(both.members(12), stored.members(12), strict=True):
        assert mine.epochs == theirs.epochs
        assert all(torch.equal(a, b) for a, b in zip(mine.states, theirs.states, strict=True))
    assert [len(member.states) for member in both.members(12)] == [2, 1]
    chosen = {"model": {"name": "bpr", "dim": 3}, "methods": {"method": "rce-kd", "k": 10}, "training": FAST}
    first = rd.distill(data, tmp_path / "both", out=tmp_path / "of-store", **chosen)
    second = rd.distill(data, line / "knowledge", out=tmp_path / "in-memory", beside="itemknn", **chosen)
    users = torch.arange(60)
    assert torch.equal(first.frozen().user_embeddings(users), second.frozen().user_embeddings(users))


def test_the_same_call_finds_the_student(line: Path, tmp_path: Path) -> None:
    student(line, tmp_path / "student")
    told, _ = student(line, tmp_path / "student")
    assert "already there, same inputs and options: reused" in told
    with pytest.raises(ArtifactError, match="beside"):
        student(line, tmp_path / "student", beside="none")


def test_its_gap_is_that_of_the_teacher_that_was_named(line: Path, tmp_path: Path) -> None:
    student(line, tmp_path / "student")
    models = {"teacher": line / "teacher", "alone": line / "alone", "student": tmp_path / "student"}
    found = rd.evaluate(line / "data", models, tmp_path / "evaluation", latency=False, alone=line / "alone")
    assert found["models"]["student"]["teacher"] == "teacher"


def test_the_teacher_alone_where_both_are_worse(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "lists_validation", lambda *_: {"ndcg@10": 0.9})
    told, made = student(line, tmp_path / "student")
    assert (
        "the teacher alone, without itemknn: ndcg@10 of the valid rows 0.9000 with it, 0.9000 without" in told
    )
    assert "beside" not in made.options


def test_the_teacher_alone_where_valid_rows_cannot_tell(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")
    refit = rd.train(
        data, {"name": "bpr", "dim": 8}, tmp_path / "refit", training=FAST, on=("train", "valid")
    )
    rd.extract(data, refit, tmp_path / "knowledge", depth=20)
    told, made = student(line, tmp_path / "student", knowledge=tmp_path / "knowledge")
    assert (
        "the valid rows cannot tell whether itemknn helps: the teacher alone; both with --beside itemknn"
        in told
    )
    assert "beside" not in made.options
    _, made = student(line, tmp_path / "both", knowledge=tmp_path / "knowledge", beside="itemknn")
    assert made.options["beside"]["name"] == "itemknn"
    assert made.on == ("train", "valid")


def test_named_methods_and_other_teachers_learn_from_what_is_named(line: Path, tmp_path: Path) -> None:
    data = Data.load(line / "data")

    def as_it_is(teacher: TeacherKnowledge) -> bool:
        return recipe.with_beside(teacher, data, None, Silent()) is teacher

    told, made = student(line, tmp_path / "student", methods="recommended")
    assert "itemknn" not in told
    assert "beside" not in made.options
    rd.train(data, "itemknn", tmp_path / "neighbours")
    assert as_it_is(rd.extract(data, tmp_path / "neighbours", tmp_path / "of-neighbours", depth=20))
    assert as_it_is(open_knowledge(line / "teacher", data))
    ensemble = rd.ensemble([line / "knowledge"], tmp_path / "ensemble", data=data)
    assert as_it_is(ensemble)
    with pytest.raises(OptionError, match="the knowledge is an ensemble, beside which itemknn cannot stand"):
        recipe.with_beside(ensemble, data, "itemknn", Silent())
    live = recipe.with_beside(open_knowledge(line / "teacher", data), data, "ease", Silent())
    assert live.kinds == ensemble.kinds
    embeddings = rd.extract(data, line / "teacher", tmp_path / "embeddings", kinds=("embeddings",))
    assert not as_it_is(embeddings)  # its lists are derived


def test_what_is_fitted_beside_is_what_a_store_of_it_holds(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr(EASE, "fit_weights", None)  # what is there is not fitted again
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
    with pytest.raises(OptionError, match=told):
        student(line, tmp_path / "out", beside=beside)
    assert not (tmp_path / "out").exists()


def test_names_are_taken_once(line: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="beside: itemknn is the name of a teacher already"):
        rd.ensemble({"itemknn": line / "knowledge"}, tmp_path / "out", data=line / "data", beside=["itemknn"])
    with pytest.raises(OptionError, match="beside: ease is named twice"):
        rd.ensemble([line / "knowledge"], tmp_path / "out", data=line / "data", beside=["ease", "ease"])
    assert not (tmp_path / "out").exists()
