"""Progress in plain lines, where standard error is no terminal."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from recdistill import terminal
from recdistill.terminal import TerminalProgress, heed_interrupts


@pytest.mark.parametrize(("skipped", "left"), [(0, "about 240 s left"), (60, "about 60 s left")])
def test_the_time_left_counts_what_was_done_now(
    skipped: int, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with TerminalProgress().stage("train", 100, "epochs") as stage:
        stage.skip(skipped)
        now = 60.0
        stage.advance(20)  # 3 s each, and 80 or 20 are left
    said = capsys.readouterr().err.splitlines()
    assert said == [f"train: {skipped + 20}/100 epochs, {left}", "train: 20 epochs in 60.0 s"]


def test_one_epoch_is_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress().stage("train", 1, "epochs") as stage:
        stage.advance()
    assert capsys.readouterr().err.startswith("train: 1 epoch in ")


def test_an_interrupt_that_was_swallowed_ends_the_stage_at_its_next_step() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        heed_interrupts()
        with TerminalProgress().stage("train", 100, "epochs") as stage:
            stage.advance()
            with suppress(KeyboardInterrupt):  # as a library's callback does
                os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                stage.advance()
            stage.advance()
            with suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            heed_interrupts()  # the next command of the process
            stage.advance()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        heed_interrupts()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
