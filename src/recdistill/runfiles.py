"""Options as people write them: ``key=value`` on the command line, and TOML run files."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import date, time
from pathlib import Path
from typing import Any

from recdistill.errors import OptionError
from recdistill.signatures import normal
from recdistill.wording import did_you_mean


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` texts; of a repeated key the last counts.

    Values are TOML; ``.5`` is a number too, ``1,2,3`` a list of numbers, and any other bare word a text.

    Args:
        texts: such as ``["model.dim=20", "rrd.weight=.1", "data.split=temporal"]``.

    Returns:
        Values by dotted key, in lower case and with ``_`` for ``-``.

    Raises:
        OptionError: a text without ``=`` or without a key.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        parts = [normal(part) for part in key.split(".")]
        if not equals or not all(parts):
            raise OptionError(f"cannot read '{text}'", "expected key=value, such as model.dim=20")
        values[".".join(parts)] = _value(value.strip())
    return values


def _value(text: str) -> Any:
    if re.fullmatch(r"[+-]?(\.\d+|\d+\.)([eE][+-]?\d+)?", text):  # .5 and 5. are no TOML
        return float(text)
    if text in ("True", "False"):
        return text == "True"
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parts = [_value(part.strip()) for part in text.split(",")] if "," in text else []
        if parts and all(type(part) in (int, float) for part in parts):
            return parts
        return text
    if list(found) != ["value"] or isinstance(found["value"], date | time):
        return text
    return _without_dates(found["value"])


def _without_dates(value: Any) -> Any:
    """Dates as ISO texts, so that a tree of options always has a JSON form."""
    if isinstance(value, dict):
        return {key: _without_dates(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_dates(entry) for entry in value]
    return value.isoformat() if isinstance(value, date | time) else value


def assign(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set one value in a tree of options; tables that are missing on the way are made.

    In a list of tables (``[[distill]]``) a part of the path is a position from 1, or a table's ``method`` or
    ``name``, with a number where several have it: ``distill.rrd.weight``, ``distill.rrd.2.weight``.

    Args:
        tree: nested tables, changed in place.
        path: the dotted key.
        value: what to put there.

    Raises:
        OptionError: the path leads through something that is no table.
    """
    parts = [normal(part) for part in path.split(".")]
    here: Any = tree
    walked: list[str] = []
    while len(parts) > 1:
        if isinstance(here, list):
            here, used = _entry(here, parts, ".".join(walked))
        else:
            key = _key(here, parts[0])
            here, used = here.setdefault(key, {}), 1
        walked += parts[:used]
        del parts[:used]
        if not isinstance(here, dict | list):
            raise OptionError(f"cannot set {path}: {'.'.join(walked)} is {here!r}, no table")
    if isinstance(here, list):
        raise OptionError(
            f"cannot set {path}: {'.'.join(walked)} is a list of tables", _one_of(here, ".".join(walked))
        )
    here[_key(here, parts[0])] = value


def _key(table: dict[str, Any], name: str) -> str:
    return next((key for key in table if normal(key) == name), name)


def _entry(tables: list[Any], parts: list[str], walked: str) -> tuple[Any, int]:
    """The table of a list that the path names, and how many of its parts do so."""
    if parts[0].isdigit():
        matches, number, used = tables, int(parts[0]), 1
    else:
        matches = [table for table in tables if parts[0] in _labels(table)]
        numbered = len(parts) > 2 and parts[1].isdigit()
        number, used = (int(parts[1]), 2) if numbered else (1, 1)
    if not 1 <= number <= len(matches):
        known = [label for table in tables for label in _labels(table)]
        every = f"it has {len(tables)}: {', '.join(known) or 'unnamed'}"
        near = "" if matches else did_you_mean(parts[0], known)
        raise OptionError(f"{walked} has no table {'.'.join(parts[:used])}", f"{near} {every}".strip())
    return matches[number - 1], used


