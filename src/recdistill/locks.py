"""One writer a directory: an advisory lock that the system releases when its holder dies."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from recdistill.atomic import storage_errors
from recdistill.errors import ArtifactError


class LockedError(ArtifactError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, what: str) -> Generator[None]:
    """Hold the lock file ``path`` while the block runs.

    Args:
        path: the lock file; made where absent, deleted afterwards.
        what: the directory that it guards, for the message.

    Raises:
        LockedError: another process, or another block of this one, holds it.
        ArtifactError: the lock file cannot be made.
    """
    with storage_errors(path):
        descriptor = _acquire(path, what)
    try:
        with suppress(OSError):  # only for the other's message; a full disk is no reason to stop here
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        # Deleted while still held: who has opened this file meanwhile sees that it is gone and tries again.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    try:
        import fcntl
    except ImportError as error:
        raise ArtifactError("directories are locked with flock, which this system lacks") from error

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(descriptor, path):
                return descriptor
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            by = f" by process {holder}" if holder else ""
            raise LockedError(
                f"{what} is being written{by}", "wait for it to end or choose another --out"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
