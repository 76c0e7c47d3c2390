"""Which models, methods and presets there are, and which options they have."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from importlib import resources
from typing import Any

from recdistill import config
from recdistill.config import REQUIRED, OptionText
from recdistill.errors import OptionError
from recdistill.wording import did_you_mean

ROOMS = {"models": "model", "distillers": "method"}
"""Rooms of components, and what a key of ``--set`` starts with: ``model``, or the method's own name."""


def everything() -> dict[str, dict[str, str]]:
    """The first line on each ``models``, ``methods`` and ``presets``, by name."""
    found = {
        kind: {name: first_line(config.find(room, name)) for name in config.names(room)}
        for kind, room in (("models", "models"), ("methods", "distillers"))
    }
    from recdistill.steps.methods import preset_names

    return {**found, "presets": {name: preset_line(name) for name in preset_names()}}


def first_line(component: type[Any]) -> str:
    """The first line of the docstring of a component's module."""
    text = importlib.import_module(component.__module__).__doc__ or component.__doc__ or ""
    return text.strip().partition("\n")[0].rstrip(".")


def preset_line(name: str) -> str:
    """The methods that a preset sums."""
    return "sum of " + ", ".join(
        str(table["method"]) for table in tomllib.loads(preset_text(name))["distill"]
    )


def preset_text(name: str) -> str:
    """The TOML tables of a preset."""
    return (resources.files("recdistill.presets") / f"{name}.toml").read_text(encoding="utf-8")


def options_of(name: str) -> tuple[str, str, list[OptionText]]:
    """What a model, a method, ``training`` or ``search`` is, what its keys start with, and its options.

    Raises:
        OptionError: nothing has that name.
    """
    others = _others()
    wanted = name.lower().replace("_", "-")
    if wanted in others:
        what, factory = others[wanted]
        return what, wanted, config.describe(factory)
    for room, key in ROOMS.items():
        if wanted in config.names(room):
            component = config.find(room, wanted)
            return first_line(component), "model" if key == "model" else wanted, config.describe(component)
    known = [*others, *(one for room in ROOMS for one in config.names(room))]
    near = did_you_mean(wanted, known)
    raise OptionError(
        f"nothing with options is called '{name}'", f"{near} recdistill options lists all".strip()
    )


def _others() -> dict[str, tuple[str, Callable[..., Any]]]:
    from recdistill.searching.options import SearchOptions
    from recdistill.training.options import TrainingOptions

    return {
        "training": ("How a model is trained", TrainingOptions),
        "search": ("How to search for an architecture", SearchOptions),
    }


def as_json(option: OptionText) -> dict[str, Any]:
    """An option for JSON; without ``default`` where it must be given."""
    found: dict[str, Any] = {"name": option.name, "type": option.type, "help": option.doc}
    return found if option.default is REQUIRED else found | {"default": option.default}
