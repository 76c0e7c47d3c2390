"""Popularity: counts, ties by the smaller index, the conformance kit."""

from __future__ import annotations

import pytest
import torch

from recdistill.errors import OptionError
from recdistill.models.popularity import Popularity
from recdistill.models.ranking import top_items
from recdistill.testing import built, check_model, tiny_interactions


def test_conforms() -> None:
    check_model(Popularity)


def test_items_come_by_count_then_index() -> None:
    interactions = tiny_interactions()
    model = built(Popularity(), interactions)
    ids, _ = top_items(model.frozen(), torch.tensor([2]), interactions.num_items)
    counts = interactions.item_counts.tolist()
    assert ids[0].tolist() == sorted(range(interactions.num_items), key=lambda item: (-counts[item], item))


def test_it_says_that_it_has_no_embeddings() -> None:
    model = built(Popularity(), tiny_interactions())
    with pytest.raises(OptionError, match="popularity has no embeddings; it supplies scores"):
        model.frozen().user_embeddings(torch.tensor([0]))
