"""`compare`: what is made, reused, resumed and refused, and what the table says."""

from __future__ import annotations

import copy
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recdistill as rd
from line_cases import Notes
from recdistill.artifacts import read_manifest
from recdistill.errors import ArtifactError, MissingKnowledgeError, OptionError
from recdistill.reporting.overall import comparison_lines, footing, letters_of
from recdistill.steps import compare as compare_step
from recdistill.steps.comparefile import plan
from recdistill.training.loop import TrainingDiverged

FAST: dict[str, Any] = {"epochs": 3, "batch_size": 256, "learning_rate": 0.02}
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}
DE = {"method": "de", "num_experts": 2, "anneal_epochs": 5}
pytestmark = pytest.mark.usefixtures("without_charts")


def file_of(log: Path, **changed: Any) -> dict[str, Any]:
    return {
        "data": {"source": str(log)},
        "teacher": {"dim": 16, "training": FAST},
        "extract": {"depth": 20},
        "student": {"dim": 4, "training": FAST},
        "method": [
            {"name": "rrd", "distill": [RRD]},
            {"name": "sum", "distill": [DE, RRD], "training": {"epochs": 2}, "base_weight": 0.5},
        ],
        "evaluate": {"k": [5, 10], "latency": False},
        **changed,
    }


def models(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out).parent): json.loads(path.read_text())["created"]
        for path in out.glob("split-*/*/manifest.json")
        if json.loads(path.read_text())["kind"] == "model"
    }


@pytest.fixture(scope="module")
def made(log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Any]:
    out = tmp_path_factory.mktemp("made") / "out"
    tree = file_of(log, seeds=[0, 1], split_seeds=[3, 4])
    return tree, out, rd.compare(tree, out)


def test_every_run_is_made_as_the_file_says(made: tuple[dict[str, Any], Path, Any]) -> None:
    _, out, found = made
    names = {"teacher", *(f"{row}-seed-{seed}" for row in ("alone", "rrd", "sum") for seed in (0, 1))}
    assert set(models(out)) == {f"split-{split}/{name}" for split in (3, 4) for name in names}
    options = read_manifest(out / "split-3" / "sum-seed-1")
    assert options.seed == 1
    assert options.options["training"]["epochs"] == 2
    assert options.options["base_weight"] == 0.5
    assert [part["method"] for part in options.options["distill"]] == ["de", "rrd"]
    assert read_manifest(out / "split-4" / "data").seed == 4
    assert not found.failed
    runs = pl.read_parquet(out / "comparison" / "runs.parquet")
    assert runs.height == 14
    assert runs["epochs"].to_list().count(2) == 4


def test_rows_are_means_over_seeds_and_splits(made: tuple[dict[str, Any], Path, Any]) -> None:
    _, out, found = made
    combined = found.comparison["evaluations"]["full"]
    means: list[float] = []
    for split in (3, 4):
        table = pl.read_parquet(out / f"split-{split}" / "evaluation-full" / "per_user.parquet")
        own = table.filter(pl.col("model").is_in(["rrd-seed-0", "rrd-seed-1"]))
        users = own.group_by("user_id").agg(pl.col("ndcg@10").mean())  # a user's values over the seeds
        means.append(float(users["ndcg@10"].mean()))
    entry = combined["rows"]["rrd"]["metrics"]["ndcg@10"]
    assert entry["mean"] == pytest.approx(np.mean(means))
    assert entry["spread"] == pytest.approx(np.std(means, ddof=1))
    assert combined["rows"]["rrd"]["seeds"] == 2
    assert len(combined["tests"]) == 6 * 2  # all pairs of four rows, by NDCG@10 and Recall@10
    cost = found.comparison["costs"]["sum"]
    assert cost["epochs"] == {"mean": 2.0, "spread": 0.0}
    assert cost["seconds"]["mean"] > 0


def test_the_table_and_the_page_show_it(made: tuple[dict[str, Any], Path, Any]) -> None:
    _, _, found = made
    (table,) = comparison_lines(found.comparison)
    assert [row[0] for row in table] == ["model", "teacher", "alone", *(row[0] for row in table[3:])]
    assert {row[0] for row in table[3:]} == {"rrd", "sum"}
    words = " ".join(table[0])
    for column in (
        "NDCG@10",
        "Recall@10",
        "Tail recall@10",
        "Overlap@10",
        "gap closed",
        "s an epoch",
        "epochs",
    ):
        assert column in words
    assert "±" in table[1][1]
    lines = footing(found.comparison)
    assert any("2 splits, 2 model seeds each" in line for line in lines)
    assert any("by that split's own test over users" in line for line in lines)
    assert found.comparison["lineage"] == {
        row: {"teacher": "teacher", "alone": "alone"} for row in ("rrd", "sum")
    }
    page = found.page.read_text(encoding="utf-8")
    assert "All methods together" in page
    assert "What training took" in page
    assert "over 2 splits" in page
    assert "all tests of this evaluation, 6 pairs by 4 metrics" in page
    assert "The table of all methods together tests the splits" in page


