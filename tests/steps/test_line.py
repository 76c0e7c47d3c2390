"""The line end to end on small interactions: what each step writes, reuses, refuses and says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import recdistill as rd
from command import Command
from line_cases import Notes, log_of_tastes
from recdistill.artifacts import load_arrays, read_manifest, save_arrays
from recdistill.data.columns import Columns
from recdistill.data.prepared import Data
from recdistill.data.readers import find_files
from recdistill.errors import ArtifactError, DataError, MissingKnowledgeError, OptionError
from recdistill.progress import Silent
from recdistill.steps.recommend import read_history

FAST = {"epochs": 3, "batch_size": 256, "learning_rate": 0.02}
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}
DE = {"method": "de", "num_experts": 2, "anneal_epochs": 5}


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return log_of_tastes()


@pytest.fixture(scope="module")
def line(table: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a teacher and its knowledge."""
    root = tmp_path_factory.mktemp("line")
    table.write_csv(root / "log.csv")
    data = rd.prepare(root / "log.csv", root / "data")
    teacher = rd.train(
        data, rd.models.BPR(dim=16), root / "teacher", training={**FAST, "trajectory": (0.5, 1.0)}
    )
    rd.extract(data, teacher, root / "knowledge", depth=20)
    return root


def test_the_ten_lines_from_python(line: Path) -> None:
    student = rd.distill(
        line / "data",
        line / "knowledge",
        rd.models.BPR(dim=4),
        [
            rd.distillers.RRD(num_interesting=5, num_uninteresting=6, depth=15),
            rd.distillers.DE(num_experts=2),
        ],
        line / "student",
        training=FAST,
    )
    alone = rd.train(line / "data", rd.models.BPR(dim=4), line / "alone", training=FAST)
    result = rd.evaluate(
        line / "data", [rd.load(line / "teacher"), alone, student], line / "evaluation", latency=False
    )
    assert set(result["models"]) == {"teacher", "alone", "student"}
    page = rd.report([line / "evaluation"], line / "report")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>") or "<html" in page.read_text()
    found = rd.load(line / "student").recommend(["u7", "u3"], k=5)
    assert found["user_id"].to_list() == ["u7"] * 5 + ["u3"] * 5
    assert found["rank"].to_list() == [1, 2, 3, 4, 5] * 2


def test_knowledge_of_a_stored_and_of_a_live_teacher_distil_alike(line: Path) -> None:
    one = rd.distill(line / "data", line / "knowledge", "bpr", [RRD, DE], line / "stored", training=FAST)
    other = rd.distill(line / "data", line / "teacher", "bpr", [RRD, DE], line / "live", training=FAST)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    teacher = read_manifest(line / "teacher").hash
    assert read_manifest(line / "stored").summary["teacher"] == teacher
    assert read_manifest(line / "live").summary["teacher"] == teacher


def test_a_teacher_that_scores_all_items_alike_is_told(line: Path, tmp_path: Path) -> None:
    shutil.copytree(line / "knowledge", tmp_path / "knowledge")
    path = tmp_path / "knowledge" / "top_items.safetensors"
    arrays = load_arrays(path)
    arrays["scores"][:7] = 1.5
    save_arrays(path, arrays)
    alike = tmp_path / "knowledge"
    for knowledge, beside, told in ((line / "knowledge", None, 0), (alike, None, 1), (alike, "itemknn", 1)):
        notes = Notes()
        rd.distill(
            line / "data",
            knowledge,
            methods=RRD,
            out=tmp_path / f"told {told} {beside}",
            beside=beside,
            training=FAST,
            progress=notes,
        )
        assert sum("scores all items alike for 7 of 60 users" in note for note in notes.notes) == told


@pytest.mark.parametrize(
    ("kind", "method"), [("top_items", RRD), ("top_users", {"method": "dcd", "depth": 5})]
)
def test_lists_that_are_empty_are_told_and_nothing_but_empty_ones_refused(
    kind: str, method: dict[str, Any], line: Path, tmp_path: Path
) -> None:
    shutil.copytree(line / "knowledge", tmp_path / "knowledge")
    (tmp_path / "knowledge" / "embeddings.safetensors").unlink()
    path = tmp_path / "knowledge" / f"{kind}.safetensors"
    arrays = load_arrays(path)
    arrays["ids"][:7], arrays["scores"][:7] = -1, -torch.inf
    save_arrays(path, arrays)
    call = {"methods": method, "training": FAST}
    notes = Notes()
    rd.distill(line / "data", tmp_path / "knowledge", out=tmp_path / "some", progress=notes, **call)
    assert sum(note.startswith("7 of ") and "have no list" in note for note in notes.notes) == 1
    arrays["ids"][:], arrays["scores"][:] = -1, -torch.inf
    save_arrays(path, arrays)
    with pytest.raises(
        MissingKnowledgeError, match=rf"{method['method']} learns from {kind}, and in this store no"
    ):
        rd.distill(line / "data", tmp_path / "knowledge", out=tmp_path / "none", **call)
    assert not (tmp_path / "none").exists()


