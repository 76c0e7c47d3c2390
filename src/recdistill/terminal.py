"""Progress on a terminal: bars with the time left; plain lines where standard error is no terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from recdistill.progress import Stage
from recdistill.wording import counted

_EVERY = 15.0
"""Seconds between two plain lines of one stage."""


_swallowed: list[int] = []
"""Interrupts that have been raised: one that is still there when a stage goes on was swallowed on its way."""


def heed_interrupts() -> None:
    """Make Ctrl-C end the run too where it comes within a library's callback, which ignores what is raised in it.

    A process that was told to ignore it, as a shell's background job is, still does.
    """
    _swallowed.clear()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    _swallowed.append(number)
    raise KeyboardInterrupt


def _go_on() -> None:
    if _swallowed:
        _swallowed.clear()
        raise KeyboardInterrupt


class _BarStage:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: int = 1, **shown: object) -> None:
        _go_on()
        if shown:
            self._bars.update(self._task, advance=amount, shown=_text(shown))
        elif amount:
            self._bars.advance(self._task, amount)

    def skip(self, amount: int) -> None:
        self._bars.reset(self._task, completed=amount)


class _LineStage:
    def __init__(self, console: Console, name: str, total: int | None, unit: str) -> None:
        self._console, self._name, self._total, self._unit = console, name, total, unit
        self._done = self._skipped = 0
        self._started = self._said = time.monotonic()

    def advance(self, amount: int = 1, **shown: object) -> None:
        _go_on()
        self._done += amount
        now = time.monotonic()
        if now - self._said < _EVERY or not amount:
            return
        self._said = now
        left = ""
        if self._total and self._done > self._skipped:
            each = (now - self._started) / (self._done - self._skipped)
            seconds = each * (self._total - self._done)
            left = f", about {seconds:.0f} s left"
        of = f"/{self._total:,}" if self._total else ""
        self._console.print(f"{self._name}: {self._done:,}{of} {self._unit}{left}{_text(shown)}".rstrip())

    def skip(self, amount: int) -> None:
        self._done = self._skipped = amount

    def finish(self) -> None:
        seconds = time.monotonic() - self._started
        done = self._done - self._skipped
        work = f"{counted(done, self._unit.removesuffix('s'))} in " if done else ""
        self._console.print(f"{self._name}: {work}{seconds:.1f} s")


class TerminalProgress:
    """Shows stages and notes on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str = "rows") -> Generator[Stage]:
        """Open a stage of ``total`` units (None: unknown)."""
        if not sys.stderr.isatty():
            lines = _LineStage(self.console, name, total, unit)
            yield lines
            lines.finish()
            return
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}", style="dim"),
        )
        with Progress(*columns, console=self.console) as bars:
            yield _BarStage(bars, bars.add_task(name, total=total, shown=""))

    def note(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False)


def _text(shown: dict[str, object]) -> str:
    return "".join(f", {name} {value}" for name, value in shown.items())