def test_the_same_call_trains_nothing_and_more_seeds_train_only_those(
    made: tuple[dict[str, Any], Path, Any],
) -> None:
    tree, out, found = made
    before = models(out)
    shown = Notes()
    assert rd.compare(tree, out, progress=shown).comparison == found.comparison
    assert models(out) == before
    assert any("14 runs, 14 of them done already" in note for note in shown.notes)
    more = copy.deepcopy(tree)
    more["method"].append({"name": "de", "distill": [DE]})
    added = rd.compare(more, out)
    assert {name for name, stamp in models(out).items() if name not in before} == {
        f"split-{split}/de-seed-{seed}" for split in (3, 4) for seed in (0, 1)
    }
    assert {name: models(out)[name] for name in before} == before
    assert "de" in added.comparison["evaluations"]["full"]["rows"]
    assert rd.compare(tree, out).comparison["evaluations"] == found.comparison["evaluations"]


def test_changed_options_are_refused_and_force_replaces_those_runs_alone(log: Path, tmp_path: Path) -> None:
    tree = file_of(log)
    rd.compare(tree, tmp_path / "out")
    alone = (tmp_path / "out/split-0/alone-seed-0/weights.safetensors").stat().st_mtime_ns
    override = {"method.rrd.training.epochs": 1}
    notes = Notes()
    for more, others in (({}, ""), ({"student.dim": 5}, "; so were 2 other runs")):
        with pytest.raises(ArtifactError, match=rf"seed-0 was made with other options: [^;]*{others}; pass"):
            rd.compare(tree, tmp_path / "out", overrides=override | more, progress=notes)
    assert not notes.notes  # nothing was said to be done, and nothing was begun
    with pytest.raises(ArtifactError, match=r"rrd-seed-0 was made with .*: training.epochs 3 -> 1;"):
        rd.compare(tree, tmp_path / "out", overrides=override)
    found = rd.compare(tree, tmp_path / "out", overrides=override, force=True)
    assert found.comparison["costs"]["rrd"]["epochs"]["mean"] == 1
    assert (tmp_path / "out/split-0/alone-seed-0/weights.safetensors").stat().st_mtime_ns == alone


