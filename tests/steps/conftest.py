"""Fixtures of the tests of steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from line_cases import log_of_tastes


@pytest.fixture(scope="module")
def without_charts() -> Iterator[None]:
    """Pages have tables in the place of charts, which other tests draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        yield


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interactions of :func:`log_of_tastes` as a file."""
    path = tmp_path_factory.mktemp("log") / "log.csv"
    log_of_tastes().write_csv(path)
    return path
