"""SASRec: the equation by hand and the conformance kit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recdistill.distillers.rrd import RRD
from recdistill.errors import DataError, OptionError
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_batches import Places, SharedNegatives
from recdistill.testing import built, check_distiller, check_sequence_model, tiny_interactions, tiny_sequences
from sequence_options import SHARED, Options, check_every_option

OWN: list[Options] = [
    {"norm": "post", "activation": "gelu", "heads": 2},
    {"norm": "paper", "inner": 7, "positions": "start"},
    {"loss": "gbce", "num_negatives": 3, "head": "untied"},
    {"dropout": 0.5, "blocks": 1},
    {"attention_dropout": 0.0},
    {"attention_output": False},
    {"gated": True},
]


def model_of(**options: Any) -> SASRec:
    chosen: dict[str, Any] = {"dim": 4, "max_length": 8, **options}
    return SASRec(**chosen)


@pytest.mark.parametrize("options", [*SHARED, *OWN], ids=str)
def test_conforms(options: Options) -> None:
    check_sequence_model(lambda: model_of(**options))


@pytest.mark.parametrize("options", [{}, {"attention_output": False}, {"gated": True}], ids=str)
@pytest.mark.parametrize("norm", ["pre", "post", "paper"])
def test_the_equation_by_hand(norm: Any, options: Options) -> None:
    made = model_of(norm=norm, blocks=1, heads=1, dropout=0.0, **options)
    model = built(made, tiny_sequences(), scale=5.0).eval()
    assert isinstance(model, SASRec)
    block: Any = model.blocks[0]
    gate = 0.7 if options.get("gated") else 1.0
    if block.gate is not None:
        block.gate.data.fill_(gate)
    items = torch.tensor([3, 1, 3])
    x = 2.0 * model.item_table[items] + model.position_table[[2, 1, 1]]  # √4 = 2
    first, second = block.norm_attention, block.norm_forward

    def attention(queries: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        keys, values = block.keys_values(others).split(4, dim=1)
        scores = block.queries(queries) @ keys.T / 2.0
        future = torch.ones(3, 3).triu(1).bool()
        found = scores.masked_fill(future, -torch.inf).softmax(dim=1) @ values
        return found if options.get("attention_output") is False else block.mix(found)

    def forward(inner: torch.Tensor) -> torch.Tensor:
        return block.second(F.relu(block.first(inner)))

    if norm == "pre":
        y = x + attention(first(x), first(x))
        y = y + forward(second(y))
    elif norm == "post":
        y = first(x + attention(x, x))
        y = second(y + forward(y))
    else:
        y = second(first(x) + attention(first(x), x))
        y = y + forward(y)
    y = x + gate * y if options.get("gated") else y
    found = model.encode(Places(items[None])).outputs
    torch.testing.assert_close(found, y if norm == "post" else model.last_norm(y))


def test_the_teacher_of_a_published_search_has_its_size() -> None:
    model = SASRec(
        dim=128, blocks=8, heads=4, norm="paper", attention_output=False, gated=True, head="untied"
    )
    model.build(tiny_sequences(), torch.Generator().manual_seed(0))
    tables = 2 * 14 * 128 + 14 + 50 * 128  # 14 items come in, 14 go out with a bias, 50 positions
    assert model.num_parameters() - tables == 664_840


def test_every_option_changes_something() -> None:
    check_every_option(model_of, [*OWN, {"dropout": 0.1}])


def test_heads_must_divide_dim() -> None:
    with pytest.raises(OptionError, match="multiple of heads"):
        SASRec(dim=5, heads=2)


def test_an_order_is_needed() -> None:
    interactions = tiny_interactions()
    model = built(model_of(), interactions)
    with pytest.raises(DataError, match="neither a time nor a position"):
        next(model.batches(interactions, 4, torch.Generator()))


def test_methods_read_a_student_that_is_a_sequence_model() -> None:
    check_distiller(
        lambda: RRD(num_interesting=3, depth=8, weight=1.0), student=lambda: model_of(dropout=0.0)
    )


@pytest.mark.parametrize("positions", ["end", "start"])
def test_the_positions_that_answers_are_read_at_are_trained(positions: Any) -> None:
    sequences = tiny_sequences()
    model = built(model_of(positions=positions, dropout=0.0, max_length=5), sequences)
    assert isinstance(model, SASRec)
    state = model.state(None)
    state.scores(torch.arange(sequences.num_users)).sum().backward()
    read = model.position_table.grad.abs().sum(dim=1) > 0
    model.zero_grad()
    for batch in model.batches(sequences, 1000, torch.Generator().manual_seed(0)):
        model.loss(model.state(batch), batch).backward()
    trained = model.position_table.grad.abs().sum(dim=1) > 0
    assert read.any()
    assert not (read & ~trained).any()


def test_padding_scores_0_beside_a_bias() -> None:
    made = built(SASRec(dim=4, max_length=6, head="untied"), tiny_sequences()).eval()
    with torch.no_grad():
        made.parameter("output_bias").fill_(3.0)
    assert float(made.frozen().scores(torch.tensor([3]), torch.tensor([[-1, 0]])).detach()[0, 0]) == 0.0


def test_a_shared_negative_that_is_the_rows_own_item_is_left_out() -> None:
    made: Any = built(SASRec(dim=4, max_length=6, loss="sampled-softmax"), tiny_sequences())
    outputs = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    positives = torch.tensor([3, 5])
    chances = torch.zeros(3)
    found = made.loss_of(outputs, positives, None, SharedNegatives(torch.tensor([3, 1, 2]), chances))
    scores = (outputs @ made.output_table.T).detach()
    others = scores[:, [3, 1, 2]] - math.log(3)
    others[0, 0] = -torch.inf
    own = scores[[0, 1], positives]
    wanted = (torch.cat([own[:, None], others], dim=1).logsumexp(1) - own).mean()
    torch.testing.assert_close(found.detach(), wanted)


def test_shared_negatives_follow_the_generator() -> None:
    made = built(SASRec(dim=4, max_length=6, loss="sampled-softmax", num_negatives=9), tiny_sequences())

    def drawn(seed: int) -> list[int]:
        batch: Any = next(made.batches(tiny_sequences(), 1000, torch.Generator().manual_seed(seed)))
        return batch.shared.ids.tolist()

    assert drawn(0) == drawn(0) != drawn(1)
