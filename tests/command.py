"""The command line as tests call it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from recdistill import cli


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1]


Command = Callable[..., Answer]


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Answer:
    monkeypatch.setattr(sys, "argv", ["recdistill", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    code: Any = stopped.value.code
    return Answer(int(code or 0), *capsys.readouterr())
