"""The command line: verbs, exit codes, JSON, errors in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recdistill import cli

FAST = ["--set", "epochs=2", "--set", "batch_size=256"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(40), 10)
    items = np.concatenate([rng.choice(30, 10, replace=False, p=np.arange(1, 31) / 465) for _ in range(40)])
    path = tmp_path_factory.mktemp("cli") / "log.csv"
    pl.DataFrame({"userId": users, "movieId": items}).write_csv(path)
    return path


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["recdistill", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output = capsys.readouterr()
    code = stopped.value.code
    return int(code) if isinstance(code, int) else 0, output.out, output.err


@pytest.fixture
def recdistill(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: call(capsys, monkeypatch, *(str(a) for a in arguments))


def test_command_by_command(recdistill: Any, log: Path, tmp_path: Path) -> None:
    data, teacher, knowledge = tmp_path / "data", tmp_path / "teacher", tmp_path / "knowledge"
    code, out, err = recdistill("prepare", log, "--out", data, "--seed", 1)
    assert code == 0
    assert "userId" in err  # what was guessed is said
    assert (
        recdistill("train", data, "--model", "bpr", "--out", teacher, "--set", "model.dim=8", *FAST)[0] == 0
    )
    assert recdistill("extract", data, teacher, "--out", knowledge, "--depth", 12)[0] == 0
    code, _, err = recdistill("distill", data, teacher, "--method", "rrd", "--out", tmp_path / "never")
    assert code == 2
    assert "is a model; expected knowledge made by extract" in err
    assert "--live" in err
    alone, student = tmp_path / "alone", tmp_path / "student"
    assert recdistill("train", data, "--out", alone, "--set", "dim=4", *FAST)[0] == 0
    methods = ["--method", "rrd", "--method", "de", "--set", "rrd.num_interesting=3", "--set", "rrd.depth=6"]
    code, out, err = recdistill(
        "distill",
        data,
        knowledge,
        "--out",
        student,
        *methods,
        "--set",
        "dim=4",
        "--set",
        "num_experts=2",
        *FAST,
    )
    assert code == 0, err
    code, out, err = recdistill("evaluate", data, teacher, alone, student, "--out", tmp_path / "ev", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found) == {"out", "reused", "seconds", "result"}
    assert found["reused"] is False
    assert found["result"]["models"]["student"]["metrics"]["ndcg@10"]["n"] > 0
    code, out, err = recdistill("evaluate", data, teacher, alone, student, "--out", tmp_path / "ev", "--json")
    assert json.loads(out)["reused"] is True
    code, out, err = recdistill("report", tmp_path / "ev", alone, student, "--out", tmp_path / "report")
    assert code == 0, err
    assert (tmp_path / "report" / "report.html").exists()
    code, out, err = recdistill("recommend", student, "--k", 5, "--out", tmp_path / "lists")
    assert code == 0, err
    assert pl.read_parquet(tmp_path / "lists" / "recommendations.parquet").height == 40 * 5


def test_an_ensemble_of_two_teachers(recdistill: Any, log: Path, tmp_path: Path) -> None:
    recdistill("prepare", log, "--out", tmp_path / "data")
    stores: list[Path] = []
    for name in ("bpr", "ease"):
        options = FAST if name == "bpr" else []
        recdistill("train", tmp_path / "data", "--model", name, "--out", tmp_path / name, *options)
        stores.append(tmp_path / f"knowledge-{name}")
        recdistill("extract", tmp_path / "data", tmp_path / name, "--out", stores[-1], "--depth", 12)
    out = tmp_path / "ensemble"
    code, printed, err = recdistill(
        "ensemble", *stores, "--out", out, "--weights", "2,1", "--debias", 1, "--json"
    )
    assert code == 0, err
    result = json.loads(printed)["result"]
    assert [member["name"] for member in result["members"]] == ["bpr", "ease"]
    assert result["depth"] == 12
    code, printed, _ = recdistill("ensemble", *stores, "--out", tmp_path / "plain", "--depth", 8)
    assert "2 teachers: bpr, ease" in printed
    for mistake, words in (
        (["--weights", "1"], "expected 2, one a teacher"),
        (["--weights", "a"], "numbers such as"),
    ):
        code, _, err = recdistill("ensemble", *stores, "--out", tmp_path / "x", *mistake)
        assert (code, words in err, err.count("\n")) == (2, True, 1), err
    code, _, err = recdistill("ensemble", stores[0], stores[0], "--out", tmp_path / "x")
    assert (code, "is given twice" in err) == (2, True)


def test_a_live_teacher_stands_for_a_store(recdistill: Any, log: Path, tmp_path: Path) -> None:
    recdistill("prepare", log, "--out", tmp_path / "data")
    recdistill("train", tmp_path / "data", "--out", tmp_path / "teacher", *FAST)
    code, _, err = recdistill(
        "distill", tmp_path / "data", "--live", tmp_path / "teacher", "--out", tmp_path / "student",
        "--method", "rrd", "--set", "rrd.depth=6", *FAST,
    )  # fmt: skip
    assert code == 0, err
    code, _, err = recdistill("distill", tmp_path / "data", "--out", tmp_path / "x")
    assert (code, "--live MODEL" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["trian", "train"]),
        (["train"], ["DATA"]),
        (["train", "DATA", "--set", "model.dmi=3"], ["model.dmi", "dim"]),
        (["train", "DATA", "--set", "model.dim=-3"], ["model.dim", "-3", "1"]),
        (["train", "DATA", "--set", "epochs=many"], ["training.epochs", "many"]),
        (["train", "DATA", "--model", "bprr"], ["bprr", "bpr"]),
        (["train", "DATA", "--device", "tpu"], ["auto, cpu or cuda", "tpu"]),
        (["train", "DATA", "--on", "test"], ["train,valid", "test"]),
        (["train", "NOWHERE"], ["does not exist"]),
        (["prepare", "NOWHERE"], ["NOWHERE"]),
        (["prepare", "LOG", "--split", "sideways"], ["sideways", "random"]),
        (["prepare", "LOG", "--ratios", "a,b"], ["ratios", "a,b"]),
        (["prepare", "LOG", "--item-column", "moveId"], ["moveId", "movieId"]),
        (["extract", "DATA", "DATA"], ["model"]),
        (["evaluate", "DATA", "DATA"], ["data"]),
        (["run", "NOWHERE.toml"], ["NOWHERE.toml"]),
        (["compare", "NOWHERE.toml"], ["NOWHERE.toml"]),
        (["tune", "NOWHERE.toml"], ["NOWHERE.toml"]),
        (["train", "DATA", "--set", "dim"], ["dim", "="]),
    ],
)
def test_what_the_caller_can_mend_is_one_line_and_exit_code_2(
    recdistill: Any, log: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    recdistill("prepare", log, "--out", tmp_path / "data")
    places = {"DATA": str(tmp_path / "data"), "LOG": str(log), "NOWHERE": str(tmp_path / "NOWHERE")}
    chosen = [places.get(a, a) for a in arguments]
    code, _out, err = (
        recdistill(*chosen, "--out", tmp_path / "out") if arguments != ["trian"] else recdistill("trian")
    )
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in words), last
    assert not (tmp_path / "out").exists()


COMPARE = """
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
[[method]]
name = "rrd"
[[method.distill]]
method = "rrd"
num_interesting = 3
depth = 6
[evaluate]
latency = false
"""
TUNE = (
    COMPARE.replace('[[method]]\nname = "rrd"\n', "").replace("method.distill", "distill")
    + """
