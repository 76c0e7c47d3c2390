"""What each command makes and prints."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

import recdistill as package
from command import Command
from recdistill import cli

FAST = ["--set", "epochs=2", "--set", "batch_size=256"]


def test_command_by_command(recdistill: Command, log: Path, tmp_path: Path) -> None:
    data, teacher, knowledge = tmp_path / "data", tmp_path / "teacher", tmp_path / "knowledge"
    answer = recdistill("prepare", log, "--out", data, "--seed", 1)
    assert answer.code == 0
    assert "userId" in answer.err  # what was guessed is said
    assert (
        recdistill("train", data, "--model", "bpr", "--out", teacher, "--set", "model.dim=8", *FAST).code == 0
    )
    assert recdistill("extract", data, teacher, "--out", knowledge, "--depth", 12).code == 0
    alone, student = tmp_path / "alone", tmp_path / "student"
    assert recdistill("train", data, "--out", alone, "--set", "dim=4", *FAST).code == 0
    methods = ["--method", "rrd", "--method", "de", "--set", "rrd.num_interesting=3", "--set", "rrd.depth=6"]
    options = ["--set", "dim=4", "--set", "num_experts=2", *FAST]
    answer = recdistill("distill", data, knowledge, "--out", student, "--set", "base_weight=0")
    assert answer.code == 2
    assert answer.last == "error: base_weight is not for --set; pass --base-weight"
    answer = recdistill("distill", data, knowledge, "--out", student, *methods, *options)
    assert answer.code == 0, answer.err
    assert "best validation metric" in answer.out
    for reused in (False, True):
        answer = recdistill("evaluate", data, teacher, alone, student, "--out", tmp_path / "ev", "--json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        assert set(found) == {"out", "reused", "seconds", "result"}
        assert found["reused"] is reused
        assert found["result"]["models"]["student"]["metrics"]["ndcg@10"]["n"] > 0
    answer = recdistill("report", tmp_path / "ev", alone, student, "--out", tmp_path / "report")
    assert answer.code == 0, answer.err
    assert (tmp_path / "report" / "report.html").exists()
    answer = recdistill("recommend", student, "--k", 5, "--out", tmp_path / "lists")
    assert answer.code == 0, answer.err
    assert pl.read_parquet(tmp_path / "lists" / "recommendations.parquet").height == 40 * 5


def test_prepare_into_the_folder_of_the_source_is_reused(
    recdistill: Command, log: Path, tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_bytes(log.read_bytes())
    for reused in (False, True):
        answer = recdistill("prepare", tmp_path, "--out", tmp_path / "prepared", "--json")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["reused"] is reused
        assert ("made by recdistill: 1 directory: prepared" in answer.err) is reused


def test_prepare_prints_what_a_person_reads(recdistill: Command, log: Path, tmp_path: Path) -> None:
    answer = recdistill("prepare", log, "--out", tmp_path / "data")
    assert answer.code == 0, answer.err
    lines = dict(line.split(": ", 1) for line in answer.out.splitlines())
    assert lines["users"] == "40"
    assert lines["columns"].startswith("user userId, item movieId")
    assert "%" in lines["unseen share"]
    assert lines["has repeats"] == "no"
    assert not {"notes", "dropped", "holdout"} & lines.keys()
    assert not any(mark in answer.out for mark in ("None", "{", "[", "False"))
    answer = recdistill("prepare", log, "--out", tmp_path / "data", "--json")
    result = json.loads(answer.out)["result"]
    assert (result["dropped"], result["holdout"]) == ({}, None)
    assert result["columns"]["user"] == "userId"
    assert result["notes"]


def test_an_ensemble_of_two_teachers(recdistill: Command, log: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    recdistill("prepare", log, "--out", data)
    stores: list[Path] = []
    for name, options in (("bpr", FAST), ("ease", [])):
        recdistill("train", data, "--model", name, "--out", tmp_path / name, *options)
        stores.append(tmp_path / f"knowledge-{name}")
        recdistill("extract", data, tmp_path / name, "--out", stores[-1], "--depth", 12)
    out = tmp_path / "ensemble"
    answer = recdistill("ensemble", *stores, "--out", out, "--weights", "2,1", "--debias", 1, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)["result"]
    assert [member["name"] for member in result["members"]] == ["bpr", "ease"]
    assert result["depth"] == 12
    answer = recdistill("ensemble", *stores, "--out", tmp_path / "plain", "--depth", 8)
    assert "2 teachers: bpr, ease" in answer.out
    for mistake, words in (
        ([*stores, "--weights", "1"], "expected 2, one a teacher"),
        ([*stores, "--weights", "a"], "--weights: expected numbers such as 2,1,1; found 'a'"),
        ([stores[0], stores[0]], "is given twice"),
    ):
        answer = recdistill("ensemble", *mistake, "--out", tmp_path / "x")
        assert (answer.code, words in answer.err, answer.err.count("\n")) == (2, True, 1), answer.err


def test_a_live_teacher_stands_for_a_store(recdistill: Command, data: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    recdistill("train", data, "--out", teacher, *FAST)
    options = ["--method", "rrd", "--set", "rrd.depth=6", *FAST]
    answer = recdistill("distill", data, "--live", teacher, "--out", tmp_path / "student", *options)
    assert answer.code == 0, answer.err
    answer = recdistill("distill", data, "--out", tmp_path / "x")
    assert (answer.code, "--live MODEL" in answer.err) == (2, True)
    answer = recdistill("distill", data, teacher, *options, "--out", tmp_path / "x")
    assert answer.code == 2
    assert "is a model; expected knowledge made by extract" in answer.err
    assert "--live" in answer.err


def test_options_are_listed(recdistill: Command) -> None:
    every = recdistill("options")
    assert every.code == 0
    for name in ("sasrec", "hetcomp", "de-rrd  ", "sum of de, rrd"):
        assert name in every.out
    found = json.loads(recdistill("options", "--json").out)
    assert set(found) == {"models", "methods", "presets"}
    assert all(line for kind in found.values() for line in kind.values())
    for name, key, option in (
        ("rrd", "rrd", "num_interesting"), ("SASRec", "model", "blocks"), ("training", "training", "epochs"),
        ("search", "search", "beta"), ("rce_kd", "rce-kd", "num_sampled"),
    ):  # fmt: skip
        assert f"  {key}.{option}=" in recdistill("options", name).out
    told = json.loads(recdistill("options", "rrd", "--json").out)["options"]
    assert told[0] == {
        "name": "weight", "type": "number > 0", "help": "of this term in the objective, above 0.", "default": 0.001
    }  # fmt: skip
    assert 'method = "rrd"' in recdistill("options", "de-rrd").out
    answer = recdistill("options", "rdr")
    assert (answer.code, "did you mean" in answer.err) == (2, True)


def test_doctor_and_version(recdistill: Command) -> None:
    answer = recdistill("doctor", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["versions"]["torch"]
    assert recdistill("--version").out.strip() == package.__version__


def test_without_arguments_the_help_is_printed(recdistill: Command) -> None:
    answer = recdistill()
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == recdistill("--help").out
    assert answer.out.startswith("Usage:")


def test_every_command_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "line.md").read_text(encoding="utf-8")
    for command in cli.app.registered_commands:
        assert command.callback is not None
        assert f"recdistill {command.callback.__name__}" in text
