"""Counts and near names in words, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 row``, ``12,000 rows``.

    Args:
        number: how many, at least 0.
        noun: of one.
        plural: of several; default: ``noun`` with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``did you mean NAME?`` for the nearest of ``names``, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""
