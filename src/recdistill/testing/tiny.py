"""Small data with the awkward cases in it, models built for it, and watches over what is allocated."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from recdistill.data.interactions import Interactions
from recdistill.models.base import Batch, Recommender
from recdistill.models.sampling import make_batch
from recdistill.ops import owners_of

CPU = torch.device("cpu")


def tiny_interactions(num_users: int = 9, num_items: int = 14, seed: int = 0) -> Interactions:
    """Random pairs with the awkward cases in them.

    User 0 has one item, user 1 all but three, user 2 none, the last item is observed by nobody.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(num_users, num_items, generator=generator) < 0.3
    seen[0] = False
    seen[0, 1] = True
    seen[1] = True
    seen[1, :2] = False
    seen[2] = False
    seen[:, -1] = False
    users, items = torch.nonzero(seen, as_tuple=True)
    return Interactions.from_events(users, items, num_users, num_items)


def tiny_sequences(num_items: int = 14, seed: int = 0) -> Interactions:
    """Events in order with the awkward cases in them.

    User 0 has one event, user 1 two, user 2 none, user 3 forty on all items but the last two, user 4 one item three
    times, users 5 to 8 a few at random, with repeats and gaps between positions. The last item is observed by nobody.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([1, 2, 0, 40, 3, 5, 4, 9, 17])
    users = owners_of(lengths)
    items = torch.randint(num_items - 2, users.shape, generator=generator)
    items[users == 3] = torch.arange(40) * 5 % (num_items - 2)
    items[users == 4] = 6
    positions = 3 * torch.arange(len(users)) + 1
    return Interactions.from_events(users, items, len(lengths), num_items, positions=positions)


def sparse_interactions(users: int, items: int) -> Interactions:
    """20,000 random pairs, so few that a block of users × items would stand out."""
    generator = torch.Generator().manual_seed(0)
    pairs = (
        torch.randint(0, users, (20_000,), generator=generator),
        torch.randint(0, items, (20_000,), generator=generator),
    )
    return Interactions.from_events(*pairs, users, items)


def built(model: Recommender, interactions: Interactions, seed: int = 1, scale: float = 50.0) -> Recommender:
    """``model`` built for ``interactions``, its parameters spread so that losses are not flat."""
    model.build(interactions, torch.Generator().manual_seed(seed))
    if model.closed_form:
        model.fit(interactions, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def batch_of(interactions: Interactions, rows: int | None = None, seed: int = 2) -> Batch:
    """A batch of ``rows`` observed pairs (all by default), one negative each."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(interactions.num_pairs, generator=generator)[:rows]
    users = interactions.users[chosen].long()
    negatives = interactions.sample_unobserved(users, 1, generator)
    return make_batch(
        users, interactions.items[chosen].long(), negatives, interactions.num_users, interactions.num_items
    )


def make_batches(model: Recommender, interactions: Interactions, seed: int = 4) -> Iterator[Batch]:
    """One epoch of the model's batches of at most 7 rows."""
    return model.batches(interactions, 7, torch.Generator().manual_seed(seed))


def assert_finite_scalar(loss: Tensor, where: str = "") -> None:
    assert loss.dim() == 0, f"the loss has shape {tuple(loss.shape)}; expected a scalar"
    assert bool(torch.isfinite(loss)), f"the loss{where} is {float(loss.detach())}"


def reached(parameters: Iterator[Any] | list[Any]) -> bool:
    """Whether a gradient other than 0 has come to any of ``parameters``."""
    return any(p.grad is not None and bool(p.grad.to_dense().abs().sum() > 0) for p in parameters)


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any torch operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.operation = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in tree_iter(found):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                elements = value.untyped_storage().size() // max(value.element_size(), 1)
                if elements > self.elements:
                    self.elements, self.operation = elements, str(func)
        return found


class _Peak:
    """Bytes by which the process grew at most; None where the system does not tell."""

    bytes: int | None = None


@contextmanager
def peak_memory() -> Generator[_Peak]:
    """Watch what the process takes at most, by whatever library and thread (Linux)."""
    peak = _Peak()
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not there to be taken again
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark is that of now
        before = _resident("VmRSS")
    except (AttributeError, OSError):
        yield peak
        return
    yield peak
    peak.bytes = _resident("VmHWM") - before


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


@contextmanager
def largest_tensor() -> Generator[_Largest]:
    """Watch torch operations: ``elements`` of the largest tensor made, and its ``operation``."""
    with _Largest() as watch:
        yield watch
