"""`tune`: trials, their resumption, pruning, and what is left of them."""

from __future__ import annotations

import copy
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recdistill as rd
from line_cases import Notes, log_of_tastes
from recdistill.artifacts import read_manifest
from recdistill.data.prepared import Data
from recdistill.errors import ArtifactError, DataError, MissingKnowledgeError, OptionError
from recdistill.models.bpr import BPR
from recdistill.runfiles import toml_text
from recdistill.steps import trials
from recdistill.steps.space import Dimension, read_space
from recdistill.steps.tunefile import tune_plan
from recdistill.training.loop import TrainingDiverged
from recdistill.training.options import TrainingOptions

FAST: dict[str, Any] = {"epochs": 4, "batch_size": 256, "learning_rate": 0.02}
RRD = {"method": "rrd", "num_interesting": 5, "num_uninteresting": 6, "depth": 15}
SPACE: dict[str, Any] = {
    "rrd.weight": {"low": 1e-4, "high": 1.0, "log": True},
    "training.learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
    "model.dim": [3, 4, 5],
}
pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a teacher's knowledge, made once."""
    root = tmp_path_factory.mktemp("tune")
    log_of_tastes().write_csv(root / "log.csv")
    data = rd.prepare(root / "log.csv", root / "data")
    teacher = rd.train(data, BPR(dim=16), root / "teacher", training=FAST)
    rd.extract(data, teacher, root / "knowledge", depth=20)
    return root


def file_of(line: Path, **changed: Any) -> dict[str, Any]:
    return {
        "data": {"path": str(line / "data")},
        "teacher": {"knowledge": str(line / "knowledge")},
        "student": {"dim": 4, "training": FAST},
        "distill": [RRD],
        "tune": {"trials": 5, "startup_trials": 2, "pruning_trials": 2, "pruning_epochs": 1},
        "space": SPACE,
        **changed,
    }


def outcomes(tuning: dict[str, Any]) -> list[Any]:
    return [(t["number"], t["state"], t["value"], t["values"]) for t in tuning["trials"]]


@pytest.fixture(scope="module")
def made(line: Path) -> Any:
    return rd.tune(file_of(line), line / "made")


def test_trials_stay_in_the_space_and_the_first_has_the_files_values(made: Any) -> None:
    tuning = made.tuning
    assert len(tuning["trials"]) == 5
    first = tuning["first"]["values"]
    assert first == {"rrd.weight": pytest.approx(1e-3), "training.learning_rate": 0.02, "model.dim": 4}
    for trial in tuning["trials"]:
        values = trial["values"]
        assert 1e-4 <= values["rrd.weight"] <= 1
        assert values["model.dim"] in (3, 4, 5)
        assert trial["state"] in ("complete", "pruned")
    complete = [trial["value"] for trial in tuning["trials"] if trial["state"] == "complete"]
    assert tuning["best"]["value"] == max(complete)


def test_a_trials_value_is_what_distill_reaches(made: Any, line: Path) -> None:
    best = tomllib.loads(made.best.read_text())
    assert best["student"]["dim"] == made.tuning["best"]["values"]["model.dim"]
    model = rd.models.BPR(dim=best["student"]["dim"])
    rd.distill(
        line / "data", line / "knowledge", model, best["distill"], line / "refitted",
        training=best["student"]["training"],
    )  # fmt: skip
    reached = read_manifest(line / "refitted").summary
    assert reached["best_metric"] == made.tuning["best"]["value"]
    assert reached["best_epoch"] == made.tuning["best"]["best_epoch"]


def test_what_is_left(made: Any, line: Path) -> None:
    names = {path.name for path in (line / "made" / "tuning").iterdir()}
    assert names == {"manifest.json", "tuning.json", "trials.parquet", "best.toml", "journal.log"}
    table = pl.read_parquet(line / "made" / "tuning" / "trials.parquet")
    assert table["number"].to_list() == [1, 2, 3, 4, 5]
    assert {"state", "value", "epochs", "seconds", *SPACE} <= set(table.columns)
    page = made.page.read_text(encoding="utf-8")
    assert "How the search went" in page
    assert "rrd.weight" in page
    assert "[student.training]" in page