def test_a_model_below_popularity_is_told(line: Path, tmp_path: Path) -> None:
    for epochs, rate, told in ((1, 1e-9, True), (30, 0.02, False)):
        notes, options = Notes(), {"epochs": epochs, "learning_rate": rate, "batch_size": 256}
        rd.train(line / "data", "bpr", tmp_path / str(epochs), training=options, progress=notes)
        assert any("is below the" in note and "most popular" in note for note in notes.notes) == told


def test_lists_never_hold_train_items(line: Path) -> None:
    data = rd.prepare(line / "log.csv", line / "data")
    ids = load_arrays(line / "knowledge" / "top_items.safetensors")["ids"]
    users = torch.arange(60)[:, None].expand_as(ids)
    assert not bool(data.train.contains(users.reshape(-1), ids.reshape(-1).long()).any())
    users_of = load_arrays(line / "knowledge" / "top_users.safetensors")["ids"]
    items = torch.arange(data.num_items)[:, None].expand_as(users_of)
    present = users_of.reshape(-1) >= 0
    assert not bool(
        data.train.contains(users_of.reshape(-1)[present].long(), items.reshape(-1)[present]).any()
    )


def test_a_store_is_extended_and_keeps_what_it_holds(line: Path) -> None:
    out = line / "growing"
    rd.extract(line / "data", line / "teacher", out, kinds=["top_items"], depth=5)
    before = (out / "top_items.safetensors").read_bytes()
    rd.extract(line / "data", line / "teacher", out, kinds=["embeddings"], depth=5)
    assert (out / "top_items.safetensors").read_bytes() == before
    assert read_manifest(out).options == {"kinds": ["embeddings", "top_items"], "depth": 5}
    deeper = rd.extract(line / "data", line / "teacher", out, kinds=["trajectory"], depth=7)
    assert deeper.lists["top_items"].ids.shape == (60, 7)
    assert len(list((out / "trajectory").glob("*.safetensors"))) == 2
    again = rd.extract(line / "data", line / "teacher", out, kinds=["top_items"], depth=3)
    assert again.lists["top_items"].ids.shape == (60, 7)


def test_force_makes_the_asked_kinds_of_a_store_again(line: Path) -> None:
    out, store = line / "forced", (line / "data", line / "teacher", line / "forced")
    rd.extract(*store, depth=5)
    whole = {path: path.read_bytes() for path in sorted(out.rglob("*.safetensors"))}
    for kind in ("top_items", "embeddings"):
        arrays = load_arrays(out / f"{kind}.safetensors")
        save_arrays(
            out / f"{kind}.safetensors", {name: torch.zeros_like(value) for name, value in arrays.items()}
        )
    damaged = (out / "embeddings.safetensors").read_bytes()
    notes = Notes()
    rd.extract(*store, kinds=["top_items"], depth=5, force=True, progress=notes)
    assert notes.notes == ["extracting top_items: about 2.4 kB of lists"]  # 60 users x 5 x 8 bytes
    assert (out / "top_items.safetensors").read_bytes() == whole[out / "top_items.safetensors"]
    assert (out / "embeddings.safetensors").read_bytes() == damaged
    notes = Notes()
    rd.extract(*store, kinds=["embeddings"], depth=5, force=True, progress=notes)
    assert notes.notes == ["extracting embeddings"]
    assert {path: path.read_bytes() for path in sorted(out.rglob("*.safetensors"))} == whole


def test_a_depth_beyond_the_catalogue_is_cut_to_it(line: Path) -> None:
    found = rd.extract(line / "data", line / "teacher", line / "deep", kinds=["top_items"], depth=500)
    ids = found.lists["top_items"].ids
    assert ids.shape == (60, 50)  # 50 items
    assert bool((ids[:, 50:] == -1).all())
    rd.distill(
        line / "data", line / "deep", "bpr", [{**RRD, "depth": 400}], line / "deep-student", training=FAST
    )


