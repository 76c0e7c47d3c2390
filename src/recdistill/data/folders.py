"""Which files of a folder are interactions, and which folders are no source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recdistill.data.formats import known_suffix
from recdistill.directories import MANIFEST
from recdistill.errors import ArtifactError, DataError
from recdistill.files import read_json
from recdistill.wording import counted

_USUAL_STEMS = ("ratings", "interactions", "events")
_NAMED = 3


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder by name, without those whose path has a part that begins with ``.`` or ``_``."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]


def likely_files(visible: Sequence[Path]) -> list[Path]:
    """Those whose names look like interactions; of ``ratings.csv`` beside other tables it alone."""
    found = [path for path in visible if known_suffix(path)]
    usual = [path for path in found if path.name.split(".")[0].lower() in _USUAL_STEMS]
    inter = [path for path in found if ".inter" in path.suffixes]
    return usual if len(usual) == 1 else inter or found


def without_results(folder: Path, visible: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Leave out what lies in directories that recdistill made: their indices are no ids of anything.

    Args:
        folder: the source.
        visible: the files below it.

    Returns:
        The other files; and the directories with their kinds, ``folder`` alone if it is one itself.
    """
    made: dict[Path, str] = {}
    for place in sorted(path.parent for path in visible if path.name == MANIFEST):
        if made.keys().isdisjoint(place.parents) and (kind := _kind_of(place)) is not None:
            made[place] = kind
    return [path for path in visible if made.keys().isdisjoint(path.parents)], made


def no_source(folder: Path, made: Mapping[Path, str]) -> DataError:
    """The error for a folder that holds nothing but directories ``made`` by recdistill, or is one."""
    place, kind = next(iter(made.items()))
    hint = "pass the file of interactions itself"
    if place == folder and kind == "data":
        hint = f"it is prepared already: recdistill train {place}"
    return DataError(
        f"{place} was made by recdistill (kind {kind}): its files are no source of interactions", hint
    )


def listed(paths: Sequence[Path], folder: Path, noun: str = "file", plural: str = "") -> str:
    """How many files, and the names of the first: ``4 files: a.md, b.png, c.txt and 1 more``."""
    names = ", ".join(str(path.relative_to(folder)) for path in paths[:_NAMED])
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    return f"{counted(len(paths), noun, plural)}: {names}{more}"


def _kind_of(folder: Path) -> str | None:
    """What the manifest in a folder says that it is; None where there is none of ours."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        found: Any = read_json(folder / MANIFEST)
    except ArtifactError:
        return None
    ours = isinstance(found, dict) and "kind" in found and isinstance(found.get("format"), int)  # pyright: ignore
    return str(found["kind"]) if ours else None
