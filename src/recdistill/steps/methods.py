"""Methods by name: presets, tables with options, and instances, spelled out and built."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from recdistill import config
from recdistill.distillers.base import Distiller
from recdistill.errors import OptionError
from recdistill.wording import did_you_mean

DEFAULT_PRESET = "recommended"
LISTS_PRESET = "recommended-lists"

MethodLike = Distiller | str | Mapping[str, Any]


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    folder = resources.files("recdistill.presets")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def method_tables(methods: MethodLike | Sequence[MethodLike]) -> list[dict[str, Any]]:
    """Presets and names spelled out as tables with ``method`` and options, in order."""
    several = [methods] if isinstance(methods, (str, Mapping, Distiller)) else list(methods)
    tables: list[dict[str, Any]] = []
    for entry in several:
        if isinstance(entry, Distiller):
            tables.append({"method": entry.method_name(), **entry.options})
            continue
        table = {"method": entry} if isinstance(entry, str) else dict(entry)
        if "method" not in table:
            found = ", ".join(table) or "nothing"
            raise OptionError(
                f"a method's table has {found} and no 'method'", "name one: {'method': 'rrd', …}"
            )
        name = str(table["method"]).lower().replace("_", "-")
        tables.extend(_parts(name, table) if name in preset_names() else [table])
    if not tables:
        raise OptionError("no method to distil with", f"methods: {', '.join(config.names('distillers'))}")
    return tables


def _parts(preset: str, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sum that a preset is."""
    text = (resources.files("recdistill.presets") / f"{preset}.toml").read_text(encoding="utf-8")
    parts: list[dict[str, Any]] = tomllib.loads(text)["distill"]
    if options := [name for name in table if name != "method"]:
        names = ", ".join(part["method"] for part in parts)
        raise OptionError(
            f"{preset} is a sum of methods ({names}) and has no option '{options[0]}'",
            "write its parts as tables of their own, with their options",
        )
    return parts


def find_method(name: str) -> type[Any]:
    """The class of a method.

    Raises:
        OptionError: no such method; presets are named too.
    """
    wanted, methods, presets = name.lower().replace("_", "-"), config.names("distillers"), preset_names()
    if wanted in methods:
        return config.find("distillers", name)
    near = did_you_mean(wanted, [*presets, *methods])
    raise OptionError(
        f"no method is called '{name}'",
        f"{near} methods: {', '.join(methods)}; presets: {', '.join(presets)}".strip(),
    )


def make_methods(methods: MethodLike | Sequence[MethodLike]) -> list[Distiller]:
    """The distillers that ``methods`` name, in order."""
    made: list[Distiller] = []
    for table in method_tables(methods):
        chosen = dict(table)
        name = str(chosen.pop("method"))
        method = find_method(name)
        before = sum(type(one) is method for one in made)
        built = config.build(method, chosen, name if before == 0 else f"{name}.{before + 1}")
        assert isinstance(built, Distiller)
        made.append(built)
    return made
