"""Directories replaced whole: the renames behind every step, and their repair after a kill at any moment.

Work happens in ``.OUT.partial-<hash>``. Publishing renames OUT to ``.OUT.old``, the work to OUT, and deletes
the old one.
"""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from recdistill.atomic import remove_temporaries, storage_errors, sync_folder
from recdistill.errors import ArtifactError
from recdistill.locks import LockedError, locked

MANIFEST = "manifest.json"


def beside(place: Path, suffix: str) -> Path:
    """A hidden sibling of OUT: ``.OUT.lock``, ``.OUT.old`` or ``.OUT.partial-<hash>``, by ``suffix``."""
    if not place.name:
        raise ArtifactError(f"{place} cannot be an output directory", "choose another --out")
    return place.with_name(f".{place.name}.{suffix}")


@contextmanager
def parents(place: Path, what: Path) -> Generator[None]:
    """Make the folders above ``place``, called ``what`` in errors; those that the block leaves empty go again."""
    missing = [folder for folder in place.parents if not folder.exists()]  # nearest first
    with storage_errors(what):
        place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def recover(place: Path) -> None:
    """Put ``.OUT.old`` back where OUT is missing: what a reader does first."""
    for _ in range(100):
        if place.exists() or not (beside(place, "old") / MANIFEST).is_file():
            return
        try:
            # Only under the lock: a writer between its two renames looks just like one that was killed there.
            with locked(beside(place, "lock"), str(place)):
                restore(place)
        except LockedError:
            time.sleep(0.02)
        except (OSError, ArtifactError) as error:
            raise ArtifactError(
                f"{place} was being replaced when its writer was killed, and cannot be put back ({error})",
                f"rename {beside(place, 'old')} to {place}",
            ) from error


def restore(place: Path) -> None:
    """Undo or finish what a killed writer left; the caller holds the lock."""
    old = beside(place, "old")
    if not place.exists() and (old / MANIFEST).is_file():
        os.rename(old, place)
    discard(old)


def discard(folder: Path) -> None:
    """Delete a directory; its manifest first, so that a half deleted one is never taken for a result."""
    if folder.is_dir():
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)


def leftovers(place: Path) -> list[Path]:
    """The work directories that interrupted steps left of OUT, whatever their options."""
    place = place.resolve()
    return sorted(place.parent.glob(f".{glob.escape(place.name)}.partial-*"))


def prepare(work: Path, resume: bool) -> bool:
    """Make the work directory, emptied unless ``resume``; True where an interrupted run's files lie in it."""
    if resume and work.is_dir():
        remove_temporaries(work)
        return any(work.iterdir())
    discard(work)
    work.mkdir()
    return False


def publish(work: Path, place: Path) -> None:
    """Make ``work`` the new ``place``; the caller holds the lock.

    A kill leaves the new directory or the old one, the latter at ``.OUT.old`` at worst: readers put it back.
    """
    sync_tree(work)
    old = beside(place, "old")
    try:
        if place.exists():
            os.rename(place, old)
        os.rename(work, place)
    except BaseException:
        if not place.exists() and old.exists():
            os.rename(old, place)
        raise
    sync_folder(place.parent)
    discard(old)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder``, so that a power cut after the rename finds them whole."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
