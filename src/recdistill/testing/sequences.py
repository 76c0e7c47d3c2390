"""What every sequence model must do, checked without knowing its equation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import last_items
from recdistill.models.base import Recommender
from recdistill.models.sequence_batches import Places, SequenceBatch
from recdistill.models.sequential import SequenceModel
from recdistill.testing.models import check_lists, check_state, check_stored
from recdistill.testing.tiny import assert_finite_scalar, built, largest_tensor, make_batches, tiny_sequences


def check_sequence_model(make: Callable[[], Recommender], *, causal: bool = True) -> None:
    """Every promise of a sequence model that can be checked without knowing its equation.

    Args:
        make: builds the model (unbuilt), which reads at least 2 and at most 30 items.
        causal: what it makes of an item does not depend on later ones.
    """
    interactions = tiny_sequences()
    model = built(make(), interactions, scale=3.0)
    assert isinstance(model, SequenceModel), "expected a SequenceModel"
    check_state(model)
    check_stored(model)
    check_lists(model, interactions)
    again = built(make(), interactions, scale=3.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), f"the same seed builds another {name}"
    model.eval()
    with torch.no_grad():
        _padding_changes_nothing(model, interactions)
        _histories_are_read_alike(model, interactions)
        if causal:
            _future_changes_nothing(model)
            _served_as_trained(model, interactions)
    _sequences_train(make, interactions)
    _never_rows_by_items(make)


def _encoded(model: SequenceModel, sequences: Tensor) -> list[Tensor]:
    """Everything an encoder makes of each item, in the places of the sequences."""
    places = Places(sequences)
    found = model.encode(places)
    return [places.padded(part) for part in (found.embeddings, *found.hidden_states, found.outputs)]


def _padding_changes_nothing(model: SequenceModel, interactions: Interactions) -> None:
    users = (interactions.event_indptr.diff() > 0).nonzero().squeeze(1)
    length = min(model.max_length, 30)
    together = last_items(interactions, users, length)
    narrow = last_items(interactions, users[:2], 2)
    wider = torch.nn.functional.pad(narrow, (3, 0), value=-1)
    for name, one, other in (
        ("more padding", _encoded(model, narrow), [part[:, 3:] for part in _encoded(model, wider)]),
        ("longer neighbours", _encoded(model, narrow), [part[:2, -2:] for part in _encoded(model, together)]),
    ):
        for left, right in zip(one, other, strict=True):
            torch.testing.assert_close(left, right, msg=f"{name} of the batch changes a sequence")
    empty = _encoded(model, torch.full((2, 3), -1))[-1]
    assert bool((empty == 0).all()), "an empty sequence has outputs"


def _histories_are_read_alike(model: SequenceModel, interactions: Interactions) -> None:
    everyone = torch.arange(interactions.num_users)
    full = model.state(None).scores(everyone)
    assert bool(torch.isfinite(full).all()), "scores of some history are not finite"
    for batch in make_batches(model, interactions):
        torch.testing.assert_close(
            model.state(batch).scores(batch.users),
            full[batch.users],
            msg="a batch's users score differently than in the state of all users",
        )
        torch.testing.assert_close(
            model.state(batch).scores(everyone), full, msg="users outside of the batch score differently"
        )
    rows = interactions.event_rows(everyone)
    torch.testing.assert_close(model.fold_in(rows).scores(everyone), full, msg="folded histories differ")
    flipped = model.fold_in(ops.Rows(rows.indptr, rows.items.flip(0))).scores(everyone)
    assert not torch.allclose(flipped, full), "the order of the histories changes nothing"
    cut = last_items(interactions, torch.tensor([3]), model.max_length)[0]
    assert len(cut) < int(interactions.event_indptr.diff()[3]), "the model reads more than 39 items"
    newest = model.fold_in(ops.Rows(torch.tensor([0, len(cut)]), cut.int()))
    torch.testing.assert_close(
        newest.scores(torch.tensor([0])), full[3:4], msg="items older than the maximum are read"
    )


def _future_changes_nothing(model: SequenceModel) -> None:
    length = min(model.max_length, 12)
    sequence = (torch.arange(length) * 5 % model.num_items)[None]
    before = _encoded(model, sequence)
    for place in range(1, length):
        changed = sequence.clone()
        changed[:, place:] = (changed[:, place:] + 1) % model.num_items
        for left, right in zip(before, _encoded(model, changed), strict=True):
            torch.testing.assert_close(
                left[:, :place], right[:, :place], msg=f"item {place} changes what is made of earlier ones"
            )
            assert not torch.allclose(left[:, place], right[:, place]), f"item {place} itself changes nothing"


def _served_as_trained(model: SequenceModel, interactions: Interactions) -> None:
    """What training makes of a window's items before the newest is what a user with these items alone is served."""
    for batch in make_batches(model, interactions):
        assert isinstance(batch, SequenceBatch), "expected batches of sequences"
        places, outputs = batch.places, model.state(batch).encoded.outputs
        at_newest = batch.targets[:, -1] >= 0  # windows whose last item has a target
        trained = places.from_end == (~at_newest[places.owners]).long()
        chosen = (places.lengths - (~at_newest).long() > 0).nonzero().squeeze(1)
        windows = batch.sequences[chosen]
        cut = torch.where(at_newest[chosen, None], windows, windows.roll(1, dims=1))
        cut[~at_newest[chosen], 0] = -1
        served = [row[row >= 0].int() for row in cut]
        indptr = torch.tensor([0, *(len(row) for row in served)]).cumsum(0)
        state = model.fold_in(ops.Rows(indptr, torch.cat(served)))
        found = state.user_embeddings(torch.arange(len(served)))
        torch.testing.assert_close(
            found, outputs[trained], msg="a history is served otherwise than it is trained"
        )


def _sequences_train(make: Callable[[], Recommender], interactions: Interactions) -> None:
    for size in (1, 7, 1000):
        model = built(make(), interactions, scale=3.0)
        users: list[int] = []
        for batch in model.batches(interactions, size, torch.Generator().manual_seed(4)):
            assert isinstance(batch, SequenceBatch), "expected batches of sequences"
            users += batch.users.tolist()
            torch.testing.assert_close(batch.positives, batch.targets[batch.targets >= 0])
            loss = model.loss(model.state(batch), batch)
            assert_finite_scalar(loss)
            loss.backward()
        assert len(users) == len(set(users)), "a user is in two batches of an epoch"
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert bool(torch.isfinite(parameter.grad.to_dense()).all()), (
                f"the gradient of {name} is not finite"
            )


def _never_rows_by_items(make: Callable[[], Recommender]) -> None:
    users, items, length = 2000, 20_000, 6
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(items, (users * length,), generator=generator)
    owners = torch.arange(users).repeat_interleave(length)
    interactions = Interactions.from_events(owners, drawn, users, items, positions=torch.arange(len(drawn)))
    with largest_tensor() as watch:
        model = built(make(), interactions)
        batch = next(model.batches(interactions, 5000, generator))
        model.loss(model.state(batch), batch).backward()
    assert watch.elements < len(batch) * items // 4, (
        f"{watch.operation} makes {watch.elements:,} elements for {len(batch):,} rows x {items:,} items"
    )
