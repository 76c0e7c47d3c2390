"""The options that commands share, and mistakes: one line, exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from command import Command
from recdistill.cli.call import Call, takes
from recdistill.cli.options import FORCE, JSON, OUT, SEED

COMMANDS = (
    "demo", "prepare", "train", "extract", "ensemble", "distill", "search", "evaluate", "recommend", "report", "run",
    "compare", "tune",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_shared_options(recdistill: Command, command: str) -> None:
    answer = recdistill(command, "--help")
    assert answer.code == 0
    found = re.findall(r"^  --([\w-]+)", answer.out, re.MULTILINE)
    shared = ["set", "seed", "device", "force", "resume", "json", "help"]
    left_out = ["resume"] if command not in ("train", "distill", "search") else []
    left_out += ["set", "seed", "device"] if command == "report" else []
    assert "out" in found
    assert [name for name in found if name in shared] == [name for name in shared if name not in left_out]


def test_a_command_is_handed_what_its_options_say(tmp_path: Path) -> None:
    handed: list[object] = []

    @takes(OUT, SEED, FORCE, JSON)
    def verb(
        call: Call,
        name: str,
        size: Annotated[int, typer.Option(help="First.")] = 3,
        *,
        late: Annotated[str, typer.Option(help="Behind --out.")] = "x",
    ) -> None:
        """Do it."""
        options = call.options("seed")
        handed.extend([str(call.out), name, size, late, options["seed"], options["force"]])

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(verb)
    runner = CliRunner()
    assert runner.invoke(app, ["n", "--late", "y", "--seed", "7"]).exit_code == 0
    assert handed == [str(Path("runs/verb")), "n", 3, "y", 7, False]
    handed.clear()
    assert runner.invoke(app, ["n", "--out", str(tmp_path), "--force"]).exit_code == 0
    assert handed == [str(tmp_path), "n", 3, "x", 0, True]
    found = re.findall(r"^  --(\w+)", runner.invoke(app, ["--help"]).output, re.MULTILINE)
    assert found == ["size", "out", "late", "seed", "force", "json", "help"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["trian", "train"]),
        (["train"], ["DATA"]),
        (["train", "DATA", "--set", "model.dmi=3"], ["model.dmi", "dim"]),
        (["train", "DATA", "--set", "model.dim=-3"], ["model.dim", "-3", "1"]),
        (["train", "DATA", "--set", "epochs=many"], ["training.epochs", "many"]),
        (["train", "DATA", "--set", "dim"], ["dim", "="]),
        (["train", "DATA", "--set", "out=x"], ["out", "--out"]),
        (["train", "DATA", "--set", "training.seed=3"], ["training.seed", "--seed"]),
        (["train", "DATA", "--model", "bprr"], ["bprr", "bpr"]),
        (["train", "DATA", "--device", "tpu"], ["auto, cpu or cuda", "tpu"]),
        (["train", "DATA", "--on", "test"], ["train,valid", "test"]),
        (["train", "NOWHERE"], ["does not exist"]),
        (["prepare", "NOWHERE"], ["NOWHERE"]),
        (["prepare", "LOG", "--split", "sideways"], ["sideways", "random"]),
        (["prepare", "LOG", "--ratios", "a,b"], ["--ratios: expected numbers such as .8,.1,.1; found 'a,b'"]),
        (["prepare", "LOG", "--item-column", "moveId"], ["moveId", "movieId"]),
        (["prepare", "LOG", "--set", "seed=3"], ["seed", "--seed"]),
        (["extract", "DATA", "DATA"], ["model"]),
        (["evaluate", "DATA", "DATA"], ["data"]),
        (
            ["evaluate", "DATA", "DATA", "--k", "5,x"],
            ["--k: expected whole numbers such as 5,10,20; found '5,x'"],
        ),
        (["search", "DATA", "DATA", "--set", "out=x"], ["out", "--out"]),
        (["demo", "--set", "out=x"], ["out", "--out"]),
        (["demo", "--set", "seed=3"], ["seed", "--seed"]),
        (["run", "NOWHERE.toml"], ["NOWHERE.toml"]),
        (["compare", "NOWHERE.toml"], ["NOWHERE.toml"]),
        (["tune", "NOWHERE.toml"], ["NOWHERE.toml"]),
    ],
)
def test_what_the_caller_can_mend_is_one_line_and_exit_code_2(
    recdistill: Command, log: Path, data: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    places = {"DATA": str(data), "LOG": str(log), "NOWHERE": str(tmp_path / "NOWHERE")}
    chosen = [places.get(a, a) for a in arguments]
    answer = recdistill(*chosen, *([] if arguments == ["trian"] else ["--out", tmp_path / "out"]))
    assert answer.code == 2
    assert answer.last.startswith("error: ")
    assert all(word in answer.last for word in words), answer.last
    assert not (tmp_path / "out").exists()


def test_errors_as_json(recdistill: Command, tmp_path: Path) -> None:
    answer = recdistill("train", tmp_path / "nowhere", "--json")
    assert answer.code == 2
    found = json.loads(answer.out)
    assert set(found) == {"error", "kind", "hint"}
    assert found["kind"] == "artifact"


def test_memory_that_runs_out_is_one_line(recdistill: Command, log: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert recdistill("prepare", log, "--out", data).code == 0
    answer = recdistill("train", data, "--out", tmp_path / "model", "--set", "model.dim=1000000000000")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("error: not enough memory: ")
    assert not (tmp_path / "model").exists()
