"""Types and docstrings in words: ``Annotated[int, Field(ge=1)]`` is "integer >= 1"."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}
_LENGTHS = {"min_length": "at least", "max_length": "at most"}
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    None: "none",
    type(None): "none",
    Any: "any value",
}


def type_text(hint: Any, constraints: tuple[Any, ...] = ()) -> str:
    """A type with its range, in words.

    Args:
        hint: an annotation.
        constraints: pydantic's or annotated_types' constraints on it.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return type_text(arguments[0], (*_constraints(arguments[1:]), *constraints))
    if origin is Literal:
        return f"one of {', '.join(str(value) for value in arguments)}"
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(part, constraints) for part in arguments)
    if hint in _WORDS if isinstance(hint, typing.Hashable) else False:
        limits = "" if hint in (None, type(None), bool) else _limits(constraints)
        return f"{_WORDS[hint]}{limits}"
    name = getattr(origin or hint, "__name__", str(hint))
    if name in ("list", "tuple", "set", "frozenset", "Sequence", "Iterable"):
        inner = " and ".join(dict.fromkeys(type_text(part) for part in arguments if part is not ...))
        return f"list of {inner}{_limits(constraints)}" if inner else f"list{_limits(constraints)}"
    if name in ("dict", "Mapping"):
        return "table"
    return {"Path": "path"}.get(name, name)


def _constraints(metadata: tuple[Any, ...]) -> tuple[Any, ...]:
    flat: list[Any] = []
    for entry in metadata:
        flat.extend(getattr(entry, "metadata", [entry]))
    return tuple(flat)


def _limits(constraints: tuple[Any, ...]) -> str:
    parts: list[str] = []
    for constraint in constraints:
        for name, sign in _BOUNDS.items():
            if getattr(constraint, name, None) is not None:
                parts.append(f"{sign} {getattr(constraint, name)}")
        for name, words in _LENGTHS.items():
            if getattr(constraint, name, None):
                parts.append(f"of length {words} {getattr(constraint, name)}")
    return f" {' and '.join(parts)}" if parts else ""


def choices(hint: Any) -> tuple[str, ...]:
    """The texts that a type takes, where it names them."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return tuple(value for value in arguments if isinstance(value, str))
    if typing.get_origin(hint) is Annotated:
        return choices(arguments[0])
    return tuple(text for part in arguments for text in choices(part))


def argument_texts(factory: Callable[..., Any]) -> dict[str, str]:
    """The lines of a docstring's ``Args`` section by name; of the constructor's where the class has none."""
    texts = _arguments(inspect.getdoc(factory) or "")
    if not texts and isinstance(factory, type):
        texts = _arguments(inspect.getdoc(factory.__init__) or "")
    return texts


def _arguments(doc: str) -> dict[str, str]:
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    if section is None:
        return {}
    texts: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section.group(1)).splitlines():
        entry = re.match(r"(\w+)(?: \([^)]*\))?: *(.*)", line)
        if entry:
            name = entry.group(1)
            texts[name] = entry.group(2)
        elif name and line.strip():
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts
