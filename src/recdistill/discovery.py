"""Models and methods by name: a listing of the room's folder, then other packages' entry points.

A file's name is its component's name on the command line, so there is nothing to register.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from recdistill.errors import OptionError
from recdistill.signatures import normal
from recdistill.wording import did_you_mean

_CONTRACTS = {
    "models": ("recdistill.models.base", "Recommender", "model"),
    "distillers": ("recdistill.distillers.base", "Distiller", "method"),
}


def find(room: str, name: str) -> type[Any]:
    """The class of a model or method.

    Args:
        room: ``models`` or ``distillers``.
        name: its name on the command line: its file's name, lower case, ``-`` for ``_``; or that of an entry
            point in the group ``recdistill.<room>``.

    Raises:
        OptionError: no such name (the nearest and all are listed), or an entry point that cannot be loaded.
    """
    wanted = normal(name)
    if wanted in _modules(room):
        found = _component(room, wanted)
        if found is not None:
            return found
    for entry in _entry_points(room):
        if normal(entry.name) == wanted:
            return _load(room, entry)
    every = names(room)
    raise OptionError(
        f"no {_CONTRACTS[room][2]} is called '{name}'",
        f"{did_you_mean(wanted.replace('_', '-'), every)} known: {', '.join(every)}".strip(),
    )


def names(room: str) -> list[str]:
    """The names that ``find`` knows, sorted; ``-`` for ``_``."""
    own = {module for module in _modules(room) if _component(room, module) is not None}
    others = {normal(entry.name) for entry in _entry_points(room)}
    return sorted(name.replace("_", "-") for name in own | others)


def _modules(room: str) -> list[str]:
    package = importlib.import_module(f"recdistill.{room}")
    return [
        module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")
    ]


@cache
def _component(room: str, module_name: str) -> type[Any] | None:
    """The one public class of the room's contract that a module defines; None where it defines none."""
    contract = _contract(room)
    if contract.__module__ == f"recdistill.{room}.{module_name}":
        return None
    module = importlib.import_module(f"recdistill.{room}.{module_name}")
    found = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, contract)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
        and not key.startswith("_")
    ]
    if len(found) > 1:
        classes = ", ".join(value.__name__ for value in found)
        raise OptionError(f"{module.__name__} defines {classes}; expected one public class a file")
    return found[0] if found else None


def _contract(room: str) -> type[Any]:
    module, name, _ = _CONTRACTS[room]
    return getattr(importlib.import_module(module), name)


def _entry_points(room: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"recdistill.{room}"), key=lambda entry: entry.name)


def _load(room: str, entry: EntryPoint) -> type[Any]:
    source = entry.dist.name if entry.dist else "another package"
    kind = _CONTRACTS[room][2]
    try:
        found = entry.load()
    except Exception as error:  # whatever someone else's module raises at import
        raise OptionError(
            f"{kind} '{entry.name}' of {source} cannot be loaded from {entry.value}: {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error
    contract = _contract(room)
    if not (inspect.isclass(found) and issubclass(found, contract)):
        raise OptionError(
            f"{kind} '{entry.name}' of {source}: {entry.value} is no subclass of {contract.__module__}."
            f"{contract.__name__}"
        )
    return found
