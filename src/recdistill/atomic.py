"""Files written whole or not at all, and errors of the file system in one line.

Each write goes to a temporary name beside the target, is flushed to the disk and renamed, so a killed process
leaves the old file or none.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from recdistill.errors import ArtifactError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY = ".tmp-"
REMAKE = "make it again with --force"


def size_text(num_bytes: int) -> str:
    """A number of bytes as people read it: ``1.5 GB``."""
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:  # rounds to three digits
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{num_bytes} bytes"
        size /= 1000
    return f"{size:.3g} TB"


def storage_error(error: Exception, path: Path, needed: int | None = None) -> ArtifactError | None:
    """The one-line error for a failed write, or None where ``error`` does not come from the system.

    Args:
        error: what was raised: an OSError, or another library's error that carries the system's number.
        path: what was being written.
        needed: bytes that the write takes, where known.
    """
    number = _system_number(error)
    if number is None:
        return None
    return full_error(error, path, needed) or ArtifactError(
        f"cannot write {path}: {os.strerror(number)}", "check the path and its permissions"
    )


def full_error(error: Exception, path: Path, needed: int | None = None) -> ArtifactError | None:
    """The one-line error where ``error`` says that the disk, the quota or the file-size limit is used up."""
    number = _system_number(error)
    if number is None or number not in _FULL:
        return None
    reason = "no space left" if number == errno.ENOSPC else f"no space left ({os.strerror(number)})"
    needs = f"needs {size_text(needed)}, " if needed is not None else ""
    free = size_text(_free_bytes(path))
    return ArtifactError(
        f"{reason} for {path}: {needs}{free} free", "free some space or choose another --out"
    )


def _system_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # polars and safetensors report a failed write in their own types; the system's number is in the text.
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match.group(1)) if match else None


def _free_bytes(path: Path) -> int:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return 0


@contextmanager
def storage_errors(path: Path, needed: int | None = None) -> Generator[None]:
    """Turn what the file system refuses in the block into ``storage_error``'s one line."""
    try:
        yield
    except Exception as error:
        translated = storage_error(error, path, needed)
        if translated is None:
            raise
        raise translated from error


@contextmanager
def atomic_file(path: Path | str, needed: int | None = None) -> Generator[IO[bytes]]:
    """Write a file whole or not at all.

    Args:
        path: the file; its folder must exist.
        needed: bytes that will be written, where known, for the message when the disk is full.

    Yields:
        A binary file under a temporary name, renamed to ``path`` at the end of the block.

    Raises:
        ArtifactError: no space left, or the folder is missing or read-only; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}{_TEMPORARY}{secrets.token_hex(4)}")
    with storage_errors(path, needed):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left below ``folder``."""
    for path in folder.rglob(f".*{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def unreadable(path: Path | str, error: OSError) -> ArtifactError:
    """The one-line error for a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} does not exist", REMAKE)
    return ArtifactError(f"cannot read {path}: {error.strerror or one_line(error)}", "check its permissions")


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split())