def test_test_rows_are_never_opened(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Data._read
    opened: list[str] = []
    monkeypatch.setattr(Data, "_read", lambda self, name: (opened.append(name), read(self, name))[1])
    rd.tune(file_of(line, tune={"trials": 1}), tmp_path / "out")
    assert set(opened) == {"train", "valid"}


def test_the_same_call_is_reused_and_more_trials_are_added(line: Path, tmp_path: Path) -> None:
    tree = file_of(line)
    short = rd.tune(tree, tmp_path / "out", overrides={"tune.trials": 3})
    stamp = (tmp_path / "out/tuning/manifest.json").stat().st_mtime_ns
    shown = Notes()
    rd.tune(tree, tmp_path / "out", overrides={"tune.trials": 3}, progress=shown)
    assert (tmp_path / "out/tuning/manifest.json").stat().st_mtime_ns == stamp
    assert any("reused" in note for note in shown.notes)
    longer = rd.tune(tree, tmp_path / "out", progress=shown)
    assert any("3 trials are done already" in note for note in shown.notes)
    assert outcomes(longer.tuning)[:3] == outcomes(short.tuning)
    assert len(longer.tuning["trials"]) == 5
    assert longer.page.read_text().count("5 trials") >= 1
    assert outcomes(rd.tune(tree, tmp_path / "straight").tuning) == outcomes(longer.tuning)


def test_a_killed_search_goes_on_to_the_same_trials(
    made: Any, line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trials.loop.train, []

    def killed(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(trials.loop, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        rd.tune(file_of(line), tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out" / "tuning").exists()
    (journal,) = tmp_path.glob("out/.tuning.partial-*/journal.log")
    with journal.open("a") as file:
        file.write('{"op_code": 4, "worker_id": "cut')  # a line that was being written
    found = rd.tune(file_of(line), tmp_path / "out")
    assert outcomes(found.tuning) == outcomes(made.tuning)


def test_lists_that_will_be_too_short_are_said_before_the_teacher_is_trained(
    line: Path, tmp_path: Path
) -> None:
    teacher = {"model": "itemknn"}
    tree = file_of(line, teacher=teacher, extract={"depth": 10})
    with pytest.raises(
        MissingKnowledgeError, match="rrd: top_items to depth 15 are read; the store of itemknn will"
    ):
        rd.tune(tree, tmp_path / "out")
    assert not (tmp_path / "out" / "teacher").exists()


def test_the_seed_decides(made: Any, line: Path, tmp_path: Path) -> None:
    other = rd.tune(file_of(line), tmp_path / "out", seed=1)
    assert outcomes(other.tuning) != outcomes(made.tuning)
    with pytest.raises(ArtifactError, match="seed 1 -> 2"):
        rd.tune(file_of(line), tmp_path / "out", seed=2)


def test_trials_below_the_median_are_stopped(line: Path, tmp_path: Path) -> None:
    space = {"training.learning_rate": [0.02, 1e-7]}
    options = {"trials": 8, "startup_trials": 8, "pruning_trials": 1, "pruning_epochs": 0}
    found = rd.tune(file_of(line, space=space, tune=options), tmp_path / "pruned").tuning
    pruned = [trial for trial in found["trials"] if trial["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial["values"]["training.learning_rate"] == 1e-7
        assert trial["epochs"] < FAST["epochs"]
        assert "median" in trial["reason"]
    found = rd.tune(file_of(line, space=space, tune=options | {"pruning": False}), tmp_path / "all").tuning
    assert {trial["state"] for trial in found["trials"]} == {"complete"}


def test_a_trial_that_diverges_or_cannot_be_built_does_not_stop_the_search(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trials.loop.train, []

    def diverging(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise TrainingDiverged("the loss is not finite")
        if len(calls) == 4:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
            )
        return real(*arguments, **options)

    monkeypatch.setattr(trials.loop, "train", diverging)
    found = rd.tune(file_of(line, tune={"trials": 4, "pruning": False}), tmp_path / "out").tuning
    assert [trial["state"] for trial in found["trials"]] == ["complete", "failed", "complete", "failed"]
    assert found["trials"][3]["reason"].startswith("not enough memory")
    assert found["trials"][1]["reason"] == "the loss is not finite"
    monkeypatch.setattr(trials.loop, "train", lambda *a, **k: (_ for _ in ()).throw(TrainingDiverged("no")))
    with pytest.raises(OptionError, match="none of 3 trials"):
        rd.tune(file_of(line, tune={"trials": 3}), tmp_path / "never")


def test_time_runs_out(line: Path, tmp_path: Path) -> None:
    options = {"trials": 500, "timeout": 0.05}
    found = rd.tune(file_of(line, tune=options), tmp_path / "out").tuning
    assert 1 <= len(found["trials"]) < 500


@pytest.mark.parametrize("target", ["alone", "teacher"])
def test_the_student_alone_and_the_teacher(line: Path, tmp_path: Path, target: str) -> None:
    tree = file_of(line, space={"training.learning_rate": [0.01, 0.05]}, tune={"target": target, "trials": 2})
    tree |= {"teacher": {"dim": 8, "training": FAST}, "alone": {"training": {"epochs": 2}}}
    found = rd.tune(tree, tmp_path / "out")
    best = tomllib.loads(found.best.read_text())
    chosen = best["alone"]["training"] if target == "alone" else best["teacher"]["training"]
    assert chosen["learning_rate"] == found.tuning["best"]["values"]["training.learning_rate"]
    assert chosen["epochs"] == (2 if target == "alone" else 4)
    assert "distill" not in best
    assert not (tmp_path / "out" / "teacher").exists()


def test_the_whole_line_from_a_source(line: Path, tmp_path: Path) -> None:
    tree = file_of(line, data={"source": str(line / "log.csv")}, tune={"trials": 1})
    tree |= {"teacher": {"dim": 16, "training": FAST}, "extract": {"depth": 20}}
    found = rd.tune(tree, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "data", "teacher", "knowledge", "tuning", "report"
    }  # fmt: skip
    best = tomllib.loads(found.best.read_text())
    rd.run({**{key: tree[key] for key in ("data", "teacher", "extract")}, **best}, tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"space": {}}, ["[space] is empty"]),
        ({"spaces": {}}, ["spaces", "space"]),
        ({"space": {"rrd.weigth": [1, 2]}}, ["rrd.weigth", "weight"]),
        ({"space": {"de.weight": [1, 2]}}, ["de.weight", "rrd"]),
        ({"space": {"rrd.weight": [1.0, -1.0]}}, ["rrd.weight", "-1"]),
        ({"space": {"rrd.weight": {"low": 0.0, "high": 1.0}}}, ["rrd.weight", "0"]),
        ({"space": {"rrd.weight": {"low": 1.0, "high": 0.5}}}, ["low below high"]),
        ({"space": {"rrd.weight": {"low": 0.1}}}, ["low and high"]),
        ({"space": {"rrd.weight": {"low": 0.1, "high": 1.0, "step": 0.1, "log": True}}}, ["without a step"]),
        ({"space": {"rrd.weight": 0.5}}, ["list of values", "0.5"]),
        ({"space": {"rrd.weight": [0.5, 0.5]}}, ["different values"]),
        ({"space": {"weight": [1, 2], "model.dim": {"low": 1.5, "high": 2.5}}}, ["model.dim", "1.5"]),
        ({"space": {"training.validate_metric": ["ndcg@10", "recall@10"]}}, ["cannot be searched"]),
        ({"tune": {"trials": 0}}, ["tune.trials", "0"]),
        ({"tune": {"target": "pupil"}}, ["tune.target", "pupil", "student"]),
        ({"teacher": {"knowlegde": "x"}}, ["teacher.knowlegde"]),
        ({"knowledge": {"path": "x"}}, ["no table or key 'knowledge'"]),
        ({"data": {}}, ["data.source"]),
        ({"distill": [{"method": "rdr"}]}, ["rdr", "rrd"]),
        ({"student": {"dim": 0}}, ["student.dim", "0"]),
    ],
)
def test_mistakes_stop_it_before_the_first_step(
    line: Path, tmp_path: Path, changed: dict[str, Any], words: Sequence[str]
) -> None:
    with pytest.raises(OptionError) as caught:
        rd.tune(file_of(line, **changed), tmp_path / "out")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_extra_is_named(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(OptionError, match=r"tune needs optuna; pip install 'recdistill\[tune\]'"):
        rd.tune(file_of(line), tmp_path / "out")


def test_missing_knowledge_and_missing_valid_rows(line: Path, tmp_path: Path) -> None:
    de = [{"method": "de"}]
    rd.extract(line / "data", line / "teacher", tmp_path / "only", kinds=["top_items"], depth=20)
    with pytest.raises(MissingKnowledgeError, match="de reads embeddings"):
        rd.tune(
            file_of(
                line, teacher={"knowledge": str(tmp_path / "only")}, distill=de, space={"de.weight": [1, 2]}
            ),
            tmp_path / "out",
        )
    rd.prepare(line / "log.csv", tmp_path / "two", ratios=(0.9, 0.0, 0.1))
    tree = file_of(line, data={"path": str(tmp_path / "two")}, tune={"target": "alone"},
                   space={"training.learning_rate": [0.1, 0.2]})  # fmt: skip
    with pytest.raises(DataError, match="no valid rows"):
        rd.tune(tree, tmp_path / "out")


def test_ranges_know_what_their_options_take() -> None:
    components = {"model": (BPR, {}), "training": (TrainingOptions, {})}
    table = {
        "model": {"dim": {"low": 2, "high": 8, "step": 2}},
        "training.weight_decay": {"low": 0, "high": 1},
    }
    dim, decay = read_space(table, components)
    assert (dim.whole, decay.whole) == (True, False)
    assert [value for value in range(10) if dim.holds(value)] == [2, 4, 6, 8]
    assert decay.holds(0.25)
    assert not decay.holds(1.25)
    shares = Dimension("training", "trajectory", ([0.5], [0.5, 1.0]))
    assert shares.value(shares.label([0.5, 1.0])) == [0.5, 1.0]
    assert shares.holds([0.5])


def test_names_of_run_files_and_of_commands_mean_the_same(line: Path) -> None:
    tree = file_of(
        line, space={"student.training.epochs": [1, 2], "student.dim": [2, 3], "distill.rrd.weight": [1.0, 2.0],
                     "base_weight": [0.5, 1.0]}
    )  # fmt: skip
    plan = tune_plan(copy.deepcopy(tree))
    keys = [one.key for one in plan.space]
    assert sorted(keys) == ["model.dim", "objective.base_weight", "rrd.weight", "training.epochs"]
    values = {(one.component, one.option): one.choices[0] for one in plan.space}
    setting = plan.setting.with_values(values)
    assert setting.model["dim"] == 2
    assert setting.training["epochs"] == 1
    assert setting.methods[0]["weight"] == 1.0
    assert setting.base_weight == 0.5


def test_toml_is_read_back_as_it_was_written() -> None:
    tree = {
        "base_weight": 0.5, "flag": True, "text": 'a "b" \\ c', "list": [1, 2.5, 1e-9],
        "student": {"dim": 4, "training": {"learning_rate": 1e-5}},
        "distill": [{"method": "rrd"}, {"method": "de", "weight": 2.0}],
    }  # fmt: skip
    assert tomllib.loads(toml_text(tree)) == tree
    assert json.dumps(tomllib.loads(toml_text({"a": None, "b c": 1}))) == '{"b c": 1}'
