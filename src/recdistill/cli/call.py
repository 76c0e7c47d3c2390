"""One command under way: the options that all share, and how its result is printed."""

from __future__ import annotations

import functools
import inspect
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from recdistill.errors import OptionError

Command = Callable[..., None]
Number = TypeVar("Number", int, float)

_OWN = ("out", "seed", "device", "force", "resume", "json")
_OWN_OF = {"distill": ("base_weight",)}
"""Options with a flag of their own, of all commands and of one."""

GO_ON = ("demo", "run", "compare", "tune")
"""Commands that go on by themselves with what is done."""

_GOES_ON = ("checkpoint.json", "architecture.json", "manifest.json")
"""Files of an interrupted step that a resumed one goes on from: a training's, a search's, a result not yet in place."""


class Interrupted(Exception):
    """Ctrl-C in a command; its text says what is left and how to go on."""


class Call:
    """What the shared options of a command say; those that it does not take have their defaults.

    Attributes:
        out: the directory to write.
        progress: where stages are shown.
    """

    def __init__(
        self,
        verb: str,
        out: Path | None = None,
        sets: list[str] | None = None,
        as_json: bool = False,
        **others: Any,
    ) -> None:
        from recdistill.terminal import TerminalProgress, heed_interrupts

        self.out = out or Path("runs") / verb
        heed_interrupts()
        self.progress = TerminalProgress()
        self._given, self._sets, self._as_json, self._others = out, sets or [], as_json, others
        self._verb, self._started, self._started_at = verb, time.monotonic(), time.time()
        self.watch("*" if verb == "demo" else "")

    def watch(self, result: str) -> None:
        """Take the result for reused if the manifests of the folder ``result`` in ``out`` stay as they are.

        Args:
            result: the folder, empty for ``out`` itself, or ``*`` for all in it.
        """
        self._result = result
        self._before = self._stamps()

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        folders = self.out.glob("*") if self._result == "*" else [self.out / self._result]
        found = [path for path in (folder / "manifest.json" for folder in folders) if path.is_file()]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    def interrupted(self) -> str:
        """What Ctrl-C left, in one line."""
        text = "interrupted; what was there before is untouched"
        if self._verb in GO_ON:
            return f"{text}, the same command continues"
        return f"{text}, --resume continues" if self._can_resume() else text

    def _can_resume(self) -> bool:
        """Whether there is a checkpoint of this call: one written by it, or what it was told to resume."""
        if "resume" not in self._others:
            return False
        from recdistill.directories import leftovers

        folders = [*leftovers(self.out), *self.out.glob(".*.partial-*")]
        found = [path for folder in folders for path in folder.rglob("*") if path.name in _GOES_ON]
        return any(self._others["resume"] or path.stat().st_mtime >= self._started_at for path in found)

    def read_out(self, file: Path, result: str = "") -> None:
        """Write where a run file says, if no ``--out`` does; ``result`` is the folder there to watch."""
        from recdistill.steps.runtables import out_of

        self.out = out_of(file, self._given, self.sets, self.out)
        self.watch(result)

    @functools.cached_property
    def sets(self) -> dict[str, Any]:
        """What ``--set`` gives, by dotted key."""
        from recdistill.config import parse_assignments

        return parse_assignments(self._sets)

    def sorted_sets(self, components: Mapping[str, Callable[..., Any]]) -> dict[str, dict[str, Any]]:
        """What ``--set`` gives, by component and option.

        Raises:
            OptionError: an unknown key, or one that has an option of its own, such as ``--out``.
        """
        from recdistill.config import resolve_keys

        for key in self.sets:
            name = key.rpartition(".")[2]
            if name in (*_OWN, *_OWN_OF.get(self._verb, ())):
                raise OptionError(f"{key} is not for --set", f"pass --{name.replace('_', '-')}")
        return resolve_keys(self.sets, components)

    def options(self, *names: str) -> dict[str, Any]:
        """Arguments of a step: ``force``, ``progress`` and the shared options that are named.

        With ``resume`` among them, it says that there is nothing to resume.
        """
        replaced = self._others["force"] or not self._before
        if "resume" in names and self._others["resume"] and replaced and not self._can_resume():
            self.progress.note("nothing to resume: starting anew")
        return {"progress": self.progress, **{name: self._others[name] for name in ("force", *names)}}

    def finish(self, result: Mapping[str, Any], lines: list[str]) -> None:
        """Print the result: one JSON object, or lines for a person."""
        reused = bool(self._before) and self._before == self._stamps()
        if self._as_json:
            seconds = round(time.monotonic() - self._started, 3)
            print(json.dumps({"out": str(self.out), "reused": reused, "seconds": seconds, "result": result}))  # noqa: T201
            return
        for line in lines:
            print(line)  # noqa: T201
        print(f"{'reused' if reused else 'written'}: {self.out}")  # noqa: T201


def takes(*shared: inspect.Parameter) -> Callable[[Command], Command]:
    """Give a command shared options; it is handed a ``Call`` with what they say, then its own arguments.

    The help lists its own parameters, the first shared option, its keyword-only parameters, the other options.

    Args:
        shared: from ``options``, in their order.
    """

    def decorate(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        _, *own = [
            p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()
        ]
        first = [p for p in own if p.kind is not p.KEYWORD_ONLY]
        parameters = [*first, shared[0], *own[len(first) :], *shared[1:]]

        @functools.wraps(function)
        def command(**given: Any) -> None:
            call = Call(function.__name__, **{p.name: given.pop(p.name) for p in shared})
            try:
                function(call, **given)
            except KeyboardInterrupt:
                raise Interrupted(call.interrupted()) from None

        command.__annotations__ = {p.name: p.annotation for p in parameters}
        vars(command)["__signature__"] = inspect.Signature(parameters)
        return command

    return decorate


def numbers(option: str, text: str, example: str, kind: type[Number]) -> tuple[Number, ...]:
    """Read the numbers of an option that takes several.

    Raises:
        OptionError: names the option, with an example.
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        words = "whole numbers" if kind is int else "numbers"
        raise OptionError(f"--{option}: expected {words} such as {example}; found '{text}'") from None


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of text as lines with aligned columns, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
