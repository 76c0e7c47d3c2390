"""Fixtures of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recdistill as rd


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(40), 10)
    items = np.concatenate([rng.choice(30, 10, replace=False, p=np.arange(1, 31) / 465) for _ in range(40)])
    path = tmp_path_factory.mktemp("cli") / "log.csv"
    pl.DataFrame({"userId": users, "movieId": items}).write_csv(path)
    return path


@pytest.fixture(scope="session")
def data(log: Path) -> Path:
    """The log, prepared."""
    rd.prepare(log, log.parent / "data")
    return log.parent / "data"
