"""Counts in words, for messages."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 row``, ``12,000 rows``.

    Args:
        number: how many, at least 0.
        noun: of one.
        plural: of several; default: ``noun`` with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
