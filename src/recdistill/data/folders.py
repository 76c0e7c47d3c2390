"""Which files of a folder are interactions, and which folders are no source."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
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


def forbid_results(folder: Path, paths: Sequence[Path]) -> None:
    """Refuse files of directories that recdistill made: their indices are no ids of anything.

    Args:
        folder: the source.
        paths: the files below it that would be read.

    Raises:
        DataError: names the first such directory, and what to pass instead.
    """
    folders = {folder}
    for path in paths:
        folders.update(takewhile(lambda parent: parent != folder, path.parents))
    kinds = {place: kind for place in sorted(folders) if (kind := _kind_of(place)) is not None}
    if not kinds:
        return
    made, kind = next(iter(kinds.items()))
    found = f"{made} was made by recdistill (kind {kind}): its files are no source of interactions"
    others = [path for path in paths if kinds.keys().isdisjoint(path.parents)]
    if made == folder and kind == "data":
        raise DataError(found, f"it is prepared already: recdistill train {made}")
    if len(others) == 1:
        raise DataError(found, f"pass {others[0]} itself")
    example = f", or a pattern such as '{others[0].parent / f'*{others[0].suffix}'}'" if others else ""
    raise DataError(found, f"pass the file of interactions itself{example}")


def listed(paths: Sequence[Path], folder: Path) -> str:
    """How many files, and the names of the first: ``4 files: a.md, b.png, c.txt and 1 more``."""
    names = ", ".join(str(path.relative_to(folder)) for path in paths[:_NAMED])
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    return f"{counted(len(paths), 'file')}: {names}{more}"


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
