"""The compact letter display: models that share a letter do not differ significantly."""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence


def significance_letters(names: Sequence[str], different: Collection[frozenset[str]]) -> dict[str, str]:
    """Give each model the letters of the groups that it belongs to.

    Two models share a letter exactly if they do not differ (Piepho, 2004: insert a column for each
    difference, absorb columns that another one covers).

    Args:
        names: the models, best first: the best one has the letter ``a``.
        different: the pairs that differ significantly.

    Returns:
        letters by name.

    >>> significance_letters(["x", "y", "z"], [frozenset({"x", "z"})])
    {'x': 'a', 'y': 'ab', 'z': 'b'}
    """
    columns = [frozenset(names)]
    for pair in sorted(different, key=sorted):
        split = [part for column in columns for part in _split(column, pair)]
        columns = [one for one in dict.fromkeys(split) if not any(one < other for other in split)]
    order = {name: place for place, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(order[name] for name in column))
    return {
        name: "".join(_letter(place) for place, column in enumerate(columns) if name in column)
        for name in names
    }


def _split(column: frozenset[str], pair: frozenset[str]) -> list[frozenset[str]]:
    return [column - {name} for name in sorted(pair)] if pair <= column else [column]


def _letter(place: int) -> str:
    """``a`` to ``z``, then ``A`` to ``Z``, then ``(52)`` and on."""
    return string.ascii_letters[place] if place < 52 else f"({place})"