def test_a_killed_comparison_goes_on_to_the_same_end(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = file_of(log)
    straight = rd.compare(tree, tmp_path / "straight")
    real = compare_step.distill

    def killed(*arguments: Any, **options: Any) -> Any:
        if arguments[4].name == "sum-seed-0":
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(compare_step, "distill", killed)
    with pytest.raises(KeyboardInterrupt):
        rd.compare(tree, tmp_path / "out")
    monkeypatch.undo()
    shown = Notes()
    found = rd.compare(tree, tmp_path / "out", progress=shown)
    assert any("4 runs, 3 of them done already" in note for note in shown.notes)
    assert found.comparison["evaluations"] == straight.comparison["evaluations"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TrainingDiverged("the loss is not finite"), "the loss is not finite"),
        (
            MemoryError("Unable to allocate 8 TiB"),
            "not enough memory: Unable to allocate 8 TiB; choose smaller",
        ),
    ],
)
def test_a_run_that_fails_is_left_out_and_named(
    error: Exception, said: str, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compare_step.distill

    def diverging(*arguments: Any, **options: Any) -> Any:
        if arguments[4].name == "sum-seed-0":
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(compare_step, "distill", diverging)
    found = rd.compare(file_of(log), tmp_path / "out")
    (failed,) = found.failed
    assert (failed["name"], failed["split_seed"], failed["seed"]) == ("sum", 0, 0)
    assert failed["error"].startswith(said)
    assert set(found.comparison["evaluations"]["full"]["rows"]) == {"teacher", "alone", "rrd"}
    assert "sum of split 0, seed 0, failed" in found.page.read_text()


def assert_gap_follows_letters(combined: dict[str, Any], row: str, teacher: str, alone: str) -> None:
    for metric in combined["metrics"]:
        letters = letters_of(combined, metric)
        mean = {name: combined["rows"][name]["metrics"][metric]["mean"] for name in (teacher, alone)}
        above = mean[teacher] > mean[alone] and not set(letters[teacher]) & set(letters[alone])
        assert (combined["rows"][row]["gap_closed"][metric]["mean"] is not None) == above


def test_several_teachers_students_and_protocols(log: Path, tmp_path: Path) -> None:
    tree = file_of(
        log,
        teacher=[
            {"name": "big", "dim": 16, "training": FAST},
            {"name": "wide", "dim": 24, "training": FAST},
        ],
        student=[
            {"name": "s4", "dim": 4, "training": FAST},
            {"name": "s6", "dim": 6, "training": FAST},
        ],
        method=[{"name": "rrd", "distill": [RRD]}],
        evaluate=[{"k": [10], "latency": False},
                  {"protocol": "sampled", "negatives": 10, "k": [10], "latency": False}],
    )  # fmt: skip
    found = rd.compare(tree, tmp_path / "out")
    rows = {"teacher-big", "teacher-wide", "alone-s4", "alone-s6"}
    rows |= {f"rrd-{student}-{teacher}" for student in ("s4", "s6") for teacher in ("big", "wide")}
    assert set(found.comparison["evaluations"]) == {"full", "sampled"}
    for combined in found.comparison["evaluations"].values():
        assert set(combined["rows"]) == rows
        for row in rows & found.comparison["lineage"].keys():
            assert_gap_follows_letters(combined, row, **found.comparison["lineage"][row])
    assert found.comparison["lineage"]["rrd-s6-wide"] == {"teacher": "teacher-wide", "alone": "alone-s6"}
    rule = "by the test of its column's letters"
    assert any(rule in line for line in footing(found.comparison))
    page = found.page.read_text(encoding="utf-8")
    assert rule in html.unescape(page)
    assert "corrects each column for its own pairs only" in page
    lineage = {
        name: read_manifest(tmp_path / "out/split-0" / name)
        for name in ("teacher-wide", "rrd-s4-wide-seed-0")
    }
    assert lineage["rrd-s4-wide-seed-0"].summary["teacher"] == lineage["teacher-wide"].hash


def test_a_method_for_some_of_the_students(log: Path) -> None:
    students = [{"name": "s4", "dim": 4}, {"name": "s6", "dim": 6}]
    method = {"name": "rrd", "distill": [RRD]}
    tree = file_of(log, student=students, method=[method | {"students": ["s6"]}])
    assert [row.name for row in plan(tree).rows] == ["alone-s4", "alone-s6", "rrd-s6"]
    for wrong in (["s5"], "s6", []):
        with pytest.raises(
            OptionError, match=r"method rrd: students: expected a list .* tables: s4, s6, found"
        ):
            plan(file_of(log, student=students, method=[method | {"students": wrong}]))


def test_what_a_method_lacks_is_said_before_any_student_is_trained(log: Path, tmp_path: Path) -> None:
    tree = file_of(log, extract={"depth": 20, "kinds": ["top_items"]})
    with pytest.raises(MissingKnowledgeError, match=r"^sum: de reads embeddings"):
        rd.compare(tree, tmp_path / "out")
    assert not list((tmp_path / "out").glob("split-0/*-seed-*"))


@pytest.mark.parametrize(
    "changed",
    [{"teacher": {"model": "ease"}}, {"extract": {"depth": 10, "kinds": ["top_items", "observed_scores"]}}],
)
def test_lists_that_will_be_too_short_are_said_before_a_teacher_is_trained(
    changed: dict[str, Any], log: Path, tmp_path: Path
) -> None:
    tree = file_of(log, extract={"depth": 10}, method=[{"name": "rrd", "distill": [RRD]}]) | changed
    message = "rrd: top_items to depth 15 are read; the store of (ease|bpr) will have 10"
    with pytest.raises(MissingKnowledgeError, match=message) as error:
        rd.compare(tree, tmp_path / "out")
    assert error.value.hint.startswith("set extract.depth = 15 (")
    assert not list((tmp_path / "out").glob("split-0/teacher*"))


def test_tail_recall_is_a_column_with_letters(log: Path, tmp_path: Path) -> None:
    tree = file_of(log, metrics=["tail_recall@10", "ndcg@10"], split_seeds=[3, 4, 5])
    shown = Notes()
    found = rd.compare(tree, tmp_path / "out", progress=shown)
    tested = found.comparison["evaluations"]["full"]["tests"]
    assert {test["metric"] for test in tested} == {"tail_recall@10", "ndcg@10"}
    assert any("3 splits: tests over so few" in note for note in shown.notes)


def test_split_seeds_that_draw_nothing_are_refused(log: Path, tmp_path: Path) -> None:
    place = pl.int_range(720) % 12
    parts = pl.when(place == 10).then(pl.lit("valid")).when(place == 11).then(pl.lit("test"))
    table = pl.read_csv(log).with_columns(split=parts.otherwise(pl.lit("train")))
    table.write_csv(tmp_path / "given.csv")
    tree = file_of(tmp_path / "given.csv", split_seeds=[0, 1], method=[{"name": "rrd", "distill": [RRD]}])
    with pytest.raises(OptionError, match="split seeds 0 and 1 gave the same split"):
        rd.compare(tree, tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"methods": []}, ["methods", "did you mean method?"]),
        ({"distill": [RRD]}, ["method.distill"]),
        ({"method": []}, ["no [[method]]"]),
        ({"method": [{"name": "rdr"}]}, ["rdr", "rrd"]),
        ({"method": [{"name": "a", "preset": "de-rdr"}]}, ["de-rdr", "de-rrd"]),
        ({"method": [{"name": "a", "distill": [{"method": "rrd", "weigth": 1}]}]}, ["weigth", "weight"]),
        ({"method": [{"name": "rrd", "trainning": {}}]}, ["trainning", "training"]),
        ({"method": [{"name": "rrd", "training": {"epochs": 0}}]}, ["method.rrd.training.epochs", "0"]),
        (
            {"method": [{"name": "a", "distill": [{"method": "rrd"}, {"method": "rrd", "weight": 0}]}]},
            ["rrd.2.weight", "0"],
        ),
        ({"method": [{"name": "rrd", "base_weight": -1}]}, ["rrd.base_weight", "-1"]),
        ({"method": [{"name": "rrd"}, {"name": "rrd", "training": {"epochs": 1}}]}, ["two rows", "rrd"]),
        ({"method": [{"name": "rrd"}, {"name": "again", "distill": [{"method": "rrd"}]}]}, ["rrd and again"]),
        ({"method": [{"name": "a", "preset": "rrd"}]}, ["no preset 'rrd'", 'method = "rrd"']),
        ({"method": [{"name": "a/b", "preset": "de-rrd"}]}, ["method.name", "a/b"]),
        ({"method": [{"name": "teacher", "preset": "de-rrd"}]}, ["two rows", "teacher"]),
        ({"method": [{"name": "ensemble", "distill": [RRD]}], "ensemble": {}}, ["two rows", "ensemble"]),
        (
            {"method": [{"name": "rrd", "weight": 0.1}]},
            ["option of the method", "[[method.distill]]", "weight = 0.1"],
        ),
        ({"method": [{"name": "mkdd"}]}, ["mkdd", "did you mean mkd?"]),
        ({"student": {"model": "ease"}}, ["ease is fitted at once"]),
        ({"method": [{"name": "hint"}]}, ["hint reads the student's hidden_states", "bpr", "sasrec"]),
        (
            {"method": [{"name": "strong", "distill": [{"method": "rd"}, {"method": "hint"}]}]},
            ["strong: hint reads the student's hidden_states"],
        ),
        ({"method": [{"name": "a", "preset": "de-rrd", "distill": [RRD]}]}, ["a has several"]),
        ({"method": ["rrd"]}, ["[[method]]"]),
        ({"seeds": []}, ["compare.seeds"]),
        ({"seeds": [0, 0]}, ["compare.seeds", "twice"]),
        ({"split_seeds": 3}, ["compare.split_seeds", "3"]),
        ({"metrics": ["ndcg@7"]}, ["compare.metrics", "ndcg@7"]),
        ({"data": {}}, ["data.source"]),
        ({"data": {"source": "x", "splt": "random"}}, ["data.splt", "split"]),
        ({"teacher": [{"dim": 4}, {"dim": 8}]}, ["teacher.name"]),
        ({"teacher": {"dim": 16, "seed": "a"}}, ["teacher.seed", "a"]),
        ({"alone": {"dim": 3}}, ["alone.dim"]),
        ({"alone": {"model": "cml"}}, ["alone.model", "student itself"]),
        ({"alone": {"drop": 0.1}}, ["alone", "drop"]),
        ({"alone": {"training": {"epochs": 0}}}, ["alone.training.epochs"]),
        (
            {"student": [{"name": "a"}, {"name": "b", "dim": 3}], "alone": {"num_negatives": 2}},
            ["alone.num_negatives", "2 students"],
        ),
        ({"evaluate": [{"k": [5]}, {"k": [10]}]}, ["evaluate.name", "full"]),
    ],
)
def test_mistakes_stop_it_before_the_first_step(
    log: Path, tmp_path: Path, changed: dict[str, Any], words: Sequence[str]
) -> None:
    with pytest.raises(OptionError) as caught:
        rd.compare(file_of(log, **changed), tmp_path / "out")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_undistilled_student_may_be_regularised_for_itself(log: Path, tmp_path: Path) -> None:
    tree = file_of(log, alone={"num_negatives": 2, "training": {"epochs": 2}}, seeds=[0, 1])
    found = rd.compare(tree, tmp_path / "c")
    manifest = read_manifest(tmp_path / "c/split-0/alone-seed-1")
    assert (manifest.options["model"]["num_negatives"], manifest.options["training"]["epochs"]) == (2, 2)
    assert read_manifest(tmp_path / "c/split-0/rrd-seed-1").options["model"]["num_negatives"] == 1
    assert_gap_follows_letters(found.comparison["evaluations"]["full"], "rrd", "teacher", "alone")
    tree = {key: value for key, value in tree.items() if key not in ("method", "seeds")}
    run = rd.run({**tree, "distill": [RRD]}, tmp_path / "r")
    assert not any(
        "no undistilled" in text for text in run.evaluation["gap_closed_reasons"]["student"].values()
    )
    assert read_manifest(tmp_path / "r/alone").options["model"]["num_negatives"] == 2


