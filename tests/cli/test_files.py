"""Commands that read a file: `run`, `compare`, `tune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import Command

LINE = """
out = "elsewhere"
[data]
source = "LOG"
[teacher]
dim = 8
training = {epochs = 2, batch_size = 256}
[extract]
depth = 12
[student]
dim = 4
training = {epochs = 2, batch_size = 256}
[evaluate]
latency = false
"""
METHOD = """method = "rrd"
num_interesting = 3
depth = 6
"""
FILES = {
    "run": f"{LINE}[[distill]]\n{METHOD}",
    "compare": f'{LINE}[[method]]\nname = "rrd"\n[[method.distill]]\n{METHOD}',
    "tune": f"{LINE}[[distill]]\n{METHOD}[tune]\ntrials = 2\n"
    '[space]\n"rrd.weight" = {low = 0.01, high = 1.0, log = true}\n',
}
VERBS = tuple(FILES)


@pytest.fixture
def folder(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file for each verb."""
    monkeypatch.chdir(tmp_path)
    for verb, text in FILES.items():
        (tmp_path / f"{verb}.toml").write_text(text.replace("LOG", str(log)))
    return tmp_path


def test_a_run_that_is_there_is_reused(recdistill: Command, folder: Path) -> None:
    found = [json.loads(recdistill("run", "run.toml", "--json").out) for _ in range(2)]
    assert [one["reused"] for one in found] == [False, True]
    changed = recdistill("run", "run.toml", "--json", "--force", "--set", "report.title=Other")
    assert json.loads(changed.out)["reused"] is False


def test_compare_and_tune(recdistill: Command, folder: Path) -> None:
    out = folder / "out"
    compare = ["compare", "compare.toml", "--out", out, "--seed", 3]
    answer = recdistill(*compare)
    assert answer.code == 0, answer.err
    assert [line.split()[0] for line in answer.out.splitlines()[1:5]] == ["model", "teacher", "alone", "rrd"]
    assert "1/3  teacher" in answer.err
    assert (out / "split-0" / "rrd-seed-3").is_dir()
    found = json.loads(recdistill(*compare, "--json").out)
    assert found["reused"] is True
    assert set(found["result"]) == {"comparison", "report"}
    names = {"data": "data.path", "knowledge": "teacher.knowledge"}
    paths = [f"--set={option}={out}/split-0/{name}" for name, option in names.items()]
    tune = ["tune", "tune.toml", "--set", "out=tuned", *paths]
    answer = recdistill(*tune)
    assert answer.code == 0, answer.err
    assert "of 2: ndcg@10" in answer.out
    assert "trial 2: ndcg@10" in answer.err
    assert (folder / "tuned" / "tuning" / "best.toml").is_file()
    found = json.loads(recdistill(*tune, "--json").out)
    assert (found["reused"], found["out"]) == (True, "tuned")
    best, own = found["result"]["tuning"]["best"], found["result"]["tuning"]["first"]
    told = f", the file's own values {own['value']:.4f}"
    assert (told in answer.out) == (best["number"] != own["number"])
    assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("options", "place"),
    [
        ([], "elsewhere"),
        (["--set", "out=set"], "set"),
        (["--out", "given"], "given"),
        (["--out", "given", "--set", "out=set"], "given"),
    ],
)
def test_where_results_go(
    recdistill: Command, folder: Path, verb: str, options: list[str], place: str
) -> None:
    # The data's own error comes once the directory is known: what is there already is of another kind.
    made = folder / place / ("split-0/data" if verb == "compare" else "data")
    made.mkdir(parents=True)
    (made / "manifest.json").write_text("{}")
    answer = recdistill(verb, f"{verb}.toml", *options)
    assert answer.code == 2
    assert str(made.relative_to(folder)) in answer.last
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {place}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("out=3", ["out: expected", "3"]),
        ("out=", ["out: expected", "''"]),
        ("outt=x", ["'outt'", "out"]),
        ("device=cpu", ["'device'", "--device"]),
        ("studnt.dim=3", ["'studnt'", "student"]),
        ("student.dmi=3", ["student.dmi", "dim"]),
        ("student.training.epoch=3", ["training.epoch", "epochs"]),
        ("student.dim.x=3", ["student.dim", "no table"]),
        ("teacher.model=bprr", ["bprr", "bpr"]),
        ("alone.training.epoch=3", ["training.epoch", "epochs"]),
        ("data.splt=random", ["data.splt", "split"]),
        ("extract.dept=3", ["extract.dept", "depth"]),
        ("extract.device=cpu", ["extract.device", "kinds, depth"]),
        ("evaluate.protocl=full", ["evaluate.protocl", "protocol"]),
        ("report.titel=x", ["report.titel", "title"]),
    ],
)
def test_unknown_paths_are_answered_with_the_nearest(
    recdistill: Command, folder: Path, verb: str, assignment: str, words: list[str]
) -> None:
    refused(recdistill, folder, verb, [assignment], words)


