"""Milliseconds of each kernel beside its plain-torch twin, at the size of CiteULike with batches of 2,048 pairs.

    python benchmarks/ops.py [--threads N] [--only WORD …]

5,219 users and 25,181 items; 1,240 distinct users a step. For each, the best of a few rounds: what the machine can
do when nothing else runs. The last table shows kernels called in turn with torch operations, which share a pool
of threads with them: the sum should be what the two take alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recdistill import ops

USERS, ITEMS = 5_219, 25_181
ADAM: dict[str, Any] = {
    "step": 3, "learning_rate": 1e-3, "betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 1e-5,
}  # fmt: skip
ADAGRAD: dict[str, Any] = {"learning_rate": 1e-1, "epsilon": 1e-8, "weight_decay": 0.0}


class Case(NamedTuple):
    name: str
    kernel: Callable[[], object]
    twin: Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", default=[""], metavar="WORD", help="cases whose name has a word")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    cases = [case for case in all_cases() if any(word in case.name for word in arguments.only)]
    print(f"{arguments.threads} threads, best of several rounds, milliseconds\n")
    print(f"| {'case':<57} | kernel |    twin | ratio |\n|{'-' * 59}|-------:|--------:|------:|")
    for name, kernel, twin in cases:
        fast, slow = milliseconds(kernel), milliseconds(twin, rounds=6, shortest=0.005)
        print(f"| {name:<57} | {fast:6.3f} | {slow:7.2f} | {slow / fast:5.1f} |", flush=True)
    if arguments.only == [""]:
        interplay()


def milliseconds(call: Callable[[], object], rounds: int = 40, shortest: float = 0.005) -> float:
    """Best mean of a few rounds, each at least as long as ``shortest`` seconds."""
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, int(shortest / (time.perf_counter() - start + 1e-9)))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, (time.perf_counter() - start) / repeats)
    return 1e3 * best


def all_cases() -> list[Case]:
    cases = [case for dim in (20, 400) for case in (*score_cases(dim), *optimiser_cases(dim))]
    return [*cases, list_case(), *sampling_cases(), *row_cases()]


def score_cases(dim: int) -> list[Case]:
    users, items = torch.randn(USERS, dim, requires_grad=True), torch.randn(ITEMS, dim, requires_grad=True)

    def forward_backward(function: Callable[..., Tensor], at: Tensor, ids: Tensor, by: Tensor) -> object:
        return torch.autograd.grad(function(users, items, at, ids), (users, items), by)

    cases: list[Case] = []
    shapes = {"1,240 users x 300 items": (distinct_users(), 300), "2,048 rows x 2 items": (any_users(), 2)}
    for name, (at, width) in shapes.items():
        ids, by = torch.randint(ITEMS, (len(at), width)), torch.randn(len(at), width)
        given = at, ids, by
        cases.append(
            Case(
                f"scores_at and gradients, {name}, dim {dim}",
                lambda given=given: forward_backward(ops.scores_at, *given),
                lambda given=given: forward_backward(ops.scores_at_reference, *given),
            )
        )
    return cases


def optimiser_cases(dim: int) -> list[Case]:
    """All 30,400 rows of users and items, of which a step of pairs touches some 5,600."""
    rows = USERS + ITEMS
    state = [torch.randn(rows, dim), torch.zeros(rows, dim), torch.zeros(rows, dim)]
    squares, slots = torch.zeros(rows), ops.row_slots(rows)
    ids = torch.cat([any_users(), torch.randint(USERS, rows, (2 * 2_048,))])
    pair, dense = (ids, torch.randn(len(ids), dim)), torch.randn(rows, dim)
    return [
        Case(
            f"adam_all, dense gradient, dim {dim}",
            lambda: ops.adam_all(*state, dense, **ADAM),
            lambda: ops.adam_all_reference(*state, dense, **ADAM),
        ),
        Case(
            f"adam_all, 6,144 row gradients, dim {dim}",
            lambda: ops.adam_all(*state, pair, slots=slots, **ADAM),
            lambda: ops.adam_all_reference(*state, pair, **ADAM),
        ),
        Case(
            f"adam_touched, 6,144 row gradients, dim {dim}",
            lambda: ops.adam_touched(*state, pair, slots=slots, **ADAM),
            lambda: ops.adam_touched_reference(*state, pair, **ADAM),
        ),
        Case(
            f"rowwise_adagrad, 6,144 row gradients, dim {dim}",
            lambda: ops.rowwise_adagrad(state[0], squares, pair, slots=slots, **ADAGRAD),
            lambda: ops.rowwise_adagrad_reference(state[0], squares, pair, **ADAGRAD),
        ),
    ]


def list_case() -> Case:
    first, second = torch.randn(1_240, 100, requires_grad=True), torch.randn(1_240, 200, requires_grad=True)
    by = torch.randn(1_240)

    def forward_backward(function: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(function(first, second), (first, second), by)

    return Case(
        "plackett_luce and gradients, 1,240 x (100 + 200)",
        lambda: forward_backward(ops.plackett_luce),
        lambda: forward_backward(ops.plackett_luce_reference),
    )


def sampling_cases() -> list[Case]:
    indptr, items = interactions()
    generator = torch.Generator().manual_seed(0)
    rows, everyone = torch.randint(USERS, (1_000_000,)), torch.arange(USERS)
    lengths = torch.full((USERS,), 500)
    table = indptr, items, ITEMS
    return [
        Case(
            "draw_unobserved, 1,000,000 users x 1",
            lambda: ops.draw_unobserved(*table, rows, 1, generator),
            lambda: ops.draw_unobserved_reference(*table, rows, 1, generator),
        ),
        Case(
            "draw_unobserved, 5,219 x 200, no replacement",
            lambda: ops.draw_unobserved(*table, everyone, 200, generator, False),
            lambda: ops.draw_unobserved_reference(*table, everyone, 200, generator, False),
        ),
        Case(
            "sample_positions, 5,219 x 100 of 500, T 10",
            lambda: ops.sample_positions(lengths, 100, 10.0, generator),
            lambda: ops.sample_positions_reference(lengths, 100, 10.0, generator),
        ),
    ]


def row_cases() -> list[Case]:
    indptr, items = interactions()
    everyone, ids = torch.arange(USERS), torch.randint(ITEMS, (USERS, 200))
    some = any_users()
    return [
        Case(
            "contains, 5,219 x 200",
            lambda: ops.contains(indptr, items, everyone, ids),
            lambda: ops.contains_reference(indptr, items, everyone, ids),
        ),
        Case(
            "unique_inverse, 2,048 of 5,219",
            lambda: ops.unique_inverse(some, USERS),
            lambda: ops.unique_inverse_reference(some),
        ),
    ]


def interplay() -> None:
    """A kernel and a torch operation in turn: neither waits for the other's threads."""
    users, items, wide = torch.randn(USERS, 20), torch.randn(ITEMS, 20), torch.randn(1_240, 4_000)
    at, ids = distinct_users(), torch.randint(ITEMS, (1_240, 300))

    def kernel() -> object:
        return ops.scores_at(users, items, at, ids)

    def in_torch() -> object:
        return wide.exp()

    alone = milliseconds(kernel), milliseconds(in_torch)
    both = milliseconds(lambda: (kernel(), in_torch()))
    print(f"\nscores_at {alone[0]:.3f} + exp in torch {alone[1]:.3f} = {sum(alone):.3f}; in turn {both:.3f}")


def interactions() -> tuple[Tensor, Tensor]:
    """Users with 19 items each, as CSR."""
    width = 19
    items = torch.stack([torch.randperm(ITEMS)[:width].sort().values for _ in range(USERS)])
    return torch.arange(0, USERS * width + 1, width), items.flatten().int()


def distinct_users() -> Tensor:
    return torch.randperm(USERS)[:1_240].sort().values


def any_users() -> Tensor:
    return torch.randint(USERS, (2_048,))


if __name__ == "__main__":
    main()