def test_a_missing_kind_names_the_command_that_makes_it(line: Path) -> None:
    rd.extract(line / "data", line / "teacher", line / "lists", kinds=["top_items"], depth=20)
    with pytest.raises(
        MissingKnowledgeError, match=r"de reads embeddings.*recdistill extract .*--kinds embeddings"
    ):
        rd.distill(line / "data", line / "lists", "bpr", [DE], line / "never", training=FAST)
    assert not (line / "never").exists()
    with pytest.raises(MissingKnowledgeError, match=r"to depth 45 are read; .* to depth 20.*--depth 45"):
        rd.distill(
            line / "data", line / "lists", "bpr", [{**RRD, "depth": 45}], line / "never", training=FAST
        )


def test_knowledge_of_other_data_is_refused(line: Path, table: pl.DataFrame) -> None:
    table.head(600).write_csv(line / "other.csv")
    other = rd.prepare(line / "other.csv", line / "other")
    with pytest.raises(ArtifactError, match="was extracted from data"):
        rd.distill(other, line / "knowledge", "bpr", [RRD], line / "never", training=FAST)
    users, left = len(Data.load(line / "data").users), len(other.users)
    said = rf"was trained on data .*: {users} users there, {users - left} of them unknown here, where {left} are; "
    with pytest.raises(ArtifactError, match=said):
        rd.extract(other, line / "teacher", line / "never")
    with pytest.raises(ArtifactError, match="was trained on data"):
        rd.distill(other, line / "teacher", "bpr", [RRD], line / "never", training=FAST)


def test_a_live_teacher_of_another_split_is_refused(line: Path, tmp_path: Path) -> None:
    """Its train rows are test rows here, though users and items are the same."""
    again = rd.prepare(line / "log.csv", tmp_path / "data", seed=1)
    assert again.users.hash == Data.load(line / "data").users.hash
    with pytest.raises(
        ArtifactError, match=r"was trained on data .*: the same users and items, .*; pass the data directory"
    ):
        rd.distill(again, line / "teacher", "bpr", [RRD], tmp_path / "never", training=FAST)
    tree = {
        "data": {"path": str(tmp_path / "data")},
        "teacher": {"knowledge": str(line / "teacher")},
        "distill": [RRD],
    }
    tree |= {"student": {"dim": 3, "training": FAST}, "space": {"rrd": {"weight": [0.1, 1.0]}}}
    with pytest.raises(ArtifactError, match="was trained on data"):
        rd.tune(tree, tmp_path / "tuning")


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_the_weight_of_the_own_loss_is_checked(line: Path, tmp_path: Path, weight: float) -> None:
    with pytest.raises(OptionError, match="base_weight"):
        rd.distill(line / "data", line / "knowledge", "bpr", [RRD], tmp_path / "never", base_weight=weight)


def test_the_same_step_is_reused_and_another_refused(line: Path) -> None:
    out = line / "again"
    rd.train(line / "data", rd.models.BPR(dim=3), out, training=FAST)
    stamp = (out / "manifest.json").stat().st_mtime_ns
    rd.train(line / "data", rd.models.BPR(dim=3), out, training=FAST)
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(ArtifactError, match=r"model\.dim"):
        rd.train(line / "data", rd.models.BPR(dim=5), out, training=FAST)
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    rd.train(line / "data", rd.models.BPR(dim=5), out, training=FAST, force=True)
    assert rd.load(out).options["dim"] == 5


