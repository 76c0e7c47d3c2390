"""`run`, `compare` and `tune` with teachers from elsewhere, by store or as models, and with live teachers."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import recdistill as rd
from line_cases import Notes
from recdistill.artifacts import read_manifest, save_arrays
from recdistill.data.prepared import Data
from recdistill.distillers.logit_kd import LogitKD
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.knowledge.teacher import load_knowledge
from recdistill.reporting.overall import comparison_lines, footing
from recdistill.steps.origins import check_reads

FAST: dict[str, Any] = {"epochs": 3, "batch_size": 256, "learning_rate": 0.02}
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}
BPR = {"name": "bpr", "dim": 16, "training": FAST}
pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture(scope="module")
def stores(log: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What another program wrote for splits 3 and 4: the most popular items to each user."""
    folder = tmp_path_factory.mktemp("stores")
    for split in (3, 4):
        by_hand(folder / f"split-{split}", rd.prepare(log, folder / f"data-{split}", seed=split))
    return str(folder / "split-{split}")


def by_hand(path: Path, data: Data, without: int = 0) -> None:
    """Lists for all users but the first ones."""
    popular = data.train.item_counts.argsort(descending=True)
    lists = torch.full((data.num_users, 20), -1, dtype=torch.int32)
    for user in range(data.num_users):
        own = data.train.items[data.train.indptr[user] : data.train.indptr[user + 1]]
        new = popular[~torch.isin(popular, own)][:20]
        lists[user, : len(new)] = new.int()
    lists[:without] = -1
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


def test_lists_that_will_be_too_short_are_said_before_a_teacher_is_trained(log: Path, tmp_path: Path) -> None:
    tree = file_of(log, {"model": "ease"}, extract={"depth": 10}, distill=[RRD])
    with pytest.raises(
        MissingKnowledgeError, match="rrd: top_items to depth 15 are read; the store of ease will"
    ):
        rd.run(tree, tmp_path / "out")
    assert not (tmp_path / "out" / "teacher").exists()
    deep = rd.run(tree, tmp_path / "out", overrides={"extract.depth": 15})
    assert (tmp_path / "out" / "knowledge").exists()
    assert (
        rd.run(tree, tmp_path / "out", overrides={"extract.depth": 12}).out == deep.out
    )  # what is there is deeper


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
        assert (told[1]["name"], told[1]["knowledge"], told[1]["epochs"]) == ("mine", store.hash, [0])
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


def test_a_run_from_a_store_alone(
    log: Path, stores: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recdistill.steps.distill.with_beside", lambda teacher, *_: teacher)  # as it is
    notes = Notes()
    unused = {"model": "ease", "training": {"epochs": 9}}
    tree = file_of(log, {"knowledge": stores, **unused}, extract={"depth": 3})
    found = rd.run(tree, tmp_path / "run", seed=3, progress=notes)
    assert any("the method is recommended-lists" in line for line in notes.notes)
    assert list(found.evaluation["models"]) == ["teacher", "alone", "student"]
    assert found.evaluation["models"]["student"]["teacher"] == "teacher"
    assert not list((tmp_path / "run").glob("teacher*")) + list((tmp_path / "run").glob("knowledge*"))


def test_a_run_puts_it_together_with_a_trained_one(log: Path, stores: str, tmp_path: Path) -> None:
    tree = file_of(log, BPR, {"name": "mine", "knowledge": stores}, distill=[RRD], seed=4)
    found = rd.run(tree, tmp_path / "run")
    assert list(found.evaluation["models"]) == ["teacher-bpr", "teacher-mine", "ensemble", "alone", "student"]
    assert read_manifest(tmp_path / "run" / "ensemble").options["ensemble"] == ["bpr", "mine"]


def test_users_without_a_list_are_told(log: Path, tmp_path: Path) -> None:
    by_hand(tmp_path / "some", rd.prepare(log, tmp_path / "data", seed=3), without=20)
    tree = file_of(log, {"knowledge": str(tmp_path / "some")}, **_compared(split_seeds=[3]))
    notes = Notes()
    found = rd.compare(tree, tmp_path / "out", progress=notes)
    row = found.comparison["evaluations"]["full"]["rows"]["teacher"]
    assert (row["users"], row["evaluated"]) == (40, 60)
    assert "20 users have no list in teacher: its means are over the others" in notes.notes
    said = "teacher has lists for 40 of 60 users: its means are over these, and tests compare on them."
    assert said in footing(found.comparison)
    page = html.unescape(found.page.read_text(encoding="utf-8"))
    assert said in page


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_store_without_any_list_is_refused(log: Path, tmp_path: Path, command: str) -> None:
    by_hand(tmp_path / "none", rd.prepare(log, tmp_path / "data", seed=3), without=60)
    tree = file_of(log, BPR, {"name": "none", "knowledge": str(tmp_path / "none")}, ensemble={})
    given = {**tree, "seed": 3} if command == "run" else {**tree, **_compared(split_seeds=[3])}
    with pytest.raises(OptionError, match="has an empty list for each of the 60 users"):
        getattr(rd, command)(given, tmp_path / "out")
    assert not list(tmp_path.glob("out/**/weights.safetensors"))


@pytest.mark.parametrize("command", ["run", "compare"])
@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (
            {"knowledge": "nowhere"},
            "teacher.knowledge: neither a store nor a model at nowhere; .*docs/knowledge.md",
        ),
        ({"knowledge": 3}, "teacher.knowledge: expected the directory of a store or a model, found 3"),
        ({"knowledge": "STORES", "dmi": 4}, "teacher.dmi: no such option"),
    ],
)
def test_mistakes_stop_it_before_the_first_step(
    log: Path, stores: str, tmp_path: Path, command: str, teacher: dict[str, Any], words: str
) -> None:
    given = {key: stores if value == "STORES" else value for key, value in teacher.items()}
    _refused(command, file_of(log, given), tmp_path / "out", words)


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
    with pytest.raises(ArtifactError, match=r"was made from data .*, not from"):
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


