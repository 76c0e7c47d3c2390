"""BERT4Rec: the equation by hand, what is masked, no leak, the answer at MASK alone, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recdistill.data.interactions import Interactions
from recdistill.distillers.rrd import RRD
from recdistill.errors import OptionError
from recdistill.knowledge.teacher import live
from recdistill.models.bert4rec import BERT4Rec
from recdistill.models.cloze import ClozeBatch, draw_masks
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_batches import Places, SequenceBatch
from recdistill.models.sequence_state import SequenceState
from recdistill.testing import built, check_distiller, check_sequence_model, tiny_sequences
from sequence_options import SHARED, Options, check_every_option

DATA = tiny_sequences()
OWN: list[Options] = [
    {"heads": 1, "inner": 7, "blocks": 1},
    {"mask_share": 0.6, "last_share": 0.0, "dropout": 0.5},
]


def model_of(**options: Any) -> BERT4Rec:
    chosen: dict[str, Any] = {"dim": 4, "max_length": 8, **options}
    return BERT4Rec(**chosen)


def ready(**options: Any) -> BERT4Rec:
    model = built(model_of(**options), DATA, scale=4.0)
    assert isinstance(model, BERT4Rec)
    return model.eval()


def batch_of(model: BERT4Rec, size: int = 1000) -> ClozeBatch:
    return next(model.batches(DATA, size, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("options", [*SHARED, *OWN], ids=str)
def test_conforms(options: Options) -> None:
    check_sequence_model(lambda: model_of(**options), causal=False)


def test_the_equation_by_hand() -> None:
    model = ready(blocks=1, heads=1)
    with torch.no_grad():
        assert model.output_bias is not None
        model.output_bias.copy_(torch.arange(14.0))
    block: Any = model.blocks[0]
    vectors = torch.cat([model.item_table[[3, 1, 3]], model.mask_vector[None]])
    x = start = model.first_norm(vectors + model.position_table[[3, 2, 1, 0]])
    queries, keys, values = block.attention(x).split(4, dim=1)
    x = block.norm_attention(x + block.mix((queries @ keys.T / 2.0).softmax(dim=1) @ values))  # √4 = 2
    x = block.norm_forward(x + block.second(F.gelu(block.first(x))))
    h = model.last_norm(F.gelu(model.last(x)))
    found = model.encode(Places(torch.tensor([[-1, 3, 1, 3]])))
    torch.testing.assert_close(found.outputs[2], h[3])
    torch.testing.assert_close(found.hidden_states[0][2], x[3])
    torch.testing.assert_close(found.embeddings[2], start[2])  # the newest item as it comes in
    assert not found.outputs[:2].any()
    scores = model.fold_in(DATA.event_rows(torch.tensor([3]))._replace(
        indptr=torch.tensor([0, 3]), items=torch.tensor([3, 1, 3]).int()
    )).scores(torch.tensor([0]))[0]  # fmt: skip
    torch.testing.assert_close(scores, model.item_table @ h[3] + torch.arange(14.0))


def test_the_loss_by_hand() -> None:
    model = ready()
    batch = batch_of(model)
    total, count = 0.0, 0
    for window, masked in zip(batch.sequences, batch.masked, strict=True):
        kept = window >= 0
        outputs = model.fill_in(Places(window[None]), masked[kept]).outputs[masked[kept]]
        total += float(
            F.cross_entropy(model.product(outputs, None), window[masked], reduction="sum").detach()
        )
        count += int(masked.sum())
    found = float(model.loss(model.state(batch), batch).detach())
    assert found == pytest.approx(total / count, rel=1e-4)


def test_what_is_masked() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 11, (4000, 1), generator=generator)
    sequences = torch.where(torch.arange(10) >= 10 - lengths, 5, -1)
    cloze = draw_masks(sequences, 0.3, 0.0, generator)
    assert not cloze[sequences < 0].any()
    counts = cloze.sum(dim=1)
    assert torch.equal(counts > 0, lengths[:, 0] > 1)
    long = (lengths == 10).squeeze(1)
    expected = 0.3 + 0.7**10 / 10  # one at random where none is drawn
    assert float(cloze[long].float().mean()) == pytest.approx(expected, abs=0.03)
    assert float(cloze[long].float().mean(dim=0).std()) < 0.05
    newest = draw_masks(sequences, 0.3, 1.0, generator)
    assert torch.equal(newest[:, -1], lengths[:, 0] > 1)
    assert not newest[:, :-1].any()
    half = draw_masks(sequences, 1e-9, 0.5, generator)[long]
    assert float(half[:, -1].float().mean()) == pytest.approx(0.5 + 0.5 * 0.1, abs=0.08)


def test_what_is_to_be_filled_in_is_not_seen() -> None:
    model = ready(mask_share=0.5, last_share=0.2)
    batch = batch_of(model)
    places = batch.places
    masked = batch.masked[places.mask]
    other = Places(torch.where(batch.masked, (batch.sequences + 1) % 14, batch.sequences))
    assert not torch.equal(other.items, places.items)
    torch.testing.assert_close(model.fill_in(places, masked).outputs, model.fill_in(other, masked).outputs)


def test_later_items_are_read() -> None:
    model = ready()
    masked = torch.tensor([False, True, False])
    one = model.fill_in(Places(torch.tensor([[3, 1, 3]])), masked).outputs
    other = model.fill_in(Places(torch.tensor([[3, 1, 5]])), masked).outputs
    assert not torch.allclose(one[1], other[1])


def test_mask_takes_one_of_the_places() -> None:
    model = ready(max_length=4)
    windows = torch.tensor([[7, 3, 1, 2]])
    whole = model.encode(Places(windows)).outputs[-1]
    torch.testing.assert_close(whole, model.encode(Places(windows[:, 1:])).outputs[-1])
    assert not torch.allclose(whole, model.encode(Places(windows[:, 2:])).outputs[-1])


@pytest.mark.parametrize("samples", ["shift-all", "windows", "prefix"])
def test_negatives_are_those_of_the_masked_items_users(samples: Any) -> None:
    model = ready(loss="bce", num_negatives=4, samples=samples, max_length=5)
    for batch in model.batches(DATA, 20, torch.Generator().manual_seed(0)):
        assert batch.negatives is None
        assert batch.masked_negatives is not None
        assert batch.masked_negatives.shape == (int(batch.masked.sum()), 4)
        starts = torch.cat([batch.newest.new_tensor([-1]), batch.newest[:-1]])
        owners = torch.repeat_interleave(batch.users, batch.newest - starts)
        users = owners[batch.masked.nonzero()[:, 0]]
        assert bool(DATA.contains(users, batch.sequences[batch.masked]).all())
        drawn = batch.masked_negatives
        seen = DATA.contains(users[:, None].expand_as(drawn).reshape(-1), drawn.reshape(-1))
        assert not bool(seen.any())


def test_methods_read_the_newest_items_alone() -> None:
    student = built(SASRec(dim=4, max_length=8), DATA).eval()
    batch = next(student.batches(DATA, 1000, torch.Generator().manual_seed(0)))
    assert isinstance(batch, SequenceBatch)
    state = student.state(batch)
    assert isinstance(state, SequenceState)
    teacher = ready()
    knowledge = live(teacher, DATA)
    reads = knowledge.state(batch).sequence_reads(state.places)
    assert not reads.whole
    assert torch.equal(reads.rows, (state.places.lengths.cumsum(0) - 1))
    torch.testing.assert_close(reads.logits(), knowledge.scores(batch.users), rtol=1e-4, atol=1e-4)
    assert all(len(part) == len(batch.users) for part in (reads.embeddings, *reads.hidden_states))
    own = student.state(batch)
    assert isinstance(own, SequenceState)
    assert own.answered is None
    found = ready().state(batch)
    assert isinstance(found, SequenceState)
    assert found.answered is not None
    assert torch.equal(found.answered, reads.rows)


def test_a_batch_made_for_another_model_has_its_newest_items_masked() -> None:
    batch = next(built(SASRec(dim=4, max_length=8), DATA).batches(DATA, 1000, torch.Generator()))
    model = ready()
    loss = model.loss(model.state(batch), batch)
    assert isinstance(batch, SequenceBatch)
    positives = batch.sequences[:, -1]
    windows = Places(batch.sequences)
    outputs = windows.at_end(model.fill_in(windows, windows.from_end == 0).outputs)
    torch.testing.assert_close(loss, F.cross_entropy(model.product(outputs, None), positives))
    other = ready(loss="bce")
    with pytest.raises(OptionError, match="needs batches of its own"):
        other.loss(other.state(batch), batch)


def test_every_option_changes_something() -> None:
    single: list[Options] = [
        {"blocks": 1}, {"heads": 1}, {"inner": 7}, {"dropout": 0.1}, {"mask_share": 0.5}, {"last_share": 0.1},
    ]  # fmt: skip
    check_every_option(model_of, [*OWN, *single])


def test_it_learns_what_follows() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(8, (64, 1), generator=generator)
    items = ((first + torch.arange(6)) % 8).reshape(-1)
    owners, positions = torch.arange(64).repeat_interleave(6), torch.arange(6).repeat(64)
    walks = Interactions.from_events(owners, items, 64, 8, positions=positions)
    model = BERT4Rec(dim=32, max_length=7, blocks=1, dropout=0.0, init_std=0.05)
    model.build(walks, generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    model.item_table.register_hook(lambda gradient: gradient.to_dense())
    for _ in range(60):
        for batch in model.batches(walks, 1000, generator):
            model.loss(model.state(batch), batch).backward()
            optimiser.step()
            optimiser.zero_grad()
    with torch.no_grad():
        found = model.state(None).scores(torch.arange(64)).argmax(dim=1)
    assert float((found == (first[:, 0] + 6) % 8).float().mean()) > 0.6  # chance: .125


def test_heads_must_divide_dim() -> None:
    with pytest.raises(OptionError, match="multiple of heads"):
        BERT4Rec(dim=5, heads=2)


def test_methods_teach_it() -> None:
    check_distiller(
        lambda: RRD(num_interesting=3, depth=8, weight=1.0), student=lambda: model_of(dropout=0.0)
    )


def test_the_teacher_of_a_published_search_has_its_size() -> None:
    model = BERT4Rec(dim=128, blocks=8, heads=4)
    model.build(tiny_sequences(), torch.Generator().manual_seed(0))
    assert sum(parameter.numel() for parameter in model.blocks.parameters()) == 1_586_176
