"""Fixtures shared by all tests."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command import Command

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: test processes of several threads wait for each other


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """A function from a data set's name to its Parquet file; skips the test where the data is absent."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("RECDISTILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
        path = root / name / "interactions.parquet"
        if not path.exists():
            pytest.skip(f"real data '{name}' not found at {path}: set RECDISTILL_DATA to its folder")
        return path

    return find


@pytest.fixture
def recdistill(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A function from the arguments of a command to its exit code and what it printed."""
    from command import call

    return functools.partial(call, capsys, monkeypatch)
