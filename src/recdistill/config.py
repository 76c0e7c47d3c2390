"""Options from signatures: a constructor states them once; they are checked, listed and stored from there.

Options are keyword-only parameters, ``dim: Annotated[int, Field(ge=1)] = 20``; choices are ``Literal``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from recdistill.discovery import find, names
from recdistill.errors import OptionError
from recdistill.runfiles import assign, load_run_file, parse_assignments, run_file_lines
from recdistill.signatures import REQUIRED, check_options, normal, options_of, unknown_option
from recdistill.wording import did_you_mean

__all__ = [
    "REQUIRED",
    "OptionText",
    "assign",
    "build",
    "describe",
    "find",
    "load_run_file",
    "names",
    "option_names",
    "parse_assignments",
    "resolve",
    "resolve_keys",
    "run_file_lines",
    "validated",
]

P = ParamSpec("P")
R = TypeVar("R")


class OptionText(NamedTuple):
    """One row of ``describe``: ``default`` is ``REQUIRED`` where there is none."""

    name: str
    type: str
    default: Any
    doc: str


def validated(function: Callable[P, R]) -> Callable[P, R]:
    """Check the options of a constructor or function at each call, and fill in their defaults.

    A constructor also leaves them, in JSON form, in ``self.options``; a subclass's win over its parent's.

    Raises:
        OptionError: at a call: an unknown keyword, or a value of another type or out of range.
    """
    parameters = inspect.signature(function).parameters
    is_constructor = function.__name__ == "__init__"

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        options = options_of(function)
        path = type(args[0]).__name__ if is_constructor else function.__name__
        passed = {key: value for key, value in kwargs.items() if key in parameters and key not in options}
        given = {key: value for key, value in kwargs.items() if key not in passed}
        values = check_options(function, given, path)
        plain = {name: options[name].plain(value) for name, value in values.items()} if is_constructor else {}
        if is_constructor:  # before the body, which may read them; not through nn.Module's __setattr__
            object.__setattr__(args[0], "options", plain)
        result = cast(Callable[..., R], function)(*args, **passed, **values)
        if is_constructor:
            object.__setattr__(args[0], "options", plain)
        return result

    return checked


def build(factory: Callable[..., R], options: Mapping[str, Any], path: str) -> R:
    """Call a factory with options that a person wrote.

    Args:
        factory: a class or function.
        options: values by name; ``-`` equals ``_``.
        path: what errors call the factory: ``model``, ``training``, ``rrd``.

    Raises:
        OptionError: an unknown name, a wrong value, or a required option that is not given.
    """
    return factory(**check_options(factory, options, path))


def resolve(factory: Callable[..., Any], options: Mapping[str, Any], path: str) -> dict[str, Any]:
    """All options of a factory in JSON form, defaults filled in; what manifests hold.

    Args and raises as ``build``.
    """
    known = options_of(factory)
    return {name: known[name].plain(value) for name, value in check_options(factory, options, path).items()}


def check_given(factory: Callable[..., Any], given: Mapping[str, Any], path: str) -> None:
    """Check those options of a factory that a person wrote; what it takes beside options passes unseen.

    Raises:
        OptionError: a value of another type or out of range.
    """
    known = options_of(factory)
    for name, value in given.items():
        if name in known:
            known[name].check(value, path)


def option_names(factory: Callable[..., Any]) -> list[str]:
    """The names of a factory's options, in the order of its signature."""
    return list(options_of(factory))


def describe(factory: Callable[..., Any]) -> list[OptionText]:
    """The options of a factory: name, type in words, default and line of the docstring."""
    return [
        OptionText(option.name, option.type, option.default, option.doc)
        for option in options_of(factory).values()
    ]


def resolve_keys(
    assignments: Mapping[str, Any], components: Mapping[str, Callable[..., Any]]
) -> dict[str, dict[str, Any]]:
    """Sort assignments by component.

    Args:
        assignments: values by full key (``model.dim``, ``rrd.2.weight``) or by bare key (``dim``), which must
            be an option of exactly one component.
        components: factories by name; the second of a repeated method is ``rrd.2``.

    Returns:
        For each component the values that are meant for it, by option name.

    Raises:
        OptionError: an unknown key (the nearest is named) or a bare key that several components have.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in components}
    for key, value in assignments.items():
        component, option = _owner(key, components)
        found[component][option] = value
    return found


def _owner(key: str, components: Mapping[str, Callable[..., Any]]) -> tuple[str, str]:
    """The component and the option that a key means."""
    options = {name: option_names(factory) for name, factory in components.items()}
    full_keys = [f"{name}.{option}" for name in options for option in options[name]]
    prefix, _, option = ".".join(normal(part) for part in key.split(".")).rpartition(".")
    prefix = prefix.removesuffix(".1")  # the first of a repeated method has no number, but may be given one
    if prefix:
        for name in components:
            if normal(name) == prefix:
                if option not in options[name]:
                    raise unknown_option(name, option, options[name])
                return name, option
        raise OptionError(
            f"{key}: no such option",
            f"{did_you_mean(f'{prefix}.{option}', full_keys)} components: {', '.join(components)}".strip(),
        )
    owners = [name for name in components if option in options[name]]
    if len(owners) == 1:
        return owners[0], option
    if owners:
        keys = ", ".join(f"{name}.{option}" for name in owners)
        raise OptionError(f"{key} is an option of several components", f"name one: {keys}")
    bare = dict.fromkeys(option for name in options for option in options[name])
    near = did_you_mean(option, bare)
    raise OptionError(f"{key}: no such option", near or f"known: {', '.join(full_keys)}")
