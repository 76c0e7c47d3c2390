"""The command line: verbs parse, call and print; everything else is done by the function of the same name.

What a command needs beyond its options is imported when it runs, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Annotated, Any, NoReturn, cast

import typer

import recdistill
from recdistill.cli.call import GO_ON, Interrupted
from recdistill.cli.data import prepare
from recdistill.cli.files import compare, demo, run, tune
from recdistill.cli.knowledge import ensemble, extract
from recdistill.cli.models import distill, search, train
from recdistill.cli.options import Json
from recdistill.cli.results import evaluate, recommend, report
from recdistill.errors import RecdistillError, memory_told

__all__ = ["app", "main"]

app = typer.Typer(
    name="recdistill",
    help="Turn a large recommender into a small one that ranks nearly as well, and prove it.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])
"""A mistyped command; newer typer releases carry their own copy of click, so it cannot be imported from there."""


_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line: exit 0, 2 for anything the caller can mend, 130 for Ctrl-C."""
    as_json = "--json" in sys.argv
    try:
        # Without a stand-alone run, an exit code is returned.
        with memory_told():
            code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except RecdistillError as error:
        _fail(error.message, error.kind, error.hint, as_json)
    except _UsageError as error:
        context: Any = getattr(error, "ctx", None)
        where = context.command_path if context else "recdistill"
        message = getattr(error, "format_message", error.__str__)()
        hint = f"see {where} --help"
        if "--resume" in message and where.rpartition(" ")[2] in GO_ON:
            hint = f"{where} resumes by itself: leave --resume out"
        _fail(message.rstrip("."), "options", hint, as_json)
    except typer.Exit as stop:
        code = stop.exit_code
    except Interrupted as stop:
        print(stop, file=sys.stderr)  # noqa: T201
        code = _INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)  # noqa: T201
        code = _INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, kind: str, hint: str, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"error": message, "kind": kind, "hint": hint}))  # noqa: T201
    print(f"error: {message}" + (f"; {hint}" if hint else ""), file=sys.stderr)  # noqa: T201
    sys.exit(2)


def options(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A model, a method, a preset, training or search.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List models, methods and presets, or the options of one."""
    from recdistill import listing

    if name is None:
        found = listing.everything()
        if as_json:
            print(json.dumps(found))  # noqa: T201
            return
        for kind, entries in found.items():
            print(f"{kind}:")  # noqa: T201
            for entry, line in entries.items():
                print(f"  {entry:<18} {line}")  # noqa: T201
        print("recdistill options NAME lists the options of one, and of training and search")  # noqa: T201
        return
    from recdistill.steps.methods import preset_names

    if name in preset_names():
        text = listing.preset_text(name)
        print(json.dumps({"preset": text}) if as_json else text.rstrip())  # noqa: T201
        return
    what, key, texts = listing.options_of(name)
    if as_json:
        print(json.dumps({"about": what, "key": key, "options": [listing.as_json(one) for one in texts]}))  # noqa: T201
        return
    print(what)  # noqa: T201
    for one in texts:
        given = listing.as_json(one)
        shown = json.dumps(given.get("default"), ensure_ascii=False).replace("null", "none")
        default = f"={shown}" if "default" in given else ""
        print(f"  {key}.{one.name}{default}  ({one.type})")  # noqa: T201
        print(textwrap.fill(one.doc, 96, initial_indent="      ", subsequent_indent="      "))  # noqa: T201


def doctor(as_json: Json = False) -> None:
    """Print versions, cores, GPU and extras."""
    from recdistill.doctor import examine, missing

    found = examine()
    if as_json:
        print(json.dumps(found))  # noqa: T201
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}: " + ", ".join(f"{key} {shown}" for key, shown in value.items()))  # noqa: T201
        else:
            print(f"{name}: {value}")  # noqa: T201
    for line in missing(found) or ["nothing is missing"]:
        print(line)  # noqa: T201


def _version(shown: bool) -> None:
    if shown:
        print(recdistill.__version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


for _command in (
    demo, prepare, train, extract, ensemble, distill, search, evaluate, recommend, report, run, compare, tune,
    options, doctor,
):  # fmt: skip
    app.command()(_command)