def test_training_never_opens_the_test_split(line: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(line / "data", tmp_path / "data")
    (tmp_path / "data" / "test.parquet").write_bytes(b"not to be read")
    teacher = rd.train(tmp_path / "data", "bpr", tmp_path / "teacher", training=FAST)
    rd.extract(tmp_path / "data", teacher, tmp_path / "knowledge", depth=20)
    rd.distill(
        tmp_path / "data", tmp_path / "knowledge", "bpr", [RRD, DE], tmp_path / "student", training=FAST
    )
    with pytest.raises(ArtifactError):
        rd.evaluate(tmp_path / "data", tmp_path / "student", tmp_path / "evaluation", latency=False)


def test_refit_on_train_and_valid(line: Path) -> None:
    model = rd.train(line / "data", "bpr", line / "refit", training=FAST, on=("train", "valid"))
    data = rd.prepare(line / "log.csv", line / "data")
    assert model.train_pairs is not None
    assert model.train_pairs.num_pairs == data.train.num_pairs + data.valid.num_pairs


def test_a_truncated_weights_file_is_one_line(line: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(line / "teacher", tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactError) as caught:
        rd.load(tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert "weights.safetensors" in str(caught.value)


def test_recommend_writes_a_table(line: Path) -> None:
    path = rd.recommend(line / "teacher", line / "recommendations", k=4)
    found = pl.read_parquet(path)
    assert found.columns == ["user_id", "item_id", "rank", "score"]
    assert found.height == 60 * 4
    seen = pl.read_csv(line / "log.csv")
    data = rd.prepare(line / "log.csv", line / "data")
    users = data.users.index(found["user_id"])
    items = data.items.index(found["item_id"])
    assert not bool(data.train.contains(users, items).any())
    assert set(found["item_id"]) <= set(seen["item_id"])


def test_recommend_for_a_file_of_users(line: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\nu5\nu2\n")
    path = rd.recommend(line / "teacher", tmp_path / "out", k=3, users=tmp_path / "users.csv")
    assert pl.read_parquet(path)["user_id"].to_list() == ["u5"] * 3 + ["u2"] * 3
    (tmp_path / "users.txt").write_text("u5\nnobody\n")
    with pytest.raises(
        DataError, match=r"1 of 2 users are unknown to the model, the first is 'nobody'; .*--cold popular"
    ):
        rd.recommend(line / "teacher", tmp_path / "never", k=3, users=tmp_path / "users.txt")
    path = rd.recommend(
        line / "teacher", tmp_path / "cold", k=3, users=tmp_path / "users.txt", cold="popular"
    )
    assert pl.read_parquet(path).height == 6


def test_recommend_for_a_file_of_histories(line: Path, tmp_path: Path) -> None:
    model = rd.load(line / "teacher")
    rows = [("new", "i4", 2), ("newer", "i9", 1), ("new", "i7", 1), ("u1", "i5", 1), ("newer", "never", 2)]
    told = {"new": ["i7", "i4"], "newer": ["i9", "never"], "u1": ["i5"]}
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row")
    table.write_csv(tmp_path / "histories.csv")
    notes = Notes()
    path = rd.recommend(
        line / "teacher", tmp_path / "out", k=3, history=tmp_path / "histories.csv", progress=notes
    )
    assert "1 row of the histories on items that the model has not met left out" in notes.notes
    assert not any("the file's order is taken" in text for text in notes.notes)
    found = pl.read_parquet(path)
    for user, items in told.items():
        alone = model.recommend(history={user: items}, k=3)
        assert_frame_equal(found.filter(pl.col("user_id") == user), alone)
    assert found["user_id"].unique().sort().to_list() == ["new", "newer", "u1"]
    by_table = model.recommend(["newer", "u2"], k=3, history=table)
    assert by_table["user_id"].to_list() == ["newer"] * 3 + ["u2"] * 3
    assert by_table[3:].equals(model.recommend(["u2"], k=3))
    assert "history" in read_manifest(tmp_path / "out").inputs
    (tmp_path / "folder").mkdir()
    (tmp_path / "histories.csv").rename(tmp_path / "folder" / "histories.csv")
    again = rd.recommend(line / "teacher", tmp_path / "again", k=3, history=tmp_path / "folder")
    assert pl.read_parquet(again).equals(found)
    table.select("user_id", "item_id").write_csv(tmp_path / "unordered.csv")
    rd.recommend(line / "teacher", tmp_path / "u", k=3, history=tmp_path / "unordered.csv", progress=notes)
    assert any("the file's order is taken, a user's newest item last" in text for text in notes.notes)
    with pytest.raises(DataError, match="nowhere"):
        rd.recommend(line / "teacher", tmp_path / "never", history=tmp_path / "nowhere.csv")
    assert model.recommend(["u2"], k=3, history={}).equals(model.recommend(["u2"], k=3))
    nobody = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String})
    for none in ({}, nobody):  # nobody is asked for, not everybody
        assert model.recommend(history=none, k=3).height == 0
    with pytest.raises(DataError, match="1 of 1 histories hold no item"):
        model.recommend(history={"new": []})


def test_histories_in_files_have_the_order_of_prepared_data(line: Path, tmp_path: Path) -> None:
    """Ties fall by the item's hash whatever the order of the file, and rows without a position are left out."""
    model = rd.load(line / "teacher")
    items = model.vocabularies()[1]
    rows = [("new", name, 7) for name in ("i4", "i7", "i9")]
    columns = Columns(time="when")
    for given in (rows, rows[::-1]):
        table = pl.DataFrame(given, schema=["user_id", "item_id", "when"], orient="row")
        table.write_csv(tmp_path / "ties.csv")
        read = read_history(find_files(tmp_path / "ties.csv"), columns, items, Silent())
        assert read["item_id"].to_list() == items.ids(items.index(table["item_id"]).sort().values).to_list()
    (tmp_path / "gaps.csv").write_text("user_id,item_id,position\nnew,i4,2\nnew,i7,\nnew,i9,0\n")
    read = read_history(find_files(tmp_path / "gaps.csv"), Columns(), items, Silent())
    assert read["item_id"].to_list() == ["i9", "i4"]


def test_columns_of_histories_are_named(line: Path, tmp_path: Path, recdistill: Command) -> None:
    (tmp_path / "own.csv").write_text("who,what\nnew,i4\n")
    asked = [
        "recommend",
        line / "teacher",
        "--k",
        3,
        "--history",
        tmp_path / "own.csv",
        "--out",
        tmp_path / "x",
    ]
    answer = recdistill(*asked)
    assert (answer.code, "--user-column" in answer.err) == (2, True)
    answer = recdistill(*asked, "--user-column", "who", "--item-column", "what")
    assert answer.code == 0, answer.err
    assert "3 rows for 1 user" in answer.out
    with pytest.raises(OptionError, match="--history"):
        rd.recommend(line / "teacher", tmp_path / "y", user_column="who")


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([1, 2], "expected a mapping of users to their items, or a table, found list"),
        ({"new": None}, "expected a list of items for user 'new', found None"),
        ({"new": "1234"}, "expected a list of items for user 'new', found '1234'"),
        (pl.DataFrame({"user_id": ["new"]}), "no column item_id; columns present: user_id"),
    ],
    ids=["list", "none", "text", "table"],
)
def test_histories_that_are_none(line: Path, history: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rd.load(line / "teacher").recommend(history=history)


def test_folding_in_a_users_own_history_gives_much_of_his_list(line: Path) -> None:
    model = rd.load(line / "teacher")
    pairs = model.train_pairs
    assert pairs is not None
    user_ids, item_ids = model.vocabularies()
    overlaps: list[float] = []
    for user in range(20):
        rows = pairs.rows(torch.tensor([user]))
        history = item_ids.ids(rows.items.long()).to_list()
        name = user_ids.ids(torch.tensor([user]))[0]
        known = set(model.recommend([name], k=10)["item_id"])
        folded = model.recommend(["newcomer"], k=10, history={"newcomer": history})
        assert not set(folded["item_id"]) & set(history)
        overlaps.append(len(known & set(folded["item_id"])) / 10)
    assert np.mean(overlaps) > 0.35  # a random list of 10 of about 40 unseen items shares a quarter


def test_recommend_options(line: Path) -> None:
    model = rd.load(line / "teacher")
    with pytest.raises(DataError, match="unknown to the model"):
        model.recommend(["nobody"])
    with pytest.raises(DataError, match="candidates are unknown"):
        model.recommend(["u1"], candidates=["i1", "no such item"])
    only = model.recommend(["u1"], k=50, candidates=["i1", "i2", "i3"], exclude_seen=False)
    assert set(only["item_id"]) == {"i1", "i2", "i3"}
    everything = model.recommend(["u1"], k=50, exclude_seen=False)
    assert everything.height == len(model.vocabularies()[1])
    with pytest.raises(OptionError):
        model.recommend(["u1"], k=0)


RUN_FILE = """
out = "ignored"
seed = 3
[data]
source = "SOURCE"
[teacher]
model = "bpr"
dim = 16
[teacher.training]
epochs = 3
batch_size = 256
[extract]
depth = 20
[student]
model = "bpr"
dim = 4
[student.training]
epochs = 3
batch_size = 256
[[distill]]
method = "rrd"
num_interesting = 5
num_uninteresting = 6
depth = 15
[[distill]]
method = "de"
num_experts = 2
[evaluate]
k = [5, 10]
latency = false
"""


def test_run_file(line: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN_FILE.replace("SOURCE", str(line / "log.csv")))
    found = rd.run(file, tmp_path / "out", overrides={"student.dim": 5})
    parts = {"data", "teacher", "knowledge", "alone", "student", "evaluation", "report"}
    assert {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")} == parts
    assert rd.load(tmp_path / "out" / "student").options["dim"] == 5
    assert read_manifest(tmp_path / "out" / "student").seed == 3
    stamps = {p: (tmp_path / "out" / p / "manifest.json").stat().st_mtime_ns for p in parts}
    again = rd.run(file, tmp_path / "out", overrides={"student.dim": 5})
    assert stamps == {p: (tmp_path / "out" / p / "manifest.json").stat().st_mtime_ns for p in parts}
    assert json.loads(json.dumps(found.evaluation)) == json.loads(json.dumps(again.evaluation))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"studnt.dim": 3}, r"'studnt'.*student"),
        ({"student.dmi": 3}, r"dmi.*dim"),
        ({"student.dim": 0}, r"dim"),
        ({"student.training.epoch": 3}, r"epoch.*epochs"),
        ({"evaluate.ks": [1]}, r"evaluate\.ks"),
        ({"distill.rrd.depht": 3}, r"depht.*depth"),
    ],
)
def test_a_mistake_in_a_run_file_stops_before_the_first_step(
    line: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN_FILE.replace("SOURCE", str(line / "log.csv")))
    with pytest.raises(OptionError, match=message):
        rd.run(file, tmp_path / "out", overrides=changes)
    assert not (tmp_path / "out").exists()


