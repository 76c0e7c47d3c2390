"""From architecture parameters to an architecture.

    argmax      each edge takes its most probable operation
    darts       so, and each node keeps its two edges whose operation is most probable; the others become ``none``

``none`` is left out of the choice unless it is allowed (published: allowed). ``max_skips`` caps the identity
operations of a cell, for searches drift to them: the least certain of too many take their next best operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from recdistill.errors import OptionError
from recdistill.models.architecture import OPERATIONS, SPACES, Architecture

Policy = Literal["argmax", "darts"]


def space(names: str | Sequence[str], causal: bool = True) -> tuple[str, ...]:
    """The candidates of a search: a space by name, or operations by name.

    Raises:
        OptionError: an unknown name, no operation but ``none``, or, where ``causal``, one that looks ahead.
    """
    if isinstance(names, str) and names not in SPACES:
        raise OptionError(
            f"no space is called '{names}'", f"known: {', '.join(SPACES)}, or a list of operations"
        )
    found = tuple(SPACES[names]) if isinstance(names, str) else tuple(dict.fromkeys(names))
    unknown = [name for name in found if name not in OPERATIONS]
    if unknown:
        raise OptionError(f"no operation is called '{unknown[0]}'", f"known: {', '.join(OPERATIONS)}")
    if not set(found) - {"none"}:
        usable = (one for one in OPERATIONS.values() if one.causal or not causal)
        others = ", ".join(one.name for one in usable if one.name != "none")
        raise OptionError(
            f"the search space holds no operation, found [{', '.join(found)}]",
            f"name one or more of {others}",
        )
    ahead = [name for name in found if not OPERATIONS[name].causal]
    if causal and ahead:
        raise OptionError(
            f"what looks ahead sees the item that is to be predicted, and a search would choose it for that; found"
            f" {', '.join(ahead)}",
            "use operations that look back, or --set search.causal=false to replicate the published search",
        )
    return found


def derive(
    alpha: Tensor,
    names: Sequence[str],
    *,
    policy: Policy = "argmax",
    allow_none: bool = False,
    max_skips: int | None = None,
) -> Architecture:
    """The architecture that ``alpha`` prefers; equal preferences go to the operation listed first.

    Args:
        alpha: shape ``(edges, operations)``.
        names: the candidates, in the order of its columns.
        policy: see above.
        allow_none: ``none`` may be chosen.
        max_skips: identity operations of a cell at most, at least 0; any number without it.
    """
    scores = log_shares(alpha, names, allow_none)
    best = scores.argmax(dim=1)
    if max_skips is not None and "skip" in names:
        best = _without_skips(scores, best, list(names).index("skip"), max_skips)
    picked: list[str] = [names[int(place)] for place in best]
    if policy == "darts":
        strength = log_shares(alpha, names, True).gather(1, best[:, None])[:, 0]
        picked = _two_strongest(picked, strength)
    return Architecture.from_edges(picked)


def log_shares(alpha: Tensor, names: Sequence[str], allow_none: bool) -> Tensor:
    """log softmax(α) in float64; −inf for ``none`` where it is not allowed."""
    scores = torch.log_softmax(alpha.detach().double().cpu(), dim=1)
    if not allow_none and "none" in names:
        scores[:, list(names).index("none")] = -torch.inf
    return scores


def _without_skips(scores: Tensor, best: Tensor, skip: int, most: int) -> Tensor:
    others = scores.clone()
    others[:, skip] = -torch.inf
    found = (best == skip).nonzero()[:, 0]
    lost = scores[found, skip] - others[found].max(dim=1).values  # what giving it up costs
    given_up = found[lost.sort(stable=True).indices[: max(0, len(found) - most)]]
    given_up = given_up[torch.isfinite(others[given_up].max(dim=1).values)]
    best = best.clone()
    best[given_up] = others[given_up].argmax(dim=1)
    return best


def _two_strongest(picked: list[str], strength: Tensor) -> list[str]:
    kept = list(picked)
    start, size = 0, 1
    while start < len(picked):
        order = strength[start : start + size].sort(descending=True, stable=True).indices
        for place in order[2:].tolist():
            kept[start + place] = "none"
        start, size = start + size, size + 1
    return kept


def entropy(alpha: Tensor) -> float:
    """Mean over edges of the entropy of softmax(α), in nats."""
    shares = torch.log_softmax(alpha.detach().double(), dim=-1)
    return float(-(shares.exp() * shares).sum(dim=-1).mean())
