"""Options as signatures state them: names, types, ranges, defaults and meanings, and the check of a value.

An option is a keyword-only parameter (of a dataclass any field) whose type has a JSON form; other ones,
such as a generator or a progress display, are handed through unseen.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from recdistill.errors import OptionError
from recdistill.typetexts import argument_texts, choices, type_text
from recdistill.wording import did_you_mean

REQUIRED: Any = inspect.Parameter.empty
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a factory.

    Attributes:
        name: the parameter's name.
        type: its type and range in words.
        default: its default, or ``REQUIRED``.
        doc: its line of the docstring.
        choices: the texts that it takes, where it takes only some.
        adapter: checks a value and gives its JSON form.
    """

    name: str
    type: str
    default: Any
    doc: str
    choices: tuple[str, ...]
    adapter: TypeAdapter[Any]

    def check(self, value: Any, path: str) -> Any:
        """The value as the factory takes it.

        Raises:
            OptionError: the value is of another type or out of range.
        """
        try:
            return self._accept(value)
        except ValidationError as error:
            if isinstance(value, str) and value == "none":  # TOML has no null
                try:
                    return self.adapter.validate_python(None)
                except ValidationError:
                    pass
            first = error.errors()[0]
            # A validator's own words, such as "ratios must add up to 1", say more than the type.
            said = f"expected {self.type}"
            if isinstance(value, float) and not math.isfinite(value):
                said = said.replace("expected number", "expected a finite number", 1)
            if first["type"] == "value_error":
                said = first["msg"].removeprefix("Value error, ")
            hint = did_you_mean(value, self.choices) if isinstance(value, str) else ""
            if self.name == "weight" and value == 0:
                hint = "a method of no weight is left out by not naming it"
            raise OptionError(f"{path}.{self.name}: {said}, found {_shown(value)}", hint) from error

    def _accept(self, value: Any) -> Any:
        if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
            value = value.item()
        try:
            return self.adapter.validate_python(value)
        except ValidationError:
            # What TOML can say is read by JSON's rules: a list is a tuple, a text a path, but "1" no number.
            try:
                text = json.dumps(value)
            except (TypeError, ValueError):
                text = None
            if text is None:
                raise
            return self.adapter.validate_json(text)

    def plain(self, value: Any) -> Any:
        """The JSON form of an accepted value."""
        return self.adapter.dump_python(value, mode="json")


def options_of(factory: Callable[..., Any]) -> dict[str, Option]:
    """The options of a class (of its constructor) or of a function, in the order of its signature."""
    if isinstance(factory, type) and not dataclasses.is_dataclass(factory):
        return _options_of(inspect.unwrap(factory.__init__), factory)
    return _options_of(inspect.unwrap(factory), factory)


@functools.cache
def _options_of(function: Callable[..., Any], factory: Callable[..., Any]) -> dict[str, Option]:
    fields = _fields(factory)
    docs = argument_texts(factory)
    found: dict[str, Option] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY and parameter.name not in fields:
            continue
        default = parameter.default
        if parameter.name in fields:
            make_default = fields[parameter.name].default_factory
            default = make_default() if callable(make_default) else default
        hint = _type_of(parameter, function, factory)
        adapter = None if hint is None else _adapter(hint)
        if adapter is not None:
            found[parameter.name] = Option(
                parameter.name,
                type_text(hint),
                default,
                docs.get(parameter.name, ""),
                choices(hint),
                adapter,
            )
    return found


def _fields(factory: Callable[..., Any]) -> dict[str, dataclasses.Field[Any]]:
    if not (isinstance(factory, type) and dataclasses.is_dataclass(factory)):
        return {}
    return {field.name: field for field in dataclasses.fields(factory) if field.init}


def _type_of(parameter: inspect.Parameter, function: Callable[..., Any], factory: Callable[..., Any]) -> Any:
    if _fields(factory):
        return typing.get_type_hints(factory, include_extras=True)[parameter.name]
    if parameter.annotation is inspect.Parameter.empty:
        return None
    # One at a time: a name imported for type checkers only must not hide the other parameters' types.
    alone = SimpleNamespace(__annotations__={"option": parameter.annotation})
    try:
        return typing.get_type_hints(alone, function.__globals__, include_extras=True)["option"]
    except NameError:
        return None


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        try:
            adapter = TypeAdapter[Any](hint, config=_STRICT)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            adapter = TypeAdapter[Any](hint)
        adapter.json_schema()
    except PydanticUserError:
        return None
    return adapter


def check_options(factory: Callable[..., Any], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """All options of a factory: those given, checked, and the defaults of the others.

    Args:
        factory: a class or function.
        given: values by name; ``-`` equals ``_`` and capitals count for nothing.
        path: what the errors call the factory.

    Raises:
        OptionError: an unknown name, a wrong value, or a required option that is not given.
    """
    options = options_of(factory)
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = normal(key)
        if name not in options:
            raise unknown_option(path, key, options)
        if name in values:
            raise OptionError(f"{path}.{name} is given twice")
        values[name] = options[name].check(value, path)
    for name, option in options.items():
        if name not in values:
            if option.default is REQUIRED:
                raise OptionError(f"{path}.{name} is not given", f"expected {option.type}")
            values[name] = option.check(option.default, path)
    return {name: values[name] for name in options}


def unknown_option(path: str, key: str, names: Iterable[str]) -> OptionError:
    """The error for a key that is no option: names the nearest one and all."""
    names = list(names)
    near = did_you_mean(normal(key), names)
    every = f"{path} has {', '.join(names)}" if names else f"{path} has no options"
    return OptionError(f"{path}.{key}: no such option", f"{near} {every}".strip())


def normal(name: str) -> str:
    """A name as signatures spell it: lower case, ``_`` for ``-``."""
    return name.strip().lower().replace("-", "_")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
