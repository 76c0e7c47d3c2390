"""What sequence models share: losses by hand, batches, negatives, and reads by users in and out of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.errors import DataError, OptionError
from recdistill.models.gru4rec import GRU4Rec
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_batches import Places, sequence_batches
from recdistill.models.sequence_losses import bce, gbce, gbce_weight, sampled_softmax
from recdistill.models.sequential import SequenceModel
from recdistill.testing import built, tiny_sequences

SCORES = torch.tensor([1.2, -0.3, 0.7, 0.0], dtype=torch.float64)


def negatives(*items: int) -> torch.Tensor:
    return SCORES[list(items)][None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_full_softmax() -> None:
    # −1.2 + log(e^1.2 + e^−.3 + e^.7 + 1)
    loss = ops.softmax_cross_entropy(
        torch.ones(1, 1, dtype=torch.float64), SCORES[:, None], torch.tensor([0])
    )
    assert float(loss) == pytest.approx(0.7565233225, abs=1e-9)


def test_sampled_softmax() -> None:
    # −1.2 + log(e^1.2 + e^−.3 + e^.7)
    assert float(sampled_softmax(SCORES[:1], negatives(1, 2))) == pytest.approx(0.6041306053, abs=1e-9)
    # each negative counts 1 / (2 · ⅓)
    uniform = torch.full((2,), 1 / 3, dtype=torch.float64).log()
    found = sampled_softmax(SCORES[:1], negatives(1, 2), uniform)
    assert float(found) == pytest.approx(0.8084788718, abs=1e-9)
    hits = torch.tensor([[False, True]])
    assert float(sampled_softmax(SCORES[:1], negatives(1, 0), hits=hits)) == pytest.approx(
        float(sampled_softmax(SCORES[:1], negatives(1))), abs=1e-12
    )


def test_sampled_softmax_expects_the_sum_of_the_full_one() -> None:
    chances = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    drawn = torch.multinomial(chances, 200_000, replacement=True, generator=seeded())
    hits = (drawn == 0)[None]
    found = sampled_softmax(SCORES[:1], SCORES[drawn][None], chances[drawn].log(), hits)
    assert float(found) == pytest.approx(0.7565233225, abs=5e-3)


def test_bce() -> None:
    # log(1 + e^−1.2) + log(1 + e^−.3)
    assert float(bce(SCORES[:1], negatives(1))) == pytest.approx(0.8176377118, abs=1e-9)
    several = bce(SCORES[:1], negatives(1, 2))
    assert float(several) == pytest.approx(
        float((bce(SCORES[:1], negatives(1)) + bce(SCORES[:1], negatives(2))) / 2), abs=1e-12
    )
    padded = bce(SCORES[:1], negatives(1, 2), torch.tensor([[True, False]]))
    assert float(padded) == pytest.approx(0.8176377118, abs=1e-9)


def test_gbce_of_a_single_item_is_refused() -> None:
    users, items, order = torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([0, 1])
    data = Interactions.from_events(users, items, 1, 1, positions=order)
    model = built(SASRec(dim=4, loss="gbce"), data)
    with pytest.raises(OptionError, match="at least two items; found one"):
        next(model.batches(data, 10, seeded()))


def test_gbce() -> None:
    assert gbce_weight(2, 4, 0.75) == pytest.approx(0.75)
    assert gbce_weight(256, 3416, 0.75) == pytest.approx(0.3062225, abs=1e-7)
    assert float(gbce(SCORES[:1], negatives(1, 2), 4, 0.75)) == pytest.approx(0.6183343813, abs=1e-9)
    # without calibration: BCE's parts, averaged
    plain = float(bce(SCORES[:1], negatives(1)))
    assert float(gbce(SCORES[:1], negatives(1), 4, 0.0)) == pytest.approx(plain / 2, abs=1e-12)


@pytest.mark.parametrize("samples", ["shift-all", "windows", "prefix"])
@pytest.mark.parametrize("batch_size", [1, 6, 1000])
def test_an_epoch_has_each_user_once_and_about_as_many_rows_a_step(samples: Any, batch_size: int) -> None:
    interactions = tiny_sequences()
    batches = list(sequence_batches(interactions, 5, samples, batch_size, seeded()))
    users = torch.cat([batch.users for batch in batches])
    assert sorted(users.tolist()) == [1, 3, 4, 5, 6, 7, 8]
    most = 39 if samples != "shift-all" else 4
    for batch in batches:
        assert bool((batch.users.diff() > 0).all())
        assert len(batch) < batch_size + most
        assert torch.equal(batch.positives, batch.targets[batch.targets >= 0])
        places = batch.places
        assert torch.equal(batch.next_items >= 0, (batch.targets >= 0)[places.mask])
        newest = batch.sequences[batch.newest, -1]
        last = interactions.event_items[interactions.event_indptr[batch.users + 1] - 1]
        assert torch.equal(newest, last.long())
    again = list(sequence_batches(interactions, 5, samples, batch_size, seeded()))
    assert all(torch.equal(a.sequences, b.sequences) for a, b in zip(batches, again, strict=True))
    other = torch.cat([b.users for b in sequence_batches(interactions, 5, samples, 1, seeded(1))])
    assert (
        other.tolist()
        != torch.cat([b.users for b in sequence_batches(interactions, 5, samples, 1, seeded())]).tolist()
    )


def test_sequences_of_one_item_train_nothing() -> None:
    alone = Interactions.from_events([0, 1], [2, 3], 2, 5, positions=[0, 0])
    with pytest.raises(DataError, match="no user has two train rows"):
        next(sequence_batches(alone, 5, "shift-all", 4, seeded()))


def test_places() -> None:
    places = Places(torch.tensor([[-1, 4, 5], [-1, -1, -1], [7, 8, 9]]))
    assert places.items.tolist() == [4, 5, 7, 8, 9]
    assert places.owners.tolist() == [0, 0, 2, 2, 2]
    assert places.slots.tolist() == [0, 1, 0, 1, 2]
    assert places.from_end.tolist() == [1, 0, 2, 1, 0]
    values = places.items.float()[:, None]
    assert places.to_grid(values).squeeze(2).tolist() == [[4, 5, 0], [0, 0, 0], [7, 8, 9]]
    assert places.padded(values).squeeze(2).tolist() == [[0, 4, 5], [0, 0, 0], [7, 8, 9]]
    assert torch.equal(places.from_grid(places.to_grid(values)), values)
    assert places.at_end(values).squeeze(1).tolist() == [5, 0, 9]


def test_windows_of_like_length_are_run_together() -> None:
    generator = seeded(3)
    lengths = torch.tensor([3, 40, 8, 9, 17, 1, 0, 16])
    columns = torch.arange(40)
    drawn = torch.randint(10, (8, 40), generator=generator)
    places = Places(torch.where(columns >= 40 - lengths[:, None], drawn, -1))
    assert [part.width for _, part in places.alike] == [8, 16, 17, 40]
    values = torch.randn(len(places.items), 2, generator=generator)
    found = places.through(lambda grid: grid.cumsum(dim=1), values)
    torch.testing.assert_close(found, places.from_grid(places.to_grid(values).cumsum(dim=1)))


def model(**options: Any) -> SequenceModel:
    made = built(SASRec(dim=4, max_length=6, dropout=0.0, **options), tiny_sequences(), scale=4.0).eval()
    assert isinstance(made, SequenceModel)
    return made


def test_a_batch_answers_item_by_item_and_user_by_user() -> None:
    made = model(head="untied")
    batch = next(made.batches(tiny_sequences(), 1000, seeded()))
    state = made.state(batch)
    assert state.kinds == {"scores", "embeddings", "hidden_states"}
    count = len(state.places.items)
    assert state.embeddings.shape == (count, 4)
    assert [part.shape for part in state.hidden_states] == [(count, 4)] * 2
    logits = state.logits()
    assert logits.shape == (count, 14)
    at, items = torch.tensor([0, 2]), torch.tensor([[3, -1, 1], [0, 2, 5]])
    some = state.logits(at, items)
    assert float(some[0, 1].detach()) == 0.0
    torch.testing.assert_close(some[1], logits[2, [0, 2, 5]])
    torch.testing.assert_close(state.scores(batch.users), made.state(None).scores(batch.users))
    assert state.score_vectors() is None
    everyone = torch.arange(9)
    vectors = made.state(None).score_vectors()
    assert vectors is not None
    torch.testing.assert_close(state.user_embeddings(everyone), vectors.users)
    assert vectors.users[2].tolist() == [0.0] * 4  # no history


def test_a_model_that_reads_less_cuts_the_windows_of_one_that_reads_more() -> None:
    made = model()
    longer = next(SASRec(dim=2, max_length=20).batches(tiny_sequences(), 1000, seeded()))
    state = made.state(longer)
    assert state.places.mask.shape[1] == 6
    torch.testing.assert_close(state.scores(longer.users), made.state(None).scores(longer.users))


def test_negatives_of_each_loss() -> None:
    interactions = tiny_sequences(60)
    unobserved = next(
        model_for(interactions, loss="bce", num_negatives=4).batches(interactions, 1000, seeded())
    )
    assert unobserved.negatives is not None
    assert unobserved.negatives.shape == (len(unobserved), 4)
    users = unobserved.row_users[:, None].expand(-1, 4).reshape(-1)
    assert not bool(interactions.contains(users, unobserved.negatives.reshape(-1)).any())
    any_item = next(
        model_for(interactions, loss="gbce", num_negatives=40).batches(interactions, 1000, seeded())
    )
    assert any_item.negatives is not None
    assert bool((any_item.negatives == any_item.positives[:, None]).any())
    shared = next(
        model_for(interactions, loss="sampled-softmax", num_negatives=5000, popularity=1.0).batches(
            interactions, 1000, seeded()
        )
    )
    assert shared.negatives is None
    assert shared.shared is not None
    drawn = torch.bincount(shared.shared.ids, minlength=60) / 5000
    chances = interactions.item_counts.clamp(min=1) / interactions.item_counts.clamp(min=1).sum()
    torch.testing.assert_close(drawn, chances, atol=0.02, rtol=0)
    torch.testing.assert_close(shared.shared.log_chances.exp(), chances[shared.shared.ids])


def model_for(interactions: Interactions, **options: Any) -> SequenceModel:
    made = built(SASRec(dim=4, max_length=6, **options), interactions)
    assert isinstance(made, SequenceModel)
    return made


def test_a_batch_moves_whole() -> None:
    batch = next(model(loss="sampled-softmax").batches(tiny_sequences(), 1000, seeded()))
    assert len(batch.next_items) == len(batch.places.items)  # what is derived is derived again
    moved = batch.to(torch.device("meta"))
    assert moved.sequences.device == moved.newest.device == torch.device("meta")
    assert moved.shared is not None
    assert moved.shared.ids.device == torch.device("meta")
    assert batch.to(torch.device("cpu")) is batch


def test_a_users_vector_is_at_its_newest_window() -> None:
    data = tiny_sequences()
    made: Any = built(GRU4Rec(dim=4, max_length=6, dropout=0.0, samples="windows"), data).eval()
    batch = next(made.batches(data, 1000, torch.Generator().manual_seed(0)))
    assert len(batch.sequences) > len(batch.users)
    found = made.state(batch).user_embeddings(batch.users)
    torch.testing.assert_close(found, made.state(None).user_embeddings(batch.users))
