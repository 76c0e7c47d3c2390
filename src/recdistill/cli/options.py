"""The options that commands share, each declared once, and which of them a command takes."""

from __future__ import annotations

from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

DataDir = Annotated[Path, Argument(metavar="DATA", help="A directory made by 'prepare'.")]
Column = Annotated[str | None, Option(help="Guessed by default.", show_default=False)]
Json = Annotated[bool, Option("--json", help="One JSON object on standard output.")]


def _shared(name: str, declared: Any, default: Any = None) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=declared, default=default)


def _out(default: str) -> Parameter:
    text = f"Directory to write ({default})."
    return _shared("out", Annotated[Path | None, Option("--out", help=text, show_default=False)])


def _force(text: str) -> Parameter:
    return _shared("force", Annotated[bool, Option("--force", help=text)], False)


def _sets(text: str) -> Parameter:
    option = Option("--set", metavar="KEY=VALUE", help=f"{text}; may be repeated.", show_default=False)
    return _shared("sets", Annotated[list[str] | None, option])


OUT = _out("default runs/<verb>")
SETS = _sets("An option, such as model.dim=20")
SEED = _shared("seed", Annotated[int, Option(help="Seed of every draw.")], 0)
DEVICE = _shared("device", Annotated[str, Option(help="auto, cpu or cuda.")], "auto")
FORCE = _force("Replace what was made with other options.")
RESUME = _shared("resume", Annotated[bool, Option("--resume", help="Continue an interrupted run.")], False)
JSON = _shared("as_json", Json, False)

STEP = (OUT, SETS, SEED, DEVICE, FORCE, JSON)
"""Of every step, also where it draws nothing or runs on the CPU alone."""
LONG_STEP = (OUT, SETS, SEED, DEVICE, FORCE, RESUME, JSON)
PAGE = (OUT, FORCE, JSON)


def file_step(seed: str, force: str = "") -> tuple[Parameter, ...]:
    """The options of a command whose file says where to write and with which seed.

    Args:
        seed: help of ``--seed``.
        force: help of ``--force``, where it is not the usual one.
    """
    own = _shared("seed", Annotated[int | None, Option(help=seed, show_default=False)])
    sets = _sets("A value of the file, such as student.dim=20")
    return (_out("default: the file's out"), sets, own, DEVICE, _force(force) if force else FORCE, JSON)