def _one_of(tables: list[Any], walked: str) -> str:
    """The hint that lists the tables of a list by the paths that reach them."""
    every = [label for table in tables for label in _labels(table)[:1]]
    paths = [
        f"{walked}.{label}" + (f".{every[: number + 1].count(label)}" if every.count(label) > 1 else "")
        for number, label in enumerate(every)
    ]
    if len(every) < len(tables):  # some have no name
        paths = [f"{walked}.{number}" for number in range(1, len(tables) + 1)]
    return f"name one of them: {', '.join(paths)}" if paths else "it is empty"


def _labels(table: Any) -> list[str]:
    if not isinstance(table, dict):
        return []
    return [normal(str(table[key])) for key in ("method", "name") if key in table]


def load_run_file(path: Path | str) -> dict[str, Any]:
    """Read a TOML run file.

    Raises:
        OptionError: the file is missing, unreadable, or no TOML (with the line).
    """
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise OptionError(f"cannot read run file {path}: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"run file {path} is no UTF-8 text", "save it as UTF-8") from error
    try:
        return _without_dates(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        said = re.sub(r" \(at .*\)$", "", str(error))
        line = re.search(r"\(at line (\d+), ", str(error))  # else: at end of document
        number = line.group(1) if line else max(1, len(text.splitlines()))
        raise OptionError(f"{path}, line {number}: {said}", "expected TOML, such as: dim = 20") from error


@contextmanager
def run_file_lines(path: Path | str) -> Generator[None]:
    """Add file and line to the option errors of the block, where one line has the key or the word that they name.

    Args:
        path: the run file whose options are checked in the block.
    """
    try:
        yield
    except OptionError as error:
        key = re.match(r"[\w.-]+(?=: )", error.message)
        word = re.search(r"'([^']+)'", error.message)
        line = key_line(path, key.group(0)) if key else None
        if line is None and word:
            line = _word_line(path, word.group(1))
        if line is None:
            raise
        raise OptionError(f"{path}, line {line}: {error.message}", error.hint) from error


def key_line(path: Path | str, key: str) -> int | None:
    """The line of a TOML file that sets a dotted key, or None where none or several do.

    Components are often named otherwise than their tables (``rrd.weight`` is in ``[[distill]]``), so the last
    part of the key decides, and the others only where several lines have it.
    """
    wanted = [normal(part) for part in key.split(".")]
    table: list[str] = []
    found: list[tuple[int, int]] = []
    for number, line in enumerate(_lines(path), 1):
        header = re.match(r"\s*\[+([^\]]+)\]", line)
        entry = re.match(r"\s*([\w.\"' -]+?)\s*=", line)
        if header:
            table = _parts(header.group(1))
        elif entry:
            parts = [*table, *_parts(entry.group(1))]
            if parts[-1] == wanted[-1]:
                found.append((len({*parts} & {*wanted}), number))
    best = [number for common, number in found if common == max(found)[0]]
    return best[0] if len(best) == 1 else None


def _word_line(path: Path | str, word: str) -> int | None:
    """The line that has a word as a table's name, a key or a quoted value, or None where none or several do."""
    of = re.escape(word)
    there = re.compile(rf"""\s*\[+{of}\]|\s*{of}\s*=|[^#]*=[^#]*(["']){of}\1""")
    found = [number for number, line in enumerate(_lines(path), 1) if there.match(line)]
    return found[0] if len(found) == 1 else None


def _lines(path: Path | str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _parts(key: str) -> list[str]:
    return [normal(part.strip().strip("\"'")) for part in key.split(".")]


def toml_text(tree: Mapping[str, Any], path: str = "") -> str:
    """Write nested tables as TOML: values first, then tables, then lists of tables; None is left out."""
    lines = [f"{_bare(key)} = {_toml(value)}" for key, value in tree.items() if _is_value(value)]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in tree.items():
        name = f"{path}.{_bare(key)}" if path else _bare(key)
        if isinstance(value, Mapping):
            text += f"\n[{name}]\n{toml_text(value, name)}"
        elif not _is_value(value) and value is not None:
            text += "".join(f"\n[[{name}]]\n{toml_text(entry, name)}" for entry in value)
    return text


def _is_value(value: Any) -> bool:
    tables = isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value)
    return value is not None and not isinstance(value, Mapping) and not tables


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(entry) for entry in value)}]"
    return repr(value)
