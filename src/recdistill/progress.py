"""How long steps say how far they are: a protocol that is passed by hand, silent by default."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One stage under way."""

    def advance(self, amount: int = 1, **shown: object) -> None:
        """Move on by ``amount`` units; ``shown`` are the latest figures to print beside the bar."""
        ...

    def skip(self, amount: int) -> None:
        """Begin after ``amount`` units that were done before, which say nothing about the time left."""
        ...


class Progress(Protocol):
    """Where stages and notes are shown."""

    def stage(self, name: str, total: int | None, unit: str = "rows") -> AbstractContextManager[Stage]:
        """Open a stage of ``total`` units (None: unknown)."""
        ...

    def note(self, text: str) -> None:
        """Print one line: a guess that was made, a count, an estimate."""
        ...


class _SilentStage:
    def advance(self, amount: int = 1, **shown: object) -> None:
        del amount, shown

    def skip(self, amount: int) -> None:
        del amount


class Silent:
    """Shows nothing: the default of every function that reports progress."""

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str = "rows") -> Generator[Stage]:
        del name, total, unit
        yield _SilentStage()

    def note(self, text: str) -> None:
        del text
