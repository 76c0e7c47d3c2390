"""`evaluate` from directories to a directory: what it writes, what it reuses, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recdistill import artifacts
from recdistill.artifacts import read_manifest, read_table
from recdistill.data.prepared import Data
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import ArtifactError, DataError, OptionError
from recdistill.models.bpr import BPR
from recdistill.progress import Silent
from recdistill.steps.evaluate import evaluate, table
from recdistill.steps.extract import extract
from recdistill.steps.load import WEIGHTS, load, save_model

NUM_USERS, NUM_ITEMS = 60, 80


def make_data(path: Path, seed: int = 0, repeats: bool = False, test: bool = True) -> Data:
    """60 users x 80 items with four tastes; the last users have no train rows, user 0 no test row."""
    generator = torch.Generator().manual_seed(seed)
    users = Vocabulary.from_ids([f"u{n}" for n in range(NUM_USERS)], "user_id")
    items = Vocabulary.from_ids(list(range(1000, 1000 + NUM_ITEMS)), "item_id")
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": []}
    for user in range(NUM_USERS):
        mine = 20 * (user % 4) + torch.randperm(20, generator=generator)[:10]
        for place, item in enumerate(mine.tolist()):
            part = "train" if place < 6 and user < 57 else "valid" if place < 8 else "test"
            if part != "test" or (test and user):
                rows[part].append((user, item))
    if repeats:
        rows["train"] += rows["train"][:5]
        rows["test"] += rows["train"][5:9]
    summary = {"users": NUM_USERS, "items": NUM_ITEMS, "has_order": False, "has_repeats": repeats}
    options = {"repeats": repeats, "test": test}
    with artifacts.step(path, kind="data", options=options, seed=seed, inputs={}) as job:
        users.save(job.work / "users.parquet")
        items.save(job.work / "items.parquet")
        for name, pairs in rows.items():
            schema = {"user": pl.Int32, "item": pl.Int32}
            artifacts.write_table(job.work / f"{name}.parquet", pl.DataFrame(pairs, schema, orient="row"))
        job.summary.update(summary)
    return Data.load(path)


def make_model(
    path: Path, data: Data, skill: float, *, dim: int = 8, seed: int = 0, on: str = "train", **inputs: str
) -> Path:
    """A BPR model that knows the tastes as well as ``skill`` says."""
    model = BPR(dim=dim)
    model.build(data.train, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        taste = torch.nn.functional.one_hot(torch.arange(NUM_USERS) % 4).float()
        kind = torch.nn.functional.one_hot(torch.arange(NUM_ITEMS) // 20).float()
        noise = torch.Generator().manual_seed(100 + seed)
        model.user_table.copy_(torch.randn(NUM_USERS, dim, generator=noise))
        model.item_table.copy_(torch.randn(NUM_ITEMS, dim, generator=noise))
        model.user_table[:, :4] = skill * taste
        model.item_table[:, :4] = kind
    model.attach(data.users, data.items, data.train)
    options: dict[str, Any] = {"model": {"name": "bpr", **model.options}, "training": {}, "on": on.split(",")}
    summary: dict[str, Any] = {}
    if inputs:
        options["distill"] = [{"method": "rrd"}]
        summary["teacher"] = inputs.pop("teacher")
    with artifacts.step(
        path, kind="model", options=options, seed=seed, inputs={"data": data.hash, **inputs}
    ) as job:
        save_model(model, job.work)
        job.summary.update(summary)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    data = make_data(root / "data")
    teacher = make_model(root / "teacher", data, 9.0, dim=16)
    extract(data, teacher, root / "knowledge", depth=40)
    extract(data, teacher, root / "lists", kinds=["top_items"], depth=40)
    digests = {"teacher": read_manifest(teacher).hash, "knowledge": read_manifest(root / "knowledge").hash}
    make_model(root / "alone", data, 1.0)
    make_model(root / "student", data, 2.0, **digests)
    return root


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: dict[str, int] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str = "rows") -> Iterator[Any]:
        notes = self

        class Stage:
            def advance(self, amount: int = 1, **shown: object) -> None:
                notes.stages[name] = notes.stages.get(name, 0) + amount

        yield Stage()
        assert self.stages[name] == total


def run(world: Path, *names: str, out: Path, **options: Any) -> dict[str, Any]:
    options.setdefault("latency", False)
    return evaluate(world / "data", [world / name for name in names], out, **options)


def test_more_models_than_all_pairs_are_tested_of_is_said(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("steps.evaluate", "evaluation.comparison"):
        monkeypatch.setattr(f"recdistill.{module}.MAX_ALL_PAIRS", 2)
    notes = Notes()
    found = run(world, "teacher", "alone", "student", out=tmp_path / "e", progress=notes)
    said = "3 models, seeds of one counted once: this evaluation tests each against the best alone"
    assert any(said in note for note in notes.notes)
    assert len({(test["a"], test["b"]) for test in found["tests"]}) == 2
    notes = Notes()
    run(world, "teacher", "alone", out=tmp_path / "f", progress=notes)
    assert not any("tests each" in note for note in notes.notes)


def test_writes_what_the_contract_says(world: Path, tmp_path: Path) -> None:
    notes = Notes()
    found = run(world, "teacher", "alone", "student", out=tmp_path / "e", progress=notes)
    assert found["data"] == Data.load(world / "data").hash
    assert (found["split"], found["protocol"], found["masked"]) == ("test", "full", ["train", "valid"])
    assert found["num_items"] == NUM_ITEMS
    assert found["users"] == {
        "evaluated": 59, "without_targets": 1, "without_train_rows": 3, "masked_targets": 0
    }  # fmt: skip
    assert notes.stages == {f"evaluate {name}": 59 for name in ("teacher", "alone", "student")}
    said = "\n".join(notes.notes)
    assert "59 users with a test row; 1 without one is not counted; 3 have no train row" in said
    assert "masked: train and valid" in said
    student = found["models"]["student"]
    kinds = ("recall", "ndcg", "mrr", "hit", "precision", "coverage", "tail_recall", "overlap")
    names = {f"{kind}@{k}" for kind in kinds for k in (5, 10, 20)} | {"popularity_lift"}
    assert set(student["metrics"]) == names
    assert set(found["models"]["teacher"]["metrics"]) == {name for name in names if "overlap" not in name}
    assert student["parameters"] == (NUM_USERS + NUM_ITEMS) * 8
    assert student["bytes"] == (world / "student" / WEIGHTS).stat().st_size
    assert 0 < found["gap_closed"]["student"]["ndcg@10"] < 1
    assert len(found["tests"]) == 3 * 6
    assert found["popularity_groups"]["models"]["alone"]["recall@20"][0]["n"] > 0

    per_user = read_table(tmp_path / "e" / "per_user.parquet")
    assert per_user.height == 3 * 59
    assert set(per_user.columns) == {"model", "user_id", "num_targets"} | {
        n for n in names if "coverage" not in n
    }
    means = per_user.group_by("model").agg(pl.col("ndcg@10").mean())
    for name, mean in means.iter_rows():
        assert found["models"][name]["metrics"]["ndcg@10"]["mean"] == pytest.approx(mean)
    assert Data.load(world / "data").users.ids([0])[0] not in per_user["user_id"].to_list()
    assert len(table(found)) == 4


def test_latency_is_measured(world: Path, tmp_path: Path) -> None:
    found = run(world, "student", "knowledge", out=tmp_path / "e", latency=True)
    assert [entry["batch"] for entry in found["models"]["student"]["latency_ms"]] == [1, 256]
    assert found["models"]["knowledge"]["latency_ms"] is None


def test_lists_agree_with_recommend(world: Path, tmp_path: Path) -> None:
    """Users whose valid rows are not in the way: evaluation and `recommend` rank alike."""
    run(world, "student", out=tmp_path / "e", split="valid", k=(5,))
    data, model = Data.load(world / "data"), load(world / "student")
    users = ((data.valid.user_counts > 0) & (data.train.user_counts > 0)).nonzero().squeeze(1)
    listed = model.recommend(data.users.ids(users), 5)
    valid = pl.DataFrame(
        {
            "user_id": data.users.ids(data.valid.users.long()),
            "item_id": data.items.ids(data.valid.items.long()),
        }
    )
    hits = listed.join(valid, on=["user_id", "item_id"], how="semi").height
    known = pl.DataFrame({"user_id": data.users.ids(users)})
    evaluated = pl.read_parquet(tmp_path / "e" / "per_user.parquet").join(known, on="user_id", how="semi")
    assert evaluated["precision@5"].mean() == pytest.approx(hits / 5 / len(users))


def test_reuses_refuses_and_replaces(world: Path, tmp_path: Path) -> None:
    notes = Notes()
    first = run(world, "alone", out=tmp_path / "e")
    again = run(world, "alone", out=tmp_path / "e", progress=notes)
    assert again == first
    assert notes.notes == [f"{tmp_path / 'e'}: already there, same inputs and options: reused"]
    with pytest.raises(ArtifactError, match="k"):
        run(world, "alone", out=tmp_path / "e", k=(3,))
    assert run(world, "alone", out=tmp_path / "e", k=[3], force=True)["k"] == [3]


def test_the_same_result_whatever_the_order_of_models(world: Path, tmp_path: Path) -> None:
    one = run(world, "student", "teacher", out=tmp_path / "a")
    two = run(world, "teacher", "student", out=tmp_path / "b")
    assert list(one["models"]) == ["student", "teacher"]
    for name in one["models"]:
        assert one["models"][name]["metrics"] == two["models"][name]["metrics"]


def test_named_teacher_and_alone_are_evaluated_too(world: Path, tmp_path: Path) -> None:
    found = run(world, "student", out=tmp_path / "e", teacher=world / "teacher", alone=str(world / "alone"))
    assert list(found["models"]) == ["student", "teacher", "alone"]
    assert found["gap_closed"]["student"]["ndcg@10"] is not None
    assert [entry["overlap_with"] for entry in found["models"].values()] == ["teacher", None, "teacher"]
    assert [entry["teacher"] for entry in found["models"].values()] == ["teacher", None, None]
    overlaps = [found["models"][name]["metrics"]["overlap@10"]["mean"] for name in ("alone", "student")]
    assert overlaps[0] < overlaps[1]


@pytest.mark.parametrize("store", ["knowledge", "lists"])
def test_knowledge_is_ranked_as_its_model(world: Path, tmp_path: Path, store: str) -> None:
    found = run(world, "teacher", store, out=tmp_path / "e")
    model, knowledge = found["models"]["teacher"], found["models"][store]
    assert knowledge["metrics"] == model["metrics"]
    assert (knowledge["parameters"], knowledge["bytes"], knowledge["latency_ms"]) == (None, None, None)


def test_lists_too_short_name_the_depth(world: Path, tmp_path: Path) -> None:
    data = Data.load(world / "data")
    extract(data, world / "teacher", tmp_path / "short", kinds=["top_items"], depth=12)
    with pytest.raises(OptionError, match=r"depth 12.*top 20 of .* users; extract with --depth 28"):
        evaluate(data, tmp_path / "short", tmp_path / "e", latency=False)
    assert not (tmp_path / "e").exists()
    extract(data, world / "teacher", tmp_path / "short", kinds=["top_items"], depth=28)
    assert (
        evaluate(data, tmp_path / "short", tmp_path / "e", latency=False)["models"]["short"]["num_users"]
        == 59
    )


def test_short_lists_of_a_store_with_embeddings_are_no_obstacle(world: Path, tmp_path: Path) -> None:
    data, notes = Data.load(world / "data"), Notes()
    extract(data, world / "teacher", tmp_path / "short", kinds=["top_items", "embeddings"], depth=5)
    found = evaluate(
        data, [tmp_path / "short", world / "teacher"], tmp_path / "e", latency=False, progress=notes
    )
    assert found["models"]["short"]["metrics"] == found["models"]["teacher"]["metrics"]
    assert any("ranked by its scores instead" in note for note in notes.notes)


def test_sampled_protocol(world: Path, tmp_path: Path) -> None:
    found = run(world, "teacher", "alone", "knowledge", out=tmp_path / "e", protocol="sampled", negatives=20)
    assert (found["protocol"], found["negatives"]) == ("sampled", 20)
    metrics = found["models"]["teacher"]["metrics"]
    assert (
        metrics["hit@5"]["mean"]
        == metrics["recall@5"]["mean"]
        > found["models"]["alone"]["metrics"]["hit@5"]["mean"]
    )
    assert found["models"]["alone"]["metrics"]["hit@20"]["mean"] < 1  # 21 candidates
    assert found["models"]["knowledge"]["metrics"] == metrics
    assert not any(name.startswith(("coverage", "overlap", "popularity")) for name in metrics)
    with pytest.raises(OptionError, match="lists alone"):
        run(world, "lists", out=tmp_path / "l", protocol="sampled", negatives=20)
    with pytest.raises(OptionError, match=r"499 a user.*fewer.*--negatives 70"):
        run(world, "alone", out=tmp_path / "m", protocol="sampled")


def test_masks(world: Path, tmp_path: Path) -> None:
    free = run(world, "student", out=tmp_path / "none", mask="none")
    assert free["masked"] == []
    data = make_data(tmp_path / "repeats", repeats=True)
    model = make_model(tmp_path / "m", data, 3.0)
    assert evaluate(data, model, tmp_path / "a", latency=False)["masked"] == []
    seen = evaluate(data, model, tmp_path / "b", latency=False, mask="seen")
    assert seen["masked"] == ["train", "valid"]
    assert seen["users"]["masked_targets"] == 4
    with pytest.raises(OptionError, match="without the train items"):
        run(world, "lists", out=tmp_path / "c", mask="none")


def test_seeds_are_one_row(world: Path, tmp_path: Path) -> None:
    data = Data.load(world / "data")
    paths = [make_model(tmp_path / f"alone-{seed}", data, 1.0, seed=seed) for seed in range(3)]
    found = evaluate(data, [*paths, world / "teacher"], tmp_path / "e", latency=False)
    assert found["groups"]["alone"]["seeds"] == [0, 1, 2]
    assert found["groups"]["alone"]["metrics"]["ndcg@10"]["spread"] > 0
    assert len(found["models"]) == 4
    assert table(found)[1][0] == "alone (3 seeds)"


def test_models_of_one_name_go_by_their_paths(world: Path, tmp_path: Path) -> None:
    data = Data.load(world / "data")
    other = make_model(tmp_path / "teacher", data, 2.0)
    found = evaluate(data, [world / "teacher", other, world / "teacher"], tmp_path / "e", latency=False)
    assert list(found["models"]) == [str(world / "teacher"), str(other)]


def test_loaded_models_are_evaluated_by_their_directory(world: Path, tmp_path: Path) -> None:
    found = evaluate(world / "data", load(world / "alone"), tmp_path / "e", latency=False)
    assert list(found["models"]) == ["alone"]
    with pytest.raises(OptionError, match="no directory"):
        evaluate(world / "data", BPR(dim=2), tmp_path / "f")


def test_refuses_models_of_other_data(world: Path, tmp_path: Path) -> None:
    other = make_data(tmp_path / "other", seed=9)
    with pytest.raises(ArtifactError, match=r"alone was made from data \w+, not from \w+"):
        evaluate(other, world / "alone", tmp_path / "e")


def test_refuses_models_trained_on_the_split(world: Path, tmp_path: Path) -> None:
    data = Data.load(world / "data")
    model = make_model(tmp_path / "both", data, 1.0, on="train,valid")
    with pytest.raises(OptionError, match="trained on the valid split"):
        evaluate(data, model, tmp_path / "e", split="valid")
    assert evaluate(data, model, tmp_path / "e", latency=False)["models"]["both"]["num_users"] == 59


def test_refuses_data_without_targets(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", test=False)
    model = make_model(tmp_path / "m", data, 1.0)
    with pytest.raises(DataError, match="users with a test row, found no rows"):
        evaluate(data, model, tmp_path / "e")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": (0,)}, "evaluate.k"),
        ({"k": ()}, "evaluate.k"),
        ({"negatives": -1}, "evaluate.negatives"),
        ({"protocol": "ful"}, "evaluate.protocol.*did you mean full"),
        ({"splitt": "test"}, "splitt.*did you mean split"),
    ],
)
def test_refuses_bad_options(world: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        evaluate(world / "data", world / "alone", tmp_path / "e", **options)


def test_refuses_no_models_and_missing_ones(world: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no model to evaluate"):
        evaluate(world / "data", [], tmp_path / "e")
    with pytest.raises(ArtifactError, match="nowhere does not exist"):
        evaluate(world / "data", tmp_path / "nowhere", tmp_path / "e")
    with pytest.raises(ArtifactError, match="of kind data; expected a directory of kind model or knowledge"):
        evaluate(world / "data", world / "data", tmp_path / "e")
