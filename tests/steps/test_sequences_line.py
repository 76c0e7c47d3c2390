"""The line with sequence models: prepared, trained, resumed, extracted, distilled, evaluated, recommended, reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recdistill as rd
from line_cases import Notes
from recdistill import config
from recdistill.data.prepared import Data
from recdistill.errors import DataError
from recdistill.evaluation.latency import measure
from recdistill.evaluation.protocol import make_task
from recdistill.models.base import Recommender
from recdistill.models.sasrec import SASRec
from recdistill.models.sequential import SequenceModel
from recdistill.testing import largest_tensor

MODEL: dict[str, Any] = {"name": "sasrec", "dim": 8, "max_length": 10, "dropout": 0.1}
FAST = {"epochs": 6, "batch_size": 200, "learning_rate": 0.01}


def walks(num_users: int = 80, num_items: int = 30, seed: int = 0) -> pl.DataFrame:
    """Users who mostly go on from item i to item i + 1, without repeats; rows in no order."""
    rng = np.random.default_rng(seed)
    users, items, places = [], [], []
    for user in range(num_users):
        length = int(rng.integers(3, 14))
        steps = rng.choice([1, 2], p=[0.85, 0.15], size=length)
        path = (rng.integers(num_items) + np.cumsum(steps)) % num_items
        path = path[np.sort(np.unique(path, return_index=True)[1])]
        users += [f"u{user:03d}"] * len(path)
        items += [f"i{item}" for item in path]
        places += [10 * place for place in range(len(path))]
    return pl.DataFrame({"user_id": users, "item_id": items, "position": places}).sample(
        fraction=1, shuffle=True, seed=1
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequences")
    rd.prepare(walks(), folder / "data", split="leave-one-out", holdout="last")
    return folder


def trained(root: Path) -> SequenceModel:
    model = rd.train(root / "data", MODEL, root / "teacher", training=FAST)
    assert isinstance(model, SequenceModel)
    return model


def test_the_model_learns_the_walk_and_is_evaluated_from_train_and_valid(root: Path) -> None:
    trained(root)
    notes = Notes()
    found = rd.evaluate(root / "data", [root / "teacher"], root / "eval", latency=False, progress=notes)
    assert any(text.endswith("history: train and valid for teacher") for text in notes.notes)
    assert found["sequence_history"] == ["train", "valid"]
    assert found["masked"] == ["train", "valid"]
    assert found["models"]["teacher"]["metrics"]["hit@5"]["mean"] > 0.6  # chance: .2
    valid = rd.evaluate(root / "data", root / "teacher", root / "valid", latency=False, split="valid")
    assert valid["sequence_history"] == ["train"]


def test_the_test_input_ends_with_the_valid_item(root: Path) -> None:
    data, model = Data.load(root / "data"), trained(root)
    task = make_task(data, "test", "default", (5,))
    users = torch.nonzero(data.valid.user_counts > 0).squeeze(1)
    newest = task.histories.event_items[task.histories.event_indptr[users + 1] - 1]
    assert torch.equal(newest, data.valid.items)
    with torch.no_grad():
        before = model.state(None).scores(users)
        after = model.state_of(task.histories).scores(users)
    assert not torch.allclose(before, after)


def test_a_loaded_model_scores_alike_and_keeps_the_order(root: Path) -> None:
    model, data = trained(root), Data.load(root / "data")
    again = rd.load(root / "teacher")
    assert again.train_pairs is not None
    assert torch.equal(again.train_pairs.event_items, data.train.event_items)
    assert again.train_pairs.has_order
    everyone = torch.arange(data.num_users)
    assert torch.equal(again.frozen().scores(everyone), model.frozen().scores(everyone))
    fresh = SASRec(**{key: value for key, value in MODEL.items() if key != "name"})
    fresh.build(data.train, torch.Generator())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval().state(None).scores(everyone).detach(), model.frozen().scores(everyone))


NAMES = [name for name in config.names("models") if config.find("models", name).sequential]


@pytest.mark.parametrize("name", NAMES)
def test_resume_is_exact(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {**FAST, "checkpoint_seconds": 0.0}
    model, kind = {**MODEL, "name": name}, config.find("models", name)
    whole = rd.train(root / "data", model, root / f"whole-{name}", training=chosen, seed=3)
    steps = 0
    loss = kind.loss

    def fragile(self: SequenceModel, *arguments: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt
        return loss(self, *arguments)

    monkeypatch.setattr(kind, "loss", fragile)
    with pytest.raises(KeyboardInterrupt):
        rd.train(root / "data", model, root / f"parts-{name}", training=chosen, seed=3)
    monkeypatch.undo()
    resumed = rd.train(root / "data", model, root / f"parts-{name}", training=chosen, seed=3, resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns_the_walk_and_serves_new_users(root: Path, name: str) -> None:
    learns = name != "bert4rec"  # which needs many more epochs
    told = {"epochs": 20 if learns else 1, "batch_size": 50, "learning_rate": 0.02, "validate_every": 20}
    model = rd.train(root / "data", {**MODEL, "name": name}, root / f"new-{name}", training=told)
    again = rd.load(root / f"new-{name}")
    history = {"new": ["i3", "i4", "i5", "i6"], "short": ["i9"]}
    found = again.recommend(history=history, k=5)
    lists = {user: part["item_id"].to_list() for (user,), part in found.group_by("user_id")}
    if learns:
        assert {"i7", "i8"} & set(lists["new"])
        assert {"i10", "i11"} & set(lists["short"])
    assert found.equals(model.recommend(history=history, k=5))


@pytest.mark.parametrize("method", ["rrd", "dcd", "rce-kd", "de", "fitnet"])
def test_top_k_methods_teach_sequence_models(root: Path, method: str) -> None:
    trained(root)
    rd.extract(root / "data", root / "teacher", root / "knowledge", depth=15)
    options: dict[str, Any] = {
        "rrd": {"num_interesting": 4, "num_uninteresting": 4, "depth": 10},
        "dcd": {"num_drawn": 3, "depth": 8},
        "rce-kd": {"num_sampled": 3, "k": 5, "depth": 10},
        "de": {"num_experts": 2, "anneal_epochs": 3},
    }
    small = {**MODEL, "dim": 4}
    out = root / f"student-{method}"
    told = {"method": method, **options.get(method, {})}
    rd.distill(root / "data", root / "knowledge", small, told, out, training={**FAST, "epochs": 2})
    live = root / f"live-{method}"
    rd.distill(root / "data", root / "teacher", small, told, live, training={**FAST, "epochs": 2})
    stored, from_live = rd.load(out), rd.load(live)
    for name, value in stored.state_dict().items():
        torch.testing.assert_close(value, from_live.state_dict()[name], msg=name)


def test_students_of_other_kinds_learn_from_a_sequence_model_and_the_other_way_round(root: Path) -> None:
    trained(root)
    rd.extract(root / "data", root / "teacher", root / "knowledge", depth=15)
    told = {"method": "rrd", "num_interesting": 4, "num_uninteresting": 4, "depth": 10}
    fast = {**FAST, "epochs": 1}
    rd.distill(root / "data", root / "knowledge", "bpr", told, root / "bpr", training=fast)
    rd.extract(root / "data", root / "bpr", root / "bpr-knowledge", depth=15)
    rd.distill(root / "data", root / "bpr-knowledge", MODEL, told, root / "from-bpr", training=fast)
    found = rd.evaluate(root / "data", [root / "teacher", root / "bpr", root / "from-bpr"], root / "all")
    page = rd.report([root / "all"], root / "page")
    assert "train and valid by sequence models, train by others" in page.read_text(encoding="utf-8")
    entry = found["models"]["teacher"]["latency_ms"][0]
    assert entry["encoding"] > 0
    assert "encoding" not in found["models"]["bpr"]["latency_ms"][0]


def test_recommendations_depend_on_the_order_of_a_history(root: Path) -> None:
    model = trained(root)
    forward = [f"i{n}" for n in (3, 4, 5, 6)]
    found = model.recommend(history={"new": forward, "back": forward[::-1]}, k=3)
    lists = {user: part["item_id"].to_list() for (user,), part in found.group_by("user_id")}
    assert lists["new"] != lists["back"]
    assert not set(lists["new"]) & set(forward)
    assert set(lists["new"]) & {"i7", "i8"}
    unknown = model.recommend(history={"new": ["never", *forward]}, k=3)
    assert unknown["item_id"].to_list() == lists["new"]
    longer = [f"i{n}" for n in (20, 21, 22, 23, 24, 25, 26, 27, *range(10, 18))]
    cut = model.recommend(history={"a": longer, "b": longer[-10:]}, k=3, exclude_seen=False)
    assert cut["item_id"].to_list()[:3] == cut["item_id"].to_list()[3:]


def test_a_history_of_unknown_items_alone_is_an_error_or_popular(root: Path) -> None:
    model = trained(root)
    with pytest.raises(DataError, match=r"1 of 2 histories hold no item that the model knows.*'new'"):
        model.recommend(history={"new": ["never", "nor this"], "other": ["i3"]})
    popular = model.recommend(history={"new": ["never"], "other": ["i3"]}, k=3, cold="popular")
    assert popular.height == 6
    expected = model.recommend(["nobody"], k=3, cold="popular")["item_id"]
    assert popular.filter(pl.col("user_id") == "new")["item_id"].to_list() == expected.to_list()


def test_known_users_are_encoded_one_request_at_a_time(root: Path) -> None:
    model = trained(root)
    again = rd.load(root / "teacher")
    everyone = again.recommend(k=4)
    ids = everyone["user_id"].unique(maintain_order=True)
    for user in (ids[0], ids[-1]):
        alone = model.recommend([user], k=4)
        assert alone["item_id"].to_list() == everyone.filter(pl.col("user_id") == user)["item_id"].to_list()
    with largest_tensor() as watch:
        rd.load(root / "teacher").recommend([ids[0]], k=4)
    assert watch.elements <= 14 * 30 * 8  # a table of items, not the histories of all users
    assert [entry["batch"] for entry in measure(model, seconds=0.02)] == [1, 256]
    target = rd.recommend(root / "teacher", root / "lists", k=4)
    assert pl.read_parquet(target).equals(everyone)


def test_data_without_an_order_is_refused(tmp_path: Path) -> None:
    rd.prepare(walks().drop("position"), tmp_path / "data")
    with pytest.raises(DataError, match="neither a time nor a position") as error:
        rd.train(tmp_path / "data", MODEL, tmp_path / "model", training=FAST)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert error.value.hint is not None
    assert "--time-column" in error.value.hint


def test_rows_without_a_position_are_dropped_and_told(tmp_path: Path) -> None:
    table = walks().with_columns(
        pl.when(pl.col("item_id") == "i7").then(None).otherwise(pl.col("position")).alias("position")
    )
    data = rd.prepare(table, tmp_path / "data", split="leave-one-out")
    assert data.manifest.summary["dropped"] == {"no position": int((table["item_id"] == "i7").sum())}
    assert data.num_items == 29


def sessions() -> pl.DataFrame:
    """Train sessions of three to five events, test sessions apart; half of these end on an item they hold already."""
    rng = np.random.default_rng(0)
    rows: list[tuple[int, int, int, str]] = []
    for session in range(60):
        split = "train" if session < 45 else "test"
        start, length = int(rng.integers(20)), int(rng.integers(3, 6))
        items = [(start + place) % 20 for place in range(length)]
        if session % 2:
            items[-1] = items[0]
        rows += [(session, item, place, split) for place, item in enumerate(items)]
    return pl.DataFrame(rows, schema=["session_id", "item_id", "position", "split"], orient="row")


def test_given_sessions(tmp_path: Path) -> None:
    notes = Notes()
    data = rd.prepare(sessions(), tmp_path / "data", progress=notes)
    assert any("no valid split given: took the last train row of 4 users" in text for text in notes.notes)
    model = rd.train(data, MODEL, tmp_path / "model", training={**FAST, "epochs": 2})
    found = rd.evaluate(data, tmp_path / "model", tmp_path / "eval", latency=False, progress=notes)
    assert any("15 users without train rows: the last row is the target" in text for text in notes.notes)
    assert found["masked"] == []
    assert found["users"] == {
        "evaluated": 15, "without_targets": 45, "without_train_rows": 15, "masked_targets": 0, "newcomers": 15
    }  # fmt: skip
    task = make_task(data, "test", "default", (5,))
    external = sessions().filter(pl.col("split") == "test").sort("session_id", "position")
    for user in task.users.tolist():
        own = external.filter(pl.col("session_id") == data.users.ids(torch.tensor([user]))[0])[
            "item_id"
        ].to_list()
        target = data.items.ids(task.targets.rows(torch.tensor([user])).items.long()).to_list()
        history = data.items.ids(task.histories.event_rows(torch.tensor([user])).items.long()).to_list()
        assert (history, target) == (own[:-1], own[-1:])
    assert check_hits(model, data) == pytest.approx(found["models"]["model"]["metrics"]["hit@5"]["mean"])


def test_sessions_without_train_rows_are_cold(tmp_path: Path) -> None:
    """Test sessions are in the vocabulary, and of no model known: nothing is made up for them."""
    rd.prepare(sessions(), tmp_path / "data")
    for name in (MODEL["name"], "bpr"):
        model = rd.train(tmp_path / "data", name, tmp_path / name, training={**FAST, "epochs": 1})
        with pytest.raises(
            DataError, match=r"2 of 3 users have no train rows, so that the model knows nothing of them"
        ):
            model.recommend([3, 50, 55])
        assert model.recommend(k=2)["user_id"].n_unique() == 45
        popular = model.recommend([50, 3], k=2, cold="popular")
        assert (
            popular[:2]["item_id"].to_list()
            == model.recommend([999], k=2, cold="popular")["item_id"].to_list()
        )
        assert popular[2:].equals(model.recommend([3], k=2))
        notes = Notes()
        path = rd.recommend(model, tmp_path / f"{name}-lists", k=2, progress=notes)
        assert pl.read_parquet(path)["user_id"].n_unique() == 45
        assert any("15 users without train rows left out: --cold popular" in text for text in notes.notes)
        everyone = rd.recommend(model, tmp_path / f"{name}-all", k=2, cold="popular")
        assert pl.read_parquet(everyone)["user_id"].n_unique() == 60


def check_hits(model: Recommender, data: Data) -> float:
    """HR@5 session by session, from external ids."""
    hits: list[bool] = []
    for _, part in sessions().filter(pl.col("split") == "test").group_by("session_id"):
        items = part.sort("position")["item_id"].to_list()
        found = model.recommend(history={"s": items[:-1]}, k=5, exclude_seen=False)
        hits.append(items[-1] in found["item_id"].to_list())
    return float(np.mean(hits))


def test_short_sessions_are_validated_from_their_history(tmp_path: Path) -> None:
    table = sessions().with_columns(
        pl.when(pl.col("session_id").is_in(range(40, 45)))
        .then(pl.lit("valid"))
        .otherwise(pl.col("split"))
        .alias("split")
    )
    data = rd.prepare(table, tmp_path / "data")
    rd.train(data, MODEL, tmp_path / "model", training={**FAST, "epochs": 2})
    found = rd.evaluate(data, tmp_path / "model", tmp_path / "eval", split="valid", latency=False)
    assert found["users"]["newcomers"] == 5


def test_a_session_of_one_row_is_ranked_and_said(tmp_path: Path) -> None:
    session = pl.col("session_id")
    table = sessions().filter((session != sessions()["session_id"].max()) | (pl.col("position") == 0))
    data = rd.prepare(table, tmp_path / "data")
    rd.train(data, MODEL, tmp_path / "model", training={**FAST, "epochs": 1})
    notes = Notes()
    found = rd.evaluate(data, tmp_path / "model", tmp_path / "eval", latency=False, progress=notes)
    users = found["users"]
    assert users["newcomers"] == users["evaluated"] - 1
    assert any("1 user more with one row alone" in note for note in notes.notes)


def test_a_global_cut_in_time_gives_newcomers_a_history(tmp_path: Path) -> None:
    table = (
        walks()
        .with_columns(time=pl.col("position") + 60 * pl.col("user_id").str.slice(1).cast(pl.Int64))
        .drop("position")
    )
    notes = Notes()
    data = rd.prepare(table, tmp_path / "data", split="temporal", progress=notes)
    rd.train(data, MODEL, tmp_path / "model", training={**FAST, "epochs": 2})
    found = rd.evaluate(data, tmp_path / "model", tmp_path / "eval", latency=False)
    assert found["users"]["newcomers"] > 0
