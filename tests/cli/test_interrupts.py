"""Training in a process of its own: killed, interrupted, locked out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import Command


def start(data: Path, out: Path, epochs: int, *flags: str) -> subprocess.Popen[str]:
    """Train in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "recdistill", "train", str(data), "--out", str(out), *options(epochs), *flags],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores Ctrl-C
    )


def options(epochs: int) -> list[str]:
    return [f"--set={text}" for text in (f"epochs={epochs}", f"patience={epochs}", "checkpoint_seconds=0")]


def wait_for(path: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list(path.glob(pattern)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {pattern}: {process.communicate()}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_training_leaves_nothing_and_resumes_to_the_same_model(
    recdistill: Command, data: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out, straight = tmp_path / "model", tmp_path / "straight"
    process = start(data, out, 150)
    wait_for(tmp_path, ".model.partial-*/checkpoint.json", process)
    os.kill(process.pid, how)
    _, err = process.communicate()
    assert ("--resume continues" in err) == (how == signal.SIGINT)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not out.exists()
    second = start(data, out, 150, "--resume")
    _, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert "resumed after" in err
    recdistill("train", data, "--out", straight, *options(150))
    assert (out / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()


def test_what_is_said_where_a_training_starts_anew(recdistill: Command, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    process = start(data, out, 150)
    wait_for(tmp_path, ".model.partial-*/checkpoint.json", process)
    process.kill()
    process.communicate()
    # a checkpoint of other options is none of this call
    answer = recdistill("train", data, "--out", out, *options(1), "--resume")
    said = "nothing to resume: starting anew (the interrupted run had other options)"
    assert (answer.code, said in answer.err) == (0, True), answer.err
    assert "resume" not in recdistill("train", data, "--out", out, *options(1)).err
    answer = recdistill("train", data, "--out", out, *options(150), "--force")
    assert (answer.code, "the checkpoint of an interrupted run is dropped" in answer.err) == (0, True), (
        answer.err
    )


def test_resume_says_once_that_nothing_is_there(recdistill: Command, data: Path, tmp_path: Path) -> None:
    call = ("train", data, "--out", tmp_path / "model", *options(1), "--resume")
    said = "nothing to resume: starting anew"
    assert [line.strip() for line in recdistill(*call).err.splitlines()].count(said) == 1
    assert said not in recdistill(*call).err  # the result is there: reused
    assert recdistill(*call, "--force").err.count(said) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "DATA"], "interrupted; what was there before is untouched"),
        (["extract", "DATA", "MODEL"], "interrupted; what was there before is untouched"),
        (["run", "FILE"], "interrupted; what was there before is untouched, the same command continues"),
    ],
)
def test_what_is_said_after_ctrl_c(
    recdistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    def interrupted(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"recdistill.steps.{arguments[0]}.{arguments[0]}", interrupted)
    (tmp_path / "FILE").write_text("")
    monkeypatch.chdir(tmp_path)
    answer = recdistill(*arguments)
    assert (answer.code, answer.err.strip()) == (130, said)


def test_two_writers_at_once(recdistill: Command, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    first = start(data, out, 100_000)
    try:
        wait_for(tmp_path, ".model.partial-*/checkpoint.json", first)
        answer = recdistill("train", data, "--out", out, *options(100_000))
        assert answer.code == 2
        assert len(answer.last.split(": ", 1)[1]) > 10
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