[tune]
trials = 2
[space]
"rrd.weight" = {low = 0.01, high = 1.0, log = true}
"""
)


def test_compare_and_tune(recdistill: Any, log: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "compare.toml", tmp_path / "out"
    file.write_text(COMPARE.replace("LOG", str(log)))
    code, printed, err = recdistill("compare", file, "--out", out, "--seed", 3)
    assert code == 0, err
    assert [line.split()[0] for line in printed.splitlines()[1:5]] == ["model", "teacher", "alone", "rrd"]
    assert "1/3  teacher" in err
    assert (out / "split-0" / "rrd-seed-3").is_dir()
    code, printed, err = recdistill("compare", file, "--out", out, "--seed", 3, "--json")
    found = json.loads(printed)
    assert found["reused"] is True
    assert set(found["result"]) == {"comparison", "report"}
    code, _, err = recdistill(
        "compare", file, "--out", out, "--seed", 3, "--set", "method.rdr.training.epochs=1"
    )
    assert (code, "rrd" in err.strip().splitlines()[-1]) == (2, True)
    file = tmp_path / "tune.toml"
    file.write_text(TUNE.replace("LOG", str(log)))
    paths = [f"{kind}.path={out}/split-0/{kind}" for kind in ("data", "knowledge")]
    options = ["--out", tmp_path / "tuned", *(part for path in paths for part in ("--set", path))]
    code, printed, err = recdistill("tune", file, *options)
    assert code == 0, err
    assert "of 2: ndcg@10" in printed
    assert "trial 2: ndcg@10" in err
    assert (tmp_path / "tuned" / "tuning" / "best.toml").is_file()
    code, printed, err = recdistill("tune", file, *options, "--json")
    assert json.loads(printed)["reused"] is True
    code, _, err = recdistill("tune", file, *options, "--set", "space.rrd.weigth=[1,2]")
    assert (code, "weight" in err.strip().splitlines()[-1]) == (2, True)


def test_errors_as_json(recdistill: Any, tmp_path: Path) -> None:
    code, out, _ = recdistill("train", tmp_path / "nowhere", "--json")
    assert code == 2
    found = json.loads(out)
    assert set(found) == {"error", "kind", "hint"}
    assert found["kind"] == "artifact"


def test_doctor_and_version(recdistill: Any) -> None:
    code, out, _ = recdistill("doctor", "--json")
    assert code == 0
    assert json.loads(out)["versions"]["torch"]
    import recdistill as package

    assert recdistill("--version")[1].strip() == package.__version__


def test_every_command_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "line.md").read_text(encoding="utf-8")
    for command in cli.app.registered_commands:
        assert command.callback is not None
        assert f"recdistill {command.callback.__name__}" in text


def run_in_background(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "recdistill", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores Ctrl-C
    )


def wait_for(path: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list(path.glob(pattern)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {pattern}: {process.communicate()}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_training_leaves_nothing_and_resumes_to_the_same_model(
    recdistill: Any, log: Path, tmp_path: Path, how: signal.Signals
) -> None:
    recdistill("prepare", log, "--out", tmp_path / "data")
    out = tmp_path / "model"
    options = ["--set", "epochs=150", "--set", "patience=150", "--set", "checkpoint_seconds=0"]
    process = run_in_background("train", str(tmp_path / "data"), "--out", str(out), *options)
    wait_for(tmp_path, ".model.partial-*/checkpoint.json", process)
    os.kill(process.pid, how)
    process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not out.exists()
    second = run_in_background("train", str(tmp_path / "data"), "--out", str(out), *options, "--resume")
    _, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert "resumed after" in err
    recdistill("train", tmp_path / "data", "--out", tmp_path / "straight", *options)
    assert (out / "weights.safetensors").read_bytes() == (
        tmp_path / "straight" / "weights.safetensors"
    ).read_bytes()


def test_two_writers_at_once(recdistill: Any, log: Path, tmp_path: Path) -> None:
    recdistill("prepare", log, "--out", tmp_path / "data")
    out = tmp_path / "model"
    options = ["--set", "epochs=100000", "--set", "patience=100000", "--set", "checkpoint_seconds=0"]
    first = run_in_background("train", str(tmp_path / "data"), "--out", str(out), *options)
    try:
        wait_for(tmp_path, ".model.partial-*/checkpoint.json", first)
        code, _, err = recdistill("train", tmp_path / "data", "--out", out, *options)
        assert code == 2
        assert len(err.strip().splitlines()[-1].split(": ", 1)[1]) > 10
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