@pytest.mark.parametrize(
    ("verb", "assignments", "words"),
    [
        ("run", ["distill.rrd.weigth=1"], ["rrd.weigth", "weight"]),
        ("run", ["distill.weight=1"], ["list of tables", "name one of them: distill.rrd"]),
        ("run", ["distill.rdr.weight=1"], ["no table rdr", "did you mean rrd?"]),
        ("run", ["seed=abc"], ["run.seed", "abc"]),
        ("compare", ["method.rdr.training.epochs=1"], ["no table rdr", "did you mean rrd?"]),
        ("compare", ["method.rrd.distill.rrd.weigth=1"], ["rrd.weigth", "weight"]),
        ("compare", ["method.rrd.traning.epochs=1"], ["'traning'", "training"]),
        ("compare", ["seed=1"], ["'seed'", "seeds"]),
        ("tune", ["space.rrd.weigth=[1,2]"], ["rrd.weigth", "weight"]),
        ("tune", ["tune.trails=1"], ["tune.trails", "trials"]),
        ("tune", ["distill.rrd.weigth=1"], ["rrd.weigth", "weight"]),
        ("tune", ["distill.rrd.weigth=1", "tune.target=alone"], ["rrd.weigth", "weight"]),
        ("tune", ["base_weight=-1", "tune.target=teacher"], ["base_weight", "-1"]),
    ],
)
def test_unknown_paths_of_one_kind_of_file(
    recdistill: Command, folder: Path, verb: str, assignments: list[str], words: list[str]
) -> None:
    refused(recdistill, folder, verb, assignments, words)


@pytest.mark.parametrize("verb", VERBS)
def test_what_the_teacher_can_never_store_is_said_before_it_is_trained(
    recdistill: Command, folder: Path, verb: str
) -> None:
    file = folder / f"{verb}.toml"
    file.write_text(
        file.read_text().replace(METHOD, 'method = "rce-kd"\n').replace("rrd.weight", "rce-kd.weight")
    )
    words = ["rce-kd reads scores of any pair, and no store of the model neumf", "live = true in a file"]
    refused(recdistill, folder, verb, ["teacher.model=neumf"], words)


def refused(recdistill: Command, folder: Path, verb: str, assignments: list[str], words: list[str]) -> None:
    answer = recdistill(verb, f"{verb}.toml", *(f"--set={text}" for text in assignments))
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert all(word in answer.err for word in words), answer.err
    assert not [path for path in folder.iterdir() if path.is_dir()]


@pytest.mark.parametrize("verb", VERBS)
def test_a_source_that_is_not_there_names_the_option(recdistill: Command, folder: Path, verb: str) -> None:
    answer = recdistill(verb, f"{verb}.toml", "--set", "data.source=nowhere")
    assert answer.code == 2
    assert "'nowhere'; pass --set data.source=PATH" in answer.last


@pytest.mark.parametrize("verb", VERBS)
def test_what_resumes_by_itself_says_so(recdistill: Command, folder: Path, verb: str) -> None:
    answer = recdistill(verb, f"{verb}.toml", "--resume")
    assert answer.code == 2
    assert f"recdistill {verb} resumes by itself: leave --resume out" in answer.last


def test_options_of_a_preset_are_not_taken_for_a_method(recdistill: Command, folder: Path) -> None:
    file = folder / "run.toml"
    file.write_text(file.read_text().split("[[distill]]")[0])
    refused(recdistill, folder, "run", ["distill.rrd.weight=1"], ["names no method", "it has rrd"])
