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
_LISTS = {"list", "tuple", "set", "frozenset", "Sequence", "Iterable"}
_WORDS = {
    "bool": "true or false",
    "int": "integer",
    "float": "number",
    "str": "text",
    "Path": "path",
    "None": "none",
    "NoneType": "none",
    "dict": "table",
    "Mapping": "table",
    "Any": "any value",
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
        parts = [type_text(part, constraints) for part in arguments]
        return (", or " if any(" " in part for part in parts) else " or ").join(parts)
    name = "None" if hint is None else getattr(origin or hint, "__name__", str(hint))
    if name in _LISTS:
        inner = " and ".join(dict.fromkeys(_plural(part) for part in arguments if part is not ...))
        return f"list{inner and f' of {inner}'}{_limits(constraints)}"
    limits = "" if name in ("bool", "None", "NoneType") else _limits(constraints)
    return f"{_WORDS.get(name, name)}{limits}"


def _plural(hint: Any) -> str:
    word, *limits = type_text(hint).split(" ", 1)
    return (
        " ".join([f"{word}s", *limits]) if word in ("integer", "number", "text", "path") else type_text(hint)
    )


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
