"""The synthetic generator: repeatable, long-tailed, in groups, in order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recdistill.data.synthetic import synthetic
from recdistill.errors import OptionError

SMALL = {"num_users": 300, "num_items": 400, "num_interactions": 9000, "num_groups": 5, "dim": 20}


def matrix(table: pl.DataFrame, users: int, items: int) -> np.ndarray:
    taken = np.zeros((users, items))
    taken[table["user_id"].to_numpy(), table["item_id"].str.slice(5).cast(pl.Int64).to_numpy()] = 1
    return taken


def test_same_options_same_table() -> None:
    assert synthetic(**SMALL).equals(synthetic(**SMALL))
    assert not synthetic(**SMALL).equals(synthetic(**SMALL, seed=1))


def test_golden_rows() -> None:
    # The numbers in the documentation rest on these draws: a change needs a new GENERATOR number.
    head = synthetic().head(3)
    assert head["item_id"].to_list() == ["item-0208", "item-2459", "item-0559"]
    assert head["timestamp"].to_list() == [1701886034, 1703708442, 1703765614]


def test_sizes_and_distinct_pairs() -> None:
    table = synthetic(**SMALL)
    assert table["user_id"].n_unique() == 300
    assert table["item_id"].n_unique() <= 400
    assert 0.9 * 9000 <= len(table) <= 9000
    assert not table.select("user_id", "item_id").is_duplicated().any()


def test_popularity_has_a_long_tail() -> None:
    counts = synthetic()["item_id"].value_counts()["count"].sort(descending=True).to_numpy()
    assert counts[: len(counts) // 10].sum() > 0.4 * counts.sum()
    assert np.median(counts) < counts.mean()


def test_many_dimensions_explain_more_than_few() -> None:
    taken = matrix(synthetic(**SMALL, noise=0.0), 300, 400)
    energy = np.linalg.svd(taken - taken.mean(0), compute_uv=False) ** 2
    structureless = np.random.default_rng(0).permuted(taken, axis=0)
    chance = np.linalg.svd(structureless - structureless.mean(0), compute_uv=False) ** 2
    assert energy[:20].sum() > 2 * chance[:20].sum()
    assert energy[:20].sum() > 1.8 * energy[:5].sum()


def test_noise_takes_structure_away() -> None:
    energies = []
    for noise in (0.0, 1.0):
        taken = matrix(synthetic(**SMALL, noise=noise), 300, 400)
        values = np.linalg.svd(taken - taken.mean(0), compute_uv=False) ** 2
        energies.append(values[:20].sum() / values.sum())
    assert energies[0] > 1.5 * energies[1]


def test_times_are_sorted_and_tastes_follow_one_another() -> None:
    table = synthetic(**SMALL, noise=0.0)
    assert table.equals(table.sort("user_id", "timestamp", maintain_order=True))
    assert table["timestamp"].min() >= 1_700_000_000
    # Two items that a user takes in a row share other users oftener than two that lie further apart.
    taken = matrix(table, 300, 400)
    together = taken.T @ taken
    items = table["item_id"].str.slice(5).cast(pl.Int64).to_numpy()
    users = table["user_id"].to_numpy()
    same = users[8:] == users[:-8]
    near = together[items[:-8][same], items[1:-7][same]].mean()
    far = together[items[:-8][same], items[8:][same]].mean()
    assert near > 1.2 * far


@pytest.mark.parametrize(
    "options",
    [
        {"num_users": 2, "num_items": 2, "num_interactions": 4},
        {"num_users": 5, "num_items": 300, "num_interactions": 50, "dim": 1000, "num_groups": 2000},
        {"num_users": 5, "num_items": 30, "num_interactions": 50, "dim": 1, "num_groups": 1},
    ],
)
def test_degenerate_sizes(options: dict[str, int]) -> None:
    table = synthetic(**options)
    assert table["user_id"].n_unique() == options["num_users"]


def test_wrong_options() -> None:
    with pytest.raises(OptionError, match="num_users"):
        synthetic(num_users=0)
    with pytest.raises(OptionError, match="did you mean num_items"):
        synthetic(num_item=3)