def test_a_named_row_keeps_the_hint_of_its_method(log: Path, stores: str, tmp_path: Path) -> None:
    store = load_knowledge(stores.format(split=3), rd.prepare(log, tmp_path / "data", seed=3))
    for what in ("", "mine"):
        with pytest.raises(MissingKnowledgeError, match="logit-kd reads what each item") as error:
            check_reads(store, [LogitKD()], what)
        assert error.value.message.startswith("mine: ") == bool(what)
        assert "logit-kd.places=newest" in error.value.hint


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


@pytest.fixture(scope="module")
def ordered(log: Path) -> Path:
    """The same log with an order."""
    table = pl.read_csv(log).with_row_index("time")
    table.write_csv(log.with_name("ordered.csv"))
    return log.with_name("ordered.csv")


SASREC = {"model": "sasrec", "dim": 8, "max_length": 8, "training": FAST}
KD = {"method": "logit-kd"}


@pytest.fixture(scope="module")
def teacher(ordered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence model that was trained before, on split 3."""
    folder = tmp_path_factory.mktemp("teacher")
    data = rd.prepare(ordered, folder / "data", seed=3)
    model = {key: value for key, value in SASREC.items() if key not in ("model", "training")}
    rd.train(data, {"name": "sasrec", **model}, folder / "sasrec", training=FAST)
    return folder / "sasrec"


def live_file(log: Path, *teachers: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return file_of(log, *teachers, **{"student": {**SASREC, "dim": 4}, **changed})


def test_a_comparison_with_live_teachers(ordered: Path, teacher: Path, tmp_path: Path) -> None:
    given, trained = {"name": "given", "knowledge": str(teacher)}, {"name": "own", "live": True, **SASREC}
    tree = live_file(ordered, given, trained, method=[{"name": "kd", "distill": [KD]}], split_seeds=[3])
    found = rd.compare(tree, tmp_path / "out")
    rows = found.comparison["evaluations"]["full"]["rows"]
    assert set(rows) == {"teacher-given", "teacher-own", "alone", "kd-given", "kd-own"}
    assert (
        rows["teacher-given"]["metrics"]["ndcg@10"] == rows["teacher-own"]["metrics"]["ndcg@10"]
    )  # the same model
    assert not list((tmp_path / "out").glob("split-3/knowledge*"))
    taught = {
        name: read_manifest(tmp_path / "out/split-3" / f"kd-{name}-seed-0") for name in ("given", "own")
    }
    assert {one.inputs["live"] for one in taught.values()} == {
        read_manifest(teacher).hash, read_manifest(tmp_path / "out/split-3/teacher-own").hash
    }  # fmt: skip


@pytest.mark.parametrize("own", [True, False])
def test_a_run_with_a_live_teacher(ordered: Path, teacher: Path, tmp_path: Path, own: bool) -> None:
    table = {**SASREC, "live": True} if own else {"knowledge": str(teacher)}
    found = rd.run(live_file(ordered, table, distill=[KD], seed=3), tmp_path / "run")
    assert found.evaluation["models"]["student"]["teacher"] == "teacher"
    assert not (tmp_path / "run" / "knowledge").exists()


def test_tuning_with_a_live_teacher(ordered: Path, tmp_path: Path) -> None:
    space = {"logit-kd.weight": [0.1, 0.2]}
    tree = live_file(ordered, {**SASREC, "live": True}, distill=[KD], tune={"trials": 1}, space=space)
    rd.tune(tree, tmp_path / "out")
    assert not (tmp_path / "out" / "knowledge").exists()


@pytest.mark.parametrize("command", ["run", "compare"])
@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"teacher": [{"live": "yes"}]}, OptionError, r"teacher\.live: expected true or false, found 'yes'"),
        (
            {"teacher": [{"name": "a", "live": True}, {"name": "b"}], "ensemble": {}},
            OptionError,
            r"ensemble\.teachers: a is read live, and an ensemble puts stores together",
        ),
        (
            {"teacher": [{"live": True, "model": "ease"}]},
            MissingKnowledgeError,
            "de reads embeddings, and .* ease",
        ),
    ],
)
def test_what_no_live_teacher_can_do(
    log: Path, tmp_path: Path, command: str, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    de = {"method": "de"}
    methods = {"distill": [de]} if command == "run" else {"method": [{"name": "de", "distill": [de]}]}
    with pytest.raises(error, match=words):
        getattr(rd, command)({**file_of(log), **methods, **changed}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("teachers", "words"),
    [
        (
            ["stores/3"],
            r"teacher\.knowledge: .* cannot be of all of the 2 splits; name one of each with \{split\}",
        ),
        (["S", "S"], r"teacher\.b\.knowledge: .* is another teacher's too; name each once"),
    ],
)
def test_each_split_and_each_teacher_has_its_own(
    log: Path, stores: str, tmp_path: Path, teachers: list[str], words: str
) -> None:
    places = {"S": stores, "stores/3": stores.replace("{split}", "3")}
    given = [{"name": name, "knowledge": places[place]} for name, place in zip("ab", teachers, strict=False)]
    with pytest.raises(OptionError, match=words):
        rd.compare(file_of(log, *given, **_compared(split_seeds=[3, 4])), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "compare"])
def test_lists_too_short_for_a_method_are_refused_before_a_student_is_trained(
    log: Path, stores: str, tmp_path: Path, command: str
) -> None:
    deep = {**RRD, "depth": 30}
    tree = file_of(log, {"knowledge": stores}, **_compared(split_seeds=[3]))
    tree["method"][0]["distill"] = [deep]
    given = file_of(log, {"knowledge": stores}, distill=[deep], seed=3) if command == "run" else tree
    words = (
        "rrd: top_items to depth 30 are read; the knowledge holds them to depth 20; set rrd.depth to 20 or less, or"
        r" make deeper ones \(.+B of lists\).*extract.depth and ensemble.depth"
    )
    with pytest.raises(MissingKnowledgeError, match=words):
        getattr(rd, command)(given, tmp_path / "out")
    assert not list(tmp_path.glob("out/**/weights.safetensors"))


def test_tuning_depths_that_a_store_lacks(log: Path, stores: str, tmp_path: Path) -> None:
    """The file's own are refused at once; those that a trial draws fail that trial alone."""
    given = file_of(log, {"knowledge": stores}, distill=[RRD], seed=3, space={"rrd": {"depth": [15, 30]}})
    given["tune"] = {"trials": 6, "startup_trials": 6}
    found = rd.tune(given, tmp_path / "out").tuning["trials"]
    assert {trial["values"]["rrd.depth"]: trial["value"] is None for trial in found} == {15: False, 30: True}
    assert all("depth 30 are read" in trial["reason"] for trial in found if trial["value"] is None)
    given["distill"] = [{**RRD, "depth": 30}]
    with pytest.raises(MissingKnowledgeError, match=r"set rrd.depth to 20 or less"):
        rd.tune(given, tmp_path / "deep")


@pytest.mark.parametrize("key", ["knowledge", "live"])
def test_a_student_has_no_origin(log: Path, tmp_path: Path, key: str) -> None:
    tree = file_of(log, BPR, distill=[RRD])
    tree["student"][key] = True
    with pytest.raises(OptionError, match=rf"student\.{key}: no such option"):
        rd.run(tree, tmp_path / "out")


@pytest.mark.parametrize("command", ["run", "compare"])
def test_more_candidates_than_users_have_are_refused_before_a_teacher_is_trained(
    log: Path, tmp_path: Path, command: str
) -> None:
    asked = {"protocol": "sampled", "negatives": 10_000}
    extra: dict[str, Any] = _compared(split_seeds=[3]) if command == "compare" else {"seed": 3}
    tree = file_of(log, **{**extra, "evaluate": [asked] if command == "compare" else asked})
    with pytest.raises(OptionError, match="negatives: 10000 a user were asked for"):
        getattr(rd, command)(tree, tmp_path / "out")
    assert not list(tmp_path.glob("out/**/weights.safetensors"))
