"""`bidirectional`: two model directories, their lineage, warm starts, reuse, resume, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import recdistill as rd
from line_cases import log_of_tastes
from recdistill.artifacts import read_manifest
from recdistill.errors import ArtifactError, DataError, OptionError
from recdistill.models.base import Recommender
from recdistill.progress import Silent, Stage
from recdistill.training.bidirectional import BD

FAST: dict[str, Any] = {"epochs": 4, "batch_size": 256, "learning_rate": 0.02, "weight_decay": 0.0}
FEW = {"refresh": 2, "num_draws": 8}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a teacher and an undistilled student."""
    root = tmp_path_factory.mktemp("line")
    log_of_tastes().write_csv(root / "log.csv")
    data = rd.prepare(root / "log.csv", root / "data")
    rd.train(data, rd.models.BPR(dim=16), root / "teacher", training=FAST)
    rd.train(data, rd.models.BPR(dim=4), root / "alone", training=FAST)
    return root


def test_two_trained_models_learn_on_together(line: Path) -> None:
    out = line / "warm"
    teacher, student = rd.bidirectional(
        line / "data", line / "teacher", str(line / "alone"), out, method=FEW, training=FAST
    )
    assert (teacher.options["dim"], student.options["dim"]) == (16, 4)
    for name, before in (("teacher", "teacher"), ("student", "alone")):
        assert not torch.equal(
            rd.load(out / name).parameter("user_table"), rd.load(line / before).parameter("user_table")
        )
    history = [json.loads(row) for row in (out / "student" / "history.jsonl").read_text().splitlines()]
    assert set(history[0]["losses"]) == {"student", "teacher", "to_student", "to_teacher"}
    assert len(student.recommend(["u3"], k=5)) == 5
    manifest = read_manifest(out / "student")
    assert manifest.summary["teacher"] == read_manifest(out / "teacher").hash
    assert manifest.inputs["live"] == read_manifest(line / "teacher").hash
    assert {p.name for p in out.iterdir()} == {"manifest.json", "history.jsonl", "teacher", "student"}


def test_evaluation_and_report_read_both(line: Path) -> None:
    out = line / "read"
    rd.bidirectional(line / "data", line / "teacher", line / "alone", out, method=FEW, training=FAST)
    paths = [out / "teacher", line / "alone", out / "student"]
    result = rd.evaluate(line / "data", paths, line / "evaluation", latency=False)
    assert set(result["gap_closed"]) == {"student"}
    assert result["models"]["student"]["teacher"] == "teacher"
    assert rd.report([line / "evaluation"], line / "report").exists()
    started = [line / "teacher", line / "alone", out / "student"]
    first = rd.evaluate(line / "data", started, line / "first", latency=False)
    assert first["models"]["student"]["teacher"] == "teacher"
    assert rd.extract(line / "data", out / "teacher", line / "knowledge", depth=10).manifest is not None


def test_the_documented_lines_run(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?rd\.bidirectional.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace('"runs/', f'"{line}/').replace('"epochs": 100', '"epochs": 2'), {})
    assert (tmp_path / "runs" / "evaluate" / "metrics.json").exists()


def test_unbuilt_models_start_anew_and_the_same_call_is_reused(line: Path) -> None:
    def run(**changes: Any) -> tuple[Recommender, Recommender]:
        options: dict[str, Any] = {"method": BD(refresh=2, num_draws=8), "training": FAST, **changes}
        return rd.bidirectional(
            line / "data", "bpr", {"name": "lightgcn", "dim": 4}, line / "anew", **options
        )

    run()
    stamp = (line / "anew" / "student" / "weights.safetensors").stat().st_mtime_ns
    run()
    assert (line / "anew" / "student" / "weights.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ArtifactError, match=r"bidirectional\.refresh"):
        run(method=FEW | {"refresh": 3})
    run(method=FEW | {"refresh": 3}, force=True)
    assert (line / "anew" / "student" / "weights.safetensors").stat().st_mtime_ns != stamp


def test_equal_models_get_directories_of_their_own(line: Path) -> None:
    rd.bidirectional(line / "data", "bpr", "bpr", line / "equal", method=FEW, training=FAST)
    hashes = {read_manifest(line / "equal" / role).hash for role in ("teacher", "student")}
    assert len(hashes) == 2


class _KilledError(Exception):
    pass


class _KillerStage:
    epochs = 0

    def advance(self, amount: int = 1, **shown: object) -> None:
        self.epochs += amount
        if self.epochs == 3:
            raise _KilledError

    def skip(self, amount: int) -> None:
        self.epochs += amount


class _Killer(Silent):
    """Ends the run when its third epoch is shown."""

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str = "rows") -> Generator[Stage]:
        del name, total, unit
        yield _KillerStage()


def test_an_interrupted_run_is_resumed_to_the_same_models(line: Path) -> None:
    training = {**FAST, "checkpoint_seconds": 0}

    def run(out: Path, **options: Any) -> Recommender:
        return rd.bidirectional(
            line / "data", line / "teacher", "bpr", out, method=FEW, training=training, **options
        )[1]

    whole = run(line / "whole")
    with pytest.raises(_KilledError):
        run(line / "cut", progress=_Killer())
    assert not (line / "cut").exists()
    resumed = run(line / "cut", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_what_does_not_fit_is_refused(line: Path) -> None:
    other = rd.prepare(line / "log.csv", line / "other", seed=5)
    out = line / "never"
    ordered = rd.prepare(log_of_tastes().with_row_index("position"), line / "ordered")
    with pytest.raises(ArtifactError, match="was trained on data"):
        rd.bidirectional(other, line / "teacher", "bpr", out)
    with pytest.raises(OptionError, match="fitted at once"):
        rd.bidirectional(line / "data", "ease", "bpr", out)
    with pytest.raises(OptionError, match="keeps no trajectory"):
        rd.bidirectional(line / "data", "bpr", "bpr", out, training={"trajectory": [0.5]})
    with pytest.raises(OptionError, match="refersh"):
        rd.bidirectional(line / "data", "bpr", "bpr", out, method={"refersh": 3})
    other_loss = rd.models.SASRec(loss="bce"), rd.models.SASRec(max_length=20)
    with pytest.raises(
        OptionError, match="a teacher with the loss bce learns from a sequence student's batches"
    ):
        rd.bidirectional(ordered, *other_loss, out)
    with pytest.raises(DataError, match="sequence models need an order"):
        rd.bidirectional(line / "data", "sasrec", "bpr", out)
    with pytest.raises(ArtifactError, match="does not exist"):
        rd.bidirectional(line / "data", line / "nothing", "bpr", out)
    assert not out.exists()
