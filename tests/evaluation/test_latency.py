"""Measured latency: what is timed, and how its parts add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.data.vocabulary import Vocabulary
from recdistill.evaluation import latency
from recdistill.evaluation.ensembles import _in_turn
from recdistill.evaluation.latency import measure
from recdistill.models.bpr import BPR


def model(num_users: int = 20, num_items: int = 50) -> BPR:
    train = Interactions.from_events([0], [0], num_users, num_items)
    built = BPR(dim=4)
    built.build(train, torch.Generator().manual_seed(0))
    users = Vocabulary.from_ids([f"u{n}" for n in range(num_users)], "user_id")
    built.attach(users, Vocabulary.from_ids(list(range(num_items)), "item_id"), train)
    return built


def test_batches_and_parts() -> None:
    found = measure(model(), seconds=0.05)
    assert [entry["batch"] for entry in found] == [1, 256]
    for entry in found:
        assert 0 < entry["p50"] <= entry["p99"]
        assert 0 < entry["scoring"] <= entry["scoring_p99"]
        assert 0 <= entry["lists"] <= entry["p50"]
        assert entry["repeats"] >= 5


def test_requests_are_of_external_ids_and_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    clock = iter(range(1_000_000))
    monkeypatch.setattr(
        latency.time, "perf_counter", lambda: float(next(clock))
    )  # every call takes one second
    built = model()

    def recommend(users: Sequence[str], k: int) -> None:
        asked.append((len(users), k))
        assert set(users) <= {f"u{n}" for n in range(20)}

    monkeypatch.setattr(built, "recommend", recommend)
    (entry,) = measure(built, seconds=24.0, batches=(3,))
    assert entry["repeats"] == 12  # each request and its scoring take a second
    assert asked == [(3, 10)] * (12 + 3)
    assert entry["p50"] == entry["p99"] == entry["scoring"] == 1000.0
    assert entry["lists_p99"] == 0.0


def test_models_without_vectors_are_scored_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_TILE", 120)
    sizes: list[int] = []

    class Dense:
        num_items = 50

        def score_vectors(self) -> None:
            return None

        def scores(self, users: torch.Tensor) -> torch.Tensor:
            sizes.append(len(users))
            return torch.zeros(len(users), 50)

    latency._score(Dense(), torch.arange(5))
    assert sizes == [2, 2, 1]


def test_an_ensemble_takes_as_long_as_its_teachers_together() -> None:
    names = ("p50", "p99", "scoring", "scoring_p99", "lists", "lists_p99")
    one: Any = {"batch": 1, "repeats": 5, "threads": 1, **{name: n + 1.0 for n, name in enumerate(names)}}
    other: Any = {**one, "repeats": 3, "encoding": 2.0, "encoding_p99": 4.0}
    (found,) = _in_turn([[one], [other]])
    assert [found[name] for name in names] == [2, 4, 6, 8, 10, 12]
    assert (found.get("encoding"), found["repeats"]) == (2.0, 3)
