"""How figures are written."""

from __future__ import annotations

import pytest

from recdistill.reporting import numbers


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.634, "63"),
        (0.0493, "4.9"),
        (0.05, "5"),
        (1.0, "100"),
        (0.998, "99.8"),
        (0.99996, "99.996"),
        (1.0004, "100.04"),
        (0.0, "0"),
        (0.0004, "0.04"),
        (-0.0812, "−8.1"),
        (1.24, "124"),
        (1.0 - 1e-12, "100"),
    ],
)
def test_percentages_are_short_and_never_round_to_all_or_nothing(share: float, text: str) -> None:
    assert numbers.percent(share) == f"{text}\u202f%"


@pytest.mark.parametrize(
    ("key", "name"),
    [("ndcg@10", "NDCG@10"), ("tail_recall@20", "Tail recall@20"), ("popularity_lift", "Popularity lift"),
     ("hit@5", "Hit rate@5"), ("mrr@10", "MRR@10")],
)  # fmt: skip
def test_metrics_have_names(key: str, name: str) -> None:
    assert numbers.metric_name(key) == name


def test_sizes_and_counts_have_units() -> None:
    assert numbers.size(264_344) == "264\u202fkB"
    assert numbers.size(5_280_344) == "5.28\u202fMB"
    assert numbers.size(999_900) == "1\u202fMB"
    assert numbers.size(12) == "12\u202fbytes"
    assert numbers.count(66_000) == "66,000"
    assert numbers.count(1_320_000) == "1.32\u202fM"


def test_times_keep_three_digits() -> None:
    assert [numbers.milliseconds(value) for value in (0.4312, 12.34, 1234.5, 0.0)] == [
        "0.431",
        "12.3",
        "1,234",
        "0",
    ]
    assert numbers.seconds(0.214) == "0.21\u202fs"
    assert numbers.seconds(125) == "2\u202fmin 5\u202fs"
    assert numbers.seconds(12_000) == "3\u202fh 20\u202fmin"
    assert [numbers.times(value) for value in (0.5, 1.94, 123.4)] == ["0.50", "1.9", "123"]


def test_probabilities_have_a_floor() -> None:
    assert numbers.probability(0.0004) == "p\u00a0<\u00a00.001"
    assert numbers.probability(0.0214) == "p\u00a0=\u00a00.021"


def test_differences_carry_their_sign() -> None:
    assert numbers.metric(0.0213, difference=True) == "+0.0213"
    assert numbers.metric(-0.0213) == "−0.0213"


def test_options_read_as_in_a_run_file() -> None:
    values = [None, True, "adam", 5e-7, 0.001, 20, ["a", 0.5], 1 / 3]
    written = ["not set", "true", '"adam"', "5e-07", "0.001", "20", '["a", 0.5]', "0.3333333333333333"]
    assert [numbers.plain(value) for value in values] == written
