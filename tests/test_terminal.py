"""Progress in plain lines, where standard error is no terminal."""

from __future__ import annotations

import pytest

from recdistill import terminal
from recdistill.terminal import TerminalProgress


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
