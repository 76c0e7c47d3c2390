"""Counts agree with their nouns."""

from __future__ import annotations

from recdistill.wording import counted


def test_counts() -> None:
    assert [counted(number, "row") for number in (0, 1, 12_000)] == ["0 rows", "1 row", "12,000 rows"]
    assert [counted(number, "user has", "users have") for number in (1, 2)] == ["1 user has", "2 users have"]