def test_two_teachers_that_differ_in_the_seed_alone(log: Path, tmp_path: Path) -> None:
    """Their students are no groups of an evaluation: rows are the means of their models all the same."""
    teachers = [{"name": name, "dim": 16, "seed": seed, "training": FAST} for seed, name in enumerate("ab")]
    made = rd.compare(
        file_of(log, teacher=teachers, method=[{"name": "rrd", "distill": [RRD]}], seeds=[0, 1]), tmp_path
    )
    rows = made.comparison["evaluations"]["full"]["rows"]
    models = json.loads((tmp_path / "split-0/evaluation-full/metrics.json").read_text())["models"]
    for row in ("rrd-a", "rrd-b", "alone"):
        each = [models[f"{row}-seed-{seed}"]["metrics"]["ndcg@10"]["mean"] for seed in (0, 1)]
        assert rows[row]["metrics"]["ndcg@10"]["mean"] == pytest.approx(sum(each) / 2)
        assert rows[row]["metrics"]["ndcg@10"]["spread"] is not None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"method": [{"name": "rce-kd"}]},
            "^rce-kd reads scores of any pair, and no store of the model neumf",
        ),
        ({"method": [{"name": "recommended"}]}, "^recommended: rce-kd reads scores of any pair"),
        (
            {"student": {"model": "sasrec"}, "method": [{"name": "bert-emd"}]},
            "^bert-emd reads what each item",
        ),
        (
            {"teacher": {"model": "ease"}, "method": [{"name": "de"}]},
            "^de reads embeddings, and .* model ease has none; .* a teacher that has them: .*bpr, .*cml",
        ),
        (
            {"ensemble": {}, "method": [{"name": "rrd"}, {"name": "de"}]},
            "^de reads embeddings, and an ensemble has none",
        ),
    ],
)
def test_what_no_teacher_can_store_stops_it_before_the_first_step(
    log: Path, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(MissingKnowledgeError, match=words) as caught:
        rd.compare(file_of(log, **{"teacher": {"model": "neumf", "dim": 3}, **changed}), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_a_teacher_can_store_is_compared(log: Path) -> None:
    names = ["rrd", "dcd", "de", "hetcomp"]  # lists and embeddings
    plan(file_of(log, teacher={"model": "neumf", "dim": 3}, method=[{"name": name} for name in names]))
    two = [{"name": "a", "model": "neumf"}, {"name": "b", "model": "ease"}]
    plan(file_of(log, teacher=two, ensemble={}, method=[{"name": "rce-kd"}]))  # an ensemble scores its lists


def test_a_method_from_a_search(log: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.toml"
    best.write_text(
        "base_weight = 0.25\n[student]\ndim = 4\n[student.training]\nlearning_rate = 0.5\n"
        '[[distill]]\nmethod = "rrd"\nweight = 0.125\n'
    )
    (row,) = plan(file_of(log, method=[{"name": "tuned", "from": str(best)}])).rows[1:]
    assert row.training["learning_rate"] == 0.5
    assert row.methods[0]["weight"] == 0.125
    assert row.base_weight == 0.25
    best.write_text(best.read_text().replace("dim = 4", "dim = 8"))
    with pytest.raises(
        OptionError, match=r"bpr dim=8 .* a student is bpr dim=4 .*; compare students of that model"
    ):
        plan(file_of(log, method=[{"name": "tuned", "from": str(best)}]))
