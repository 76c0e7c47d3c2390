"""Permutation tests, Holm's correction and bootstrap intervals against exact and known answers."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from recdistill.evaluation import significance
from recdistill.evaluation.significance import Bootstrap, holm, interval, sign_flip_test


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_p(differences: Tensor) -> float:
    patterns = torch.tensor(list(product((-1.0, 1.0), repeat=len(differences))), dtype=torch.float64)
    sums = (patterns @ differences).abs()
    return float((sums >= differences.sum().abs() - 1e-12).double().mean())


def test_agrees_with_all_sign_patterns() -> None:
    differences = torch.tensor(
        [[0.3, 0.1], [0.2, -0.4], [0.5, 0.3], [-0.1, 0.2], [0.4, -0.1], [0.2, 0.1]]
    ).double()
    found = sign_flip_test(differences, generator(), permutations=40_000)
    for column in range(2):
        assert found[column].item() == pytest.approx(exact_p(differences[:, column]), abs=0.01)


def test_smallest_p_is_one_over_permutations_plus_one() -> None:
    differences = torch.ones(60, 1, dtype=torch.float64)
    assert sign_flip_test(differences, generator(), permutations=999).item() == 1 / 1000


def test_no_difference_is_p_one() -> None:
    assert sign_flip_test(torch.zeros(10, 2, dtype=torch.float64), generator()).tolist() == [1.0, 1.0]
    assert sign_flip_test(torch.zeros(0, 1, dtype=torch.float64), generator()).tolist() == [1.0]


def test_sums_equal_but_for_rounding_count_as_reached() -> None:
    # with .1 + .2 - .3 the rounding of sums differs by pattern; every |sum| of ±x, ±x reaches |0|
    differences = torch.tensor([[0.1], [0.2], [-0.3]], dtype=torch.float64)
    assert sign_flip_test(differences, generator(), permutations=500).item() == 1.0


def test_seed_decides_and_blocks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = torch.randn(40, 2, generator=generator(3), dtype=torch.float64) + 0.2
    first = sign_flip_test(differences, generator(1), permutations=2000)
    assert torch.equal(first, sign_flip_test(differences, generator(1), permutations=2000))
    assert not torch.equal(first, sign_flip_test(differences, generator(2), permutations=2000))
    assert first.min() > 0


def test_false_alarms_are_as_rare_as_promised() -> None:
    # 400 comparisons of models that are alike: about 5 % fall below .05
    differences = torch.randn(50, 400, generator=generator(5), dtype=torch.float64)
    share = (sign_flip_test(differences, generator(), permutations=2000) < 0.05).double().mean()
    assert 0.02 < share < 0.08


def test_many_users_are_tested_in_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = torch.randn(4000, 300, generator=generator(7), dtype=torch.float64)
    differences[:, 0] += 0.15  # nearly ten standard errors
    monkeypatch.setattr(significance, "MAX_UNITS", 256)
    found = sign_flip_test(differences, generator(), permutations=1000)
    assert found[0] == 1 / 1001
    assert 0.02 < (found[1:] < 0.05).double().mean() < 0.09


def test_holm_by_hand() -> None:
    corrected = holm(torch.tensor([0.01, 0.04, 0.03, 0.5], dtype=torch.float64))
    # sorted .01 .03 .04 .5 times 4 3 2 1, then never smaller than the one before
    assert corrected.tolist() == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm(torch.tensor([0.9, 0.8], dtype=torch.float64)).tolist() == [1.0, 1.0]
    assert holm(torch.empty(0, dtype=torch.float64)).tolist() == []


@pytest.mark.parametrize("units", [100_000, 300])
def test_bootstrap_interval_matches_the_normal_one(units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "MAX_UNITS", units)
    values = torch.rand(3000, 1, generator=generator(1), dtype=torch.float64)
    samples = Bootstrap(3000, generator(), resamples=2000).means(values)
    low, high = interval(samples[:, 0]) or (0.0, 0.0)
    spread = 1.96 * values.std().item() / 3000**0.5
    assert (high + low) / 2 == pytest.approx(values.mean().item(), abs=spread / 10)
    assert (high - low) / 2 == pytest.approx(spread, rel=0.15)


def test_bootstrap_leaves_missing_values_out() -> None:
    values = torch.tensor([[1.0, 2.0], [torch.nan, 4.0], [1.0, 6.0]], dtype=torch.float64)
    samples = Bootstrap(3, generator(), resamples=200).means(values)
    drawn = samples[:, 0][~samples[:, 0].isnan()]
    assert torch.equal(drawn, torch.ones_like(drawn))
    assert samples[:, 0].isnan().any()  # the user without a value, three times
    assert set(samples[:, 1].unique().tolist()) <= {x / 3 for x in range(6, 19, 2)}


def test_columns_share_their_draws() -> None:
    values = torch.rand(30, 1, generator=generator(), dtype=torch.float64)
    samples = Bootstrap(30, generator(), resamples=50).means(torch.cat([values, 2 * values], dim=1))
    torch.testing.assert_close(samples[:, 1], 2 * samples[:, 0])


def test_no_interval_without_samples() -> None:
    assert interval(torch.tensor([torch.nan, torch.inf], dtype=torch.float64)) is None


def test_a_user_alike_in_one_comparison_counts_in_the_others() -> None:
    column = torch.ones(8, dtype=torch.float64)
    other = torch.zeros(8, dtype=torch.float64)
    other[0] = 1.0
    found = sign_flip_test(torch.stack([column, other], dim=1), generator(), 40_000)
    assert found[0].item() == pytest.approx(2 / 2**8, abs=0.002)
    assert found[1].item() == 1.0


def test_the_generator_decides_the_bootstrap() -> None:
    values = torch.rand(30, 1, generator=generator(), dtype=torch.float64)
    one, same, other = (Bootstrap(30, generator(seed), 50).means(values) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