def test_a_teacher_without_vectors_is_named(line: Path) -> None:
    rd.train(line / "data", "itemknn", line / "itemknn")
    rd.extract(line / "data", line / "itemknn", line / "itemknn-lists", depth=20)
    for teacher in ("itemknn", "itemknn-lists"):
        with pytest.raises(
            MissingKnowledgeError, match="de reads embeddings, and a teacher of the model itemknn"
        ):
            rd.distill(line / "data", line / teacher, "bpr", [DE], line / "never", training=FAST)


def test_what_gives_a_method_the_scores_that_a_store_lacks(line: Path, tmp_path: Path) -> None:
    for model, kinds in (("neumf", ["top_items", "embeddings"]), ("bpr", ["top_items"])):
        rd.train(line / "data", {"name": model, "dim": 3}, tmp_path / model, training=FAST)
        rd.extract(line / "data", tmp_path / model, tmp_path / f"{model}-store", kinds=kinds, depth=20)
    hints: list[str] = []
    for model in ("neumf", "bpr"):
        with pytest.raises(MissingKnowledgeError, match=r"rce-kd reads scores") as caught:
            rd.distill(line / "data", tmp_path / f"{model}-store", "bpr", "recommended", tmp_path / "never")
        hints.append(caught.value.hint)
    assert hints[0].startswith("distil from the model itself: --live MODEL")
    assert "recdistill extract DATA TEACHER --kinds embeddings --out" in hints[1]
    assert "live" not in hints[1]


