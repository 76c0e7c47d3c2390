"""A search space: which options of a model, its methods and its training are tried, and within what."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recdistill import config
from recdistill.errors import OptionError

if TYPE_CHECKING:
    import optuna

Components = Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]]
"""What can be searched: factories by name, each with the options that the file gives it."""

_FIXED = tuple(
    f"training.{name}"
    for name in ("validate_metric", "validate_negatives", "trajectory", "checkpoint_seconds")
)
_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Dimension:
    """One option that is searched.

    Attributes:
        component, option: ``rrd`` and ``weight``.
        choices: the values tried; empty for a range.
        low, high: the ends of a range, both tried.
        log: whether it is drawn evenly in the logarithm.
        step: the distance of two values, None for any.
        whole: whether its values are whole numbers.
    """

    component: str
    option: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def key(self) -> str:
        """Its full name, as ``--set`` takes it."""
        return f"{self.component}.{self.option}"

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value that a trial takes."""
        if self.choices:
            return self.value(
                trial.suggest_categorical(self.key, [_label(choice) for choice in self.choices])
            )
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.key, low, high, step=step, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def value(self, label: Any) -> Any:
        """The choice behind its label; numbers of a range stand for themselves."""
        return next((choice for choice in self.choices if _label(choice) == label), label)

    def label(self, value: Any) -> Any:
        """A value as it is recorded."""
        return _label(value)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the space."""
        if self.choices:
            return _label(value) in [_label(choice) for choice in self.choices]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not self.low <= value <= self.high
        ):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-9

    def text(self) -> str:
        """The space in words."""
        if self.choices:
            return "one of " + ", ".join(json.dumps(choice) for choice in self.choices)
        every = "" if self.step is None else f" by {self.step:g}"
        return f"{self.low:g} to {self.high:g}{every}" + (", by its logarithm" if self.log else "")


def read_space(table: Mapping[str, Any], components: Components) -> list[Dimension]:
    """Check a ``[space]`` and spell it out.

    Args:
        table: ``{"rrd.weight": {"low": 1e-4, "high": 1, "log": True}, "model.dim": [10, 20]}``; keys as for
            ``--set``, dotted or as tables in tables.
        components: what can be searched.

    Raises:
        OptionError: no option of that name, or values that it does not take.
    """
    flat = _flat(table)
    if not flat:
        raise OptionError(
            "tune file: [space] is empty", 'write "rrd.weight" = {low = 1e-4, high = 1.0, log = true}'
        )
    sorted_keys = config.resolve_keys(flat, {name: factory for name, (factory, _) in components.items()})
    found = [
        _dimension(name, option, entry, components[name])
        for name, options in sorted_keys.items()
        for option, entry in options.items()
    ]
    for dimension in found:
        if dimension.key in _FIXED:
            raise OptionError(f"space.{dimension.key}: cannot be searched", "give it in the training table")
    return found


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The entries by full key, in the names that ``--set`` of a command uses."""
    found: dict[str, Any] = {}
    for key, entry in table.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(entry, Mapping) and not set(entry) & set(_KEYS):
            found |= _flat(entry, name)
        else:
            found[_short(name)] = entry
    return found


def _short(key: str) -> str:
    """``student.training.epochs`` of a run file is ``training.epochs``, ``distill.rrd.weight`` is ``rrd.weight``."""
    first, _, rest = key.partition(".")
    if first == "distill" and rest:
        return rest
    if first in ("student", "alone", "teacher") and rest:
        return rest if rest.startswith("training.") else f"model.{rest}"
    return key


def _dimension(
    component: str, option: str, entry: Any, known: tuple[Callable[..., Any], Mapping[str, Any]]
) -> Dimension:
    factory, options = known
    path = f"space.{component}.{option}"

    def check(value: Any) -> None:
        config.resolve(factory, {**options, option: value}, component)

    if isinstance(entry, list):
        if len({_label(choice) for choice in entry}) < max(len(entry), 1) or not entry:
            raise OptionError(f"{path}: expected different values to choose from, found {entry}")
        for choice in entry:
            check(choice)
        return Dimension(component, option, tuple(entry))
    if not isinstance(entry, Mapping) or set(entry) - set(_KEYS) or not {"low", "high"} <= set(entry):
        raise OptionError(
            f"{path}: expected a list of values, or low and high (and log, step); found {entry!r}"
        )
    low, high, log, step = entry["low"], entry["high"], entry.get("log", False), entry.get("step")
    numbers = [low, high, *([] if step is None else [step])]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise OptionError(f"{path}: expected numbers as low, high and step, found {dict(entry)}")
    if not isinstance(log, bool):
        raise OptionError(f"{path}: expected log = true or false, found {log!r}")
    if low >= high or (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise OptionError(
            f"{path}: expected low below high, above 0 and without a step where log = true; found {dict(entry)}"
        )
    check(low)
    check(high)
    whole = isinstance(low, int) and isinstance(high, int) and not _takes(check, low + 0.5)
    return Dimension(component, option, (), low, high, log, step, whole)


def _takes(check: Callable[[Any], None], value: float) -> bool:
    try:
        check(value)
    except OptionError:
        return False
    return True


def _label(value: Any) -> Any:
    """A choice as the study records it: texts and numbers as they are, others as JSON."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)
