"""Rooms import only rooms listed above them; optional packages are imported where they are used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "recdistill"

# Each group may import itself and those above it. What lies beside errors, config and artifacts has no room.
FOUNDATION = {
    "artifacts",
    "atomic",
    "config",
    "directories",
    "discovery",
    "errors",
    "files",
    "locks",
    "manifests",
    "progress",
    "runfiles",
    "signatures",
    "typetexts",
    "wording",
}
ROOMS = [
    "ops",
    "data",
    "models",
    "knowledge",
    "distillers",
    "training",
    "evaluation",
    "searching",
    "presets",
    "reporting",
    "deploy",
    "steps",
]
FRONT = {"cli", "doctor", "listing", "terminal", "testing"}
COMES_WITH = {"llvmlite": "numba", "markupsafe": "jinja2", "ot": "pot"}


class Import(NamedTuple):
    path: Path
    line: int
    module: str
    names: tuple[str, ...]
    at_import: bool  # of the module, type checking aside

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def imports_of(path: Path, source: str) -> Iterator[Import]:
    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(path, child.lineno, alias.name, (), at_import)
            elif isinstance(child, ast.ImportFrom):
                module = child.module or ""
                if child.level:
                    package = path.relative_to(PACKAGE.parent).with_suffix("").parts[: -child.level]
                    module = ".".join([*package, *([module] if module else [])])
                yield Import(path, child.lineno, module, tuple(a.name for a in child.names), at_import)
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            later |= isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk(child, at_import and not later)

    yield from walk(ast.parse(source), True)


def all_imports() -> list[Import]:
    return [found for path in sorted(PACKAGE.rglob("*.py")) for found in imports_of(path, path.read_text())]


def level(room: str) -> int:
    if room in FOUNDATION:
        return 0
    return 1 + ROOMS.index(room) if room in ROOMS else 1 + len(ROOMS)


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def rooms_named(found: Import) -> list[str]:
    """The rooms that an import reaches."""
    parts = found.module.split(".")
    if parts[0] != "recdistill":
        return []
    if len(parts) > 1:
        return [parts[1]]
    return [name for name in found.names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()]


def breaches(found: Import) -> list[str]:
    room = room_of(found.path)
    if room == "__init__":
        return []
    return [
        f"{found.where}: {room} imports {other}, which is listed below it"
        for other in rooms_named(found)
        if level(other) > level(room)
    ]


def test_every_room_is_listed() -> None:
    present = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert present <= FOUNDATION | {*ROOMS} | FRONT, "add the new room to this list, in its place"


def test_rooms_import_only_what_is_above_them() -> None:
    assert not [line for found in all_imports() for line in breaches(found)]


@pytest.mark.parametrize(
    ("room", "source", "allowed"),
    [
        ("data/x.py", "from recdistill.ops import top_k", True),
        ("data/x.py", "from recdistill.data.y import z", True),
        ("data/x.py", "from recdistill.models import base", False),
        ("data/x.py", "from recdistill import models", False),
        ("data/x.py", "from recdistill import __version__", True),
        ("data/x.py", "def f():\n    import recdistill.models.base", False),
        ("data/x.py", "from .. import models", False),
        ("data/x.py", "from ..models.base import Batch", False),
        ("data/x.py", "from .y import z", True),
        ("errors.py", "from recdistill.ops import rows", False),
        ("steps/x.py", "from recdistill import cli", False),
        ("cli/x.py", "from recdistill.steps.train import train", True),
    ],
)
def test_the_rule_sees_every_way_to_import(room: str, source: str, allowed: bool) -> None:
    found = [line for each in imports_of(PACKAGE / room, source) for line in breaches(each)]
    assert (found == []) == allowed


def declared() -> tuple[set[str], set[str]]:
    """Names of the core's distributions and of the extras'."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def bare(texts: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in texts}

    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    return bare(project["dependencies"]), bare(extras)


def test_optional_packages_are_imported_where_they_are_used() -> None:
    core, extras = declared()
    wrong: list[str] = []
    for found in all_imports():
        top = found.module.split(".")[0]
        if top in sys.stdlib_module_names or top == "recdistill":
            continue
        name = COMES_WITH.get(top, top.replace("_", "-"))
        if name not in core | extras:
            wrong.append(f"{found.where}: {top} is no declared dependency")
        elif name not in core and found.at_import:
            wrong.append(f"{found.where}: {top} belongs to an extra and is imported at import")
    assert not wrong


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {*done.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import recdistill",
        "import recdistill.config, recdistill.artifacts, recdistill.progress",
        "from recdistill.cli import app; app(['train', '--help'], standalone_mode=False)",
    ],
)
def test_importing_the_package_loads_nothing_heavy(statement: str) -> None:
    loaded = loaded_after(statement)
    assert "recdistill" in loaded
    assert loaded & {"torch", "polars", "numba", "numpy", "scipy", "pyarrow"} == set()
