"""How long a model takes from external user ids to external item ids, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from recdistill.models.base import Recommender, State
from recdistill.models.recommend import known_users

BATCHES = (1, 256)
_K = 10
_REQUESTS = 16  # different requests, taken in turn
_WARM_UPS = 3
_MIN_REPEATS = 5
_MAX_REPEATS = 1000

_TILE = 1 << 22  # scores held at once


class Latency(TypedDict):
    """Milliseconds a request.

    Attributes:
        batch: users a request.
        p50, p99: of a whole request: from external user ids to a table of their top 10 external item ids,
            seen items left out.
        scoring, scoring_p99: of scoring all items for the same users, nothing kept; median and 99th percentile.
        lists, lists_p99: of the rest (looking up ids, masking, selecting, building the table): request by request
            the whole minus the scoring and the encoding, at least 0.
        encoding, encoding_p99: of turning the same users' histories into vectors (sequence models alone); scoring
            then starts from these vectors, and lists are what neither takes.
        repeats: requests timed, after warm-up.
        threads: threads of torch.
    """

    batch: int
    p50: float
    p99: float
    scoring: float
    scoring_p99: float
    lists: float
    lists_p99: float
    encoding: NotRequired[float]
    encoding_p99: NotRequired[float]
    repeats: int
    threads: int


def measure(model: Recommender, seconds: float = 1.0, batches: Sequence[int] = BATCHES) -> list[Latency]:
    """Time requests of several batch sizes.

    Args:
        model: with vocabularies attached; put into eval mode.
        seconds: what all of it may take, about; slow models are still timed 5 times a batch size.
        batches: users a request, of those with train rows; they repeat where there are fewer.
    """
    model.eval()
    users, _ = model.vocabularies()
    known = known_users(model)
    encoder = _Encoder(model) if model.sequential and model.train_pairs is not None else None
    with torch.no_grad():
        state = None if encoder is not None else model.state(None)
    generator = torch.Generator().manual_seed(0)
    found: list[Latency] = []
    for batch in batches:
        picks = known[torch.randint(len(known), (_REQUESTS, batch), generator=generator)]
        requests = [users.ids(pick) for pick in picks]
        calls: list[Callable[[int], object]] = [lambda turn, asked=requests: model.recommend(asked[turn], _K)]
        if encoder is None:
            calls.append(lambda turn, rows=picks: _score(state, rows[turn]))
        else:
            calls += encoder.calls(picks)
        whole, *parts = _time(calls, seconds / len(batches))
        scoring = parts[-1]
        lists = [max(total - sum(part), 0.0) for total, *part in zip(whole, *parts, strict=True)]
        p50, p99 = _quantiles(whole)
        scoring_p50, scoring_p99 = _quantiles(scoring)
        lists_p50, lists_p99 = _quantiles(lists)
        entry = Latency(
            batch=batch,
            p50=p50,
            p99=p99,
            scoring=scoring_p50,
            scoring_p99=scoring_p99,
            lists=lists_p50,
            lists_p99=lists_p99,
            repeats=len(whole),
            threads=torch.get_num_threads(),
        )
        if encoder is not None:
            entry["encoding"], entry["encoding_p99"] = _quantiles(parts[0])
        found.append(entry)
    return found


class _Encoder:
    """The parts of a sequence model's request: vectors of the users asked for, then their scores."""

    def __init__(self, model: Recommender) -> None:
        assert model.train_pairs is not None
        self._model, self._histories = model, model.train_pairs
        self._state: State | None = None

    def calls(self, picks: Tensor) -> list[Callable[[int], object]]:
        """What is timed for the requests of users ``picks`` (requests, batch)."""
        return [lambda turn: self.encode(picks[turn]), lambda turn: self.score()]

    @torch.no_grad()
    def encode(self, users: Tensor) -> None:
        self._state = self._model.fold_in(self._histories.event_rows(users))
        assert self._state is not None
        self._state.score_vectors()

    def score(self) -> None:
        assert self._state is not None
        _score(self._state, torch.arange(self._state.num_users))


@torch.no_grad()
def _score(state: State | None, users: Tensor) -> None:
    """Score all items, in tiles of bounded size."""
    assert state is not None
    vectors = state.score_vectors()
    if vectors is None:
        width = max(1, _TILE // max(state.num_items, 1))
        for start in range(0, len(users), width):
            state.scores(users[start : start + width])
        return
    rows = vectors.users[users.to(vectors.users.device)]
    width = max(1, _TILE // max(len(users), 1))
    for start in range(0, state.num_items, width):
        torch.mm(rows, vectors.items[start : start + width].T)
    if rows.is_cuda:
        torch.cuda.synchronize()


def _time(calls: Sequence[Callable[[int], object]], seconds: float) -> list[list[float]]:
    """Milliseconds of each call, taken in turn, request by request, after warm-up."""
    taken: list[list[float]] = [[] for _ in calls]
    spent = 0.0
    turn = -_WARM_UPS
    while turn < _MIN_REPEATS or (spent < seconds and turn < _MAX_REPEATS):
        for call, record in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call(turn % _REQUESTS)
            passed = time.perf_counter() - start
            if turn >= 0:
                record.append(1000 * passed)
                spent += passed
        turn += 1
    return taken


def _quantiles(milliseconds: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    middle, late = torch.quantile(
        torch.tensor(milliseconds, dtype=torch.float64), torch.tensor([0.5, 0.99], dtype=torch.float64)
    ).tolist()
    return middle, late
