"""The line with teachers and students of every kind: trained, extracted, distilled, evaluated, recommended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import recdistill as rd
from line_cases import log_of_tastes
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import MissingKnowledgeError, OptionError
from recdistill.evaluation.latency import measure
from recdistill.evaluation.validate import validator
from recdistill.models.base import Recommender
from recdistill.progress import Silent
from recdistill.training import loop

FAST = {"epochs": 2, "batch_size": 128, "learning_rate": 0.02}
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}
DE = {"method": "de", "num_experts": 2, "anneal_epochs": 5}
MODELS: dict[str, dict[str, Any]] = {
    "neumf": {"dim": 4},
    "ease": {"regularisation": 5.0, "num_weights": 20},
    "itemknn": {"num_neighbors": 10},
    "cml": {"dim": 4},
    "simplex": {"dim": 4, "num_negatives": 20},
    "xsimgcl": {"dim": 4},
    "multvae": {"dim": 4, "anneal_steps": 10},
    "itemvae": {"dim": 4, "anneal_steps": 10},
}
BY_STEPS = ["neumf", "cml", "simplex", "xsimgcl", "multvae", "itemvae"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose users have a taste."""
    folder = tmp_path_factory.mktemp("models")
    log_of_tastes().write_csv(folder / "log.csv")
    rd.prepare(folder / "log.csv", folder / "data")
    return folder


def trained(root: Path, name: str) -> Recommender:
    return rd.train(root / "data", {"name": name, **MODELS[name]}, root / name, training=FAST)


@pytest.mark.parametrize("name", list(MODELS))
def test_from_training_to_evaluation(root: Path, name: str) -> None:
    teacher = trained(root, name)
    store = rd.extract(root / "data", teacher, root / f"{name}-knowledge", depth=20)
    has = "embeddings" in teacher.frozen().kinds
    vectors = teacher.frozen().score_vectors() is not None
    assert store.kinds >= {"top_items", "top_users", "observed_scores"}
    assert ("embeddings" in store.kinds) is has
    assert store.can_score is vectors
    assert store.score_scale == teacher.frozen().score_scale
    methods = [RRD, DE] if has else [RRD]
    student = rd.distill(
        root / "data", root / f"{name}-knowledge", "bpr", methods, root / f"{name}-bpr", training=FAST
    )
    alive = rd.distill(root / "data", root / name, "bpr", methods, root / f"{name}-live", training=FAST)
    for key, value in student.state_dict().items():
        assert torch.equal(value, alive.state_dict()[key])
    members = [root / name, root / f"{name}-bpr", root / f"{name}-knowledge"]
    found = rd.evaluate(root / "data", members, root / f"{name}-evaluation", k=(5,), latency=False)
    ndcg = {key: value["metrics"]["ndcg@5"]["mean"] for key, value in found["models"].items()}
    assert ndcg[name] == ndcg[f"{name}-knowledge"]
    sampled = rd.evaluate(
        root / "data", [root / name], root / f"{name}-sampled", protocol="sampled", negatives=9, latency=False
    )
    assert sampled["models"][name]["metrics"]


@pytest.mark.parametrize("name", BY_STEPS)
def test_models_trained_by_steps_are_students(root: Path, name: str) -> None:
    rd.train(root / "data", rd.models.BPR(dim=8), root / "teacher", training=FAST)
    rd.extract(root / "data", root / "teacher", root / "knowledge", depth=20)
    model = {"name": name, **MODELS[name]}
    student = rd.distill(
        root / "data", root / "knowledge", model, [RRD, DE], root / f"student-{name}", training=FAST
    )
    alone = trained(root, name)
    weights = alone.state_dict()
    assert any(not torch.equal(value, weights[key]) for key, value in student.state_dict().items())


@pytest.mark.parametrize("name", BY_STEPS)
def test_a_resumed_run_has_the_same_bits(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, training = {"name": name, **MODELS[name]}, {**FAST, "checkpoint_seconds": 0}
    whole = rd.train(root / "data", model, root / f"whole-{name}", training=training)
    steps, step = 0, loop._Run._step

    def stops(run: Any, batch: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 8:  # within the second epoch
            raise KeyboardInterrupt
        return step(run, batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "_step", stops)
        with pytest.raises(KeyboardInterrupt):
            rd.train(root / "data", model, root / f"cut-{name}", training=training)
    resumed = rd.train(root / "data", model, root / f"cut-{name}", training=training, resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", list(MODELS))
def test_a_loaded_model_scores_as_it_was_validated(root: Path, name: str) -> None:
    model = trained(root, name)
    data = Data.load(root / "data")
    assert model.path is not None
    summary = read_manifest(model.path, kind="model").summary
    assert validator(data.valid, (data.train,))(model) == summary["best_metric"]


@pytest.mark.parametrize("name", list(MODELS))
def test_recommendations_and_latency(root: Path, name: str) -> None:
    model = trained(root, name)
    found = model.recommend(["u3", "u7"], k=4)
    assert found["user_id"].to_list() == ["u3"] * 4 + ["u7"] * 4
    seen = pl.read_csv(root / "log.csv").filter(pl.col("user_id") == "u3")["item_id"].to_list()
    if name == "neumf":
        with pytest.raises(rd.errors.DataError, match="no vectors to fold new users into"):
            model.recommend(history={"new": seen[:4]})
    else:
        new = model.recommend(history={"new": seen[:4]}, k=6)
        assert len(new) == 6
        assert not set(new["item_id"]) & set(seen[:4])
        few = model.recommend(history={"new": seen[:4]}, k=3, candidates=[seen[5], seen[6]])
        assert set(few["item_id"]) <= {seen[5], seen[6]}
    assert all(row["p50"] > 0 for row in measure(model, seconds=0.01, batches=(1, 16)))


def test_a_closed_form_student_is_refused(root: Path) -> None:
    trained(root, "neumf")
    with pytest.raises(OptionError, match="ease is fitted at once, so it cannot learn from a teacher"):
        rd.distill(root / "data", root / "neumf", "ease", RRD, root / "refused")


def test_ease_names_no_embeddings_to_extract(root: Path) -> None:
    teacher = trained(root, "ease")
    with pytest.raises(MissingKnowledgeError, match="ease has no embeddings"):
        rd.extract(root / "data", teacher, root / "nothing", kinds=["embeddings"])


def test_what_a_fit_takes_is_said_before_it(root: Path) -> None:
    said: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            said.append(text)

    rd.train(root / "data", {"name": "ease"}, root / "noted", progress=Notes())
    assert any("50 x 50 items" in text and "of memory" in text for text in said), said
