"""The errors that a caller can mend; the command line prints each as one line and exits with 2."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar


class RecdistillError(Exception):
    """Something the caller can mend.

    Args:
        message: one line that says what was expected and what was found.
        hint: one line that says what to do, or empty.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class OptionError(RecdistillError):
    """An option that does not exist, is of the wrong type, or is out of range."""

    kind = "options"


class DataError(RecdistillError):
    """Interactions that cannot be read, or that leave nothing to train or test on."""

    kind = "data"


class MissingKnowledgeError(RecdistillError):
    """A method reads a kind of knowledge that the teacher's store does not hold."""

    kind = "knowledge"


class ArtifactError(RecdistillError):
    """A directory that is missing, damaged, locked, of another kind, or made by a newer version."""

    kind = "artifact"


class OutOfMemoryError(RecdistillError):
    """More memory was asked for than there is."""

    kind = "memory"


@contextmanager
def memory_told() -> Generator[None]:
    """Raise what libraries say of a failed allocation, each in its own way, as :class:`OutOfMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).partition("\n")[0]
        known = any(
            sign in text for sign in ("DefaultCPUAllocator", "out of memory", "Storage size calculation")
        )
        if not (isinstance(error, MemoryError) or known):
            raise
        raise OutOfMemoryError(
            f"not enough memory: {text}", "choose smaller options, such as depths, counts and batch_size"
        ) from error
