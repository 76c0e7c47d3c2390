"""Fixtures of the tests of steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def without_charts() -> Iterator[None]:
    """Pages have tables in the place of charts, which other tests draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        yield