def test_values_of_a_run_file_are_checked_before_its_first_step(line: Path, tmp_path: Path) -> None:
    for table, value, message in (
        ("evaluate", {"k": [0]}, r"evaluate\.k: expected"),
        ("extract", {"depth": "deep"}, r"extract\.depth: expected"),
        ("data", {"min_rating": "high"}, r"data\.min_rating: expected"),
    ):
        tree: dict[str, Any] = {"data": {"source": str(line / "log.csv")}}
        tree[table] = {**tree.get(table, {}), **value}
        with pytest.raises(OptionError, match=message):
            rd.run(tree, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_misspelt_metric_is_answered_with_the_nearest(line: Path) -> None:
    with pytest.raises(OptionError, match=r"expected ndcg, .* with @k, such as ndcg@10.*found 'ndgc@10'"):
        rd.train(line / "data", "bpr", line / "never", training={**FAST, "validate_metric": "ndgc@10"})


def test_a_class_and_a_list_of_no_length_are_refused(line: Path) -> None:
    with pytest.raises(OptionError, match=r"found the class BPR; call it: BPR\(\.\.\.\)"):
        rd.train(line / "data", rd.models.BPR, line / "never", training=FAST)
    with pytest.raises(OptionError, match=r"recommend\.k: expected an integer >= 1, found -1"):
        rd.load(line / "teacher").recommend(["u1"], k=-1)
