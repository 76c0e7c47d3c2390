"""How figures are written on the page: fixed decimals, decimal units, percentages that never lie."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

# Spaces that keep what they join on one line; between a figure and its unit a thin one.
_THIN = "\u202f"
_FIXED = "\u00a0"
MINUS = "\u2212"


@dataclass(frozen=True)
class Missing:
    """A value that is absent, with the reason that the page prints in its place."""

    reason: str


Known = float | Missing


def signed(text: str) -> str:
    """``text`` of a number with a typographic minus."""
    return text.replace("-", MINUS)


def metric(value: float, difference: bool = False) -> str:
    """A metric's value with four decimals; a ``difference`` carries its sign."""
    return signed(f"{value:+.4f}" if difference else f"{value:.4f}")


def percent(share: float) -> str:
    """A share as a percentage, one decimal below ten: .0493 is 4.9 %, .634 is 63 %.

    A share that is not one is not rounded to 100 %, nor one that is not zero to 0 %, within three decimals.
    """
    value = 100 * share
    text = ""
    for decimals in range(0 if abs(value) >= 9.95 else 1, 4):
        text = f"{value:.{decimals}f}"
        if float(text) not in (0.0, 100.0) or float(text) == value:
            break
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{signed(text)}{_THIN}%"


def metric_name(key: str) -> str:
    """A metric's key as people write it: ``ndcg@10`` is NDCG@10, ``tail_recall@20`` is tail recall@20."""
    name, at, cut = key.partition("@")
    known = {"ndcg": "NDCG", "mrr": "MRR", "hit": "Hit rate", "recall": "Recall", "precision": "Precision"}
    words = known.get(name, name.replace("_", " ").capitalize())
    return f"{words}{at}{cut}"


def count(value: float) -> str:
    """A whole number with separators up to 99,999, else three digits with k, M or G."""
    if value < 100_000:
        return f"{value:,.0f}"
    return _scaled(value, 1000.0, ("", "k", "M", "G", "T"))


def size(value: float) -> str:
    """Bytes in decimal units: 1,230,000 is 1.23 MB."""
    return _scaled(value, 1000.0, ("bytes", "kB", "MB", "GB", "TB"))


def _scaled(value: float, base: float, units: tuple[str, ...]) -> str:
    power = 0
    while power < len(units) - 1 and float(f"{value:.3g}") >= base:
        value /= base
        power += 1
    digits = f"{value:.0f}" if power == 0 or value >= 100 else f"{value:.3g}"
    return f"{digits}{_THIN}{units[power]}".rstrip(_THIN)


def milliseconds(value: float) -> str:
    """A latency with three significant digits, without a unit."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 4)}f}"


def times(value: float) -> str:
    """A ratio: one decimal below ten, two below one."""
    if value >= 9.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def seconds(value: float) -> str:
    """A duration: 0.21 s, 43 s, 2 min 5 s, 3 h 20 min."""
    if value < 10:
        return f"{value:.2g}{_THIN}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}{_THIN}s"
    if whole < 3600:
        return f"{whole // 60}{_THIN}min {whole % 60}{_THIN}s"
    return f"{whole // 3600}{_THIN}h {whole % 3600 // 60}{_THIN}min"


def probability(value: float) -> str:
    """A p-value with its relation: ``p = 0.021`` or ``p < 0.001``."""
    text = p_value(value)
    return f"p {text if value < 0.001 else f'= {text}'}".replace(" ", _FIXED)


def p_value(value: float) -> str:
    """A p-value by itself: ``0.021`` or ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plain(value: object) -> str:
    """A resolved option's value as it would stand in a run file; None is named as not set."""
    match value:
        case None:
            return "not set"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case float():
            return f"{value:g}" if value == float(f"{value:g}") else repr(value)
        case _:
            return json.dumps(value, ensure_ascii=False)
