"""HSTU: the equation by hand, scores as cosines, the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recdistill.errors import OptionError
from recdistill.models.hstu import HSTU
from recdistill.models.sequence_batches import Places
from recdistill.testing import built, check_sequence_model, tiny_sequences
from sequence_options import SHARED, Options, check_every_option

OWN: list[Options] = [
    {"temperature": None, "heads": 2},
    {"dropout": 0.5, "blocks": 1},
]


def model_of(**options: Any) -> HSTU:
    chosen: dict[str, Any] = {"dim": 4, "max_length": 8, **options}
    return HSTU(**chosen)


@pytest.mark.parametrize("options", [*SHARED, *OWN], ids=str)
def test_conforms(options: Options) -> None:
    check_sequence_model(lambda: model_of(**options))


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_the_equation_by_hand(temperature: float | None) -> None:
    chosen = model_of(blocks=1, heads=2, temperature=temperature, max_length=4)
    model = built(chosen, tiny_sequences(), scale=5.0).eval()
    assert isinstance(model, HSTU)
    block: Any = model.blocks[0]
    items = torch.tensor([3, 1, 5, 2])
    x = 2.0 * model.item_table[items] + model.position_table[[0, 1, 2, 2]]  # √4 = 2; the last two share one
    u, v, q, k = F.silu(F.layer_norm(x, (4,), eps=1e-6) @ block.inputs.weight.T).split(4, dim=1)
    parts: list[torch.Tensor] = []
    for head in (slice(0, 2), slice(2, 4)):
        found = torch.zeros(4, 2)
        for t in range(4):
            for s in range(t + 1):
                weight = F.silu(q[t, head] @ k[s, head] + block.distances[t - s]) / 4  # n = 4
                found[t] += weight * v[s, head]
        parts.append(found)
    gated = F.layer_norm(torch.cat(parts, dim=1), (4,), eps=1e-6) * u
    x = x + gated @ block.mix.weight.T + block.mix.bias
    found = model.encode(Places(items[None]))
    torch.testing.assert_close(found.hidden_states[0], x, rtol=1e-4, atol=1e-5)
    scores = model.product(found.outputs, None)
    expected = x @ model.item_table.T
    if temperature is not None:
        norms = x.norm(dim=1)[:, None] * model.item_table.norm(dim=1)
        expected = expected / norms / temperature
        assert float(scores.detach().abs().max()) <= 10.0 + 1e-4
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_the_table_is_normalised_once_for_all_reads_without_a_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = built(model_of(), tiny_sequences()).eval()
    made: list[int] = []
    table = HSTU.output_table.fget
    assert table is not None
    monkeypatch.setattr(HSTU, "output_table", property(lambda self: made.append(1) or table(self)))
    state = model.state(None)
    with torch.no_grad():
        state.scores(torch.arange(3))
        state.scores(torch.arange(3), torch.tensor([[0, 1, -1]] * 3))
        vectors, items = state.score_vectors(), state.item_embeddings(torch.arange(14))
    assert vectors is not None
    assert torch.equal(vectors.items, items)
    assert len(made) == 1
    with_gradient = state.item_embeddings(torch.arange(14))
    assert with_gradient.requires_grad
    assert torch.equal(with_gradient, items)


def test_every_position_that_is_read_is_trained() -> None:
    model = built(model_of(), tiny_sequences(), scale=3.0)
    assert isinstance(model, HSTU)
    batch = next(model.batches(tiny_sequences(), 1000, torch.Generator().manual_seed(0)))
    model.loss(model.state(batch), batch).backward()
    assert model.position_table.grad is not None
    assert bool((model.position_table.grad != 0).any(dim=1).all())


def test_every_option_changes_something() -> None:
    single: list[Options] = [
        {"blocks": 1}, {"heads": 2}, {"dropout": 0.1}, {"temperature": 0.1}, {"temperature": None},
    ]  # fmt: skip
    check_every_option(model_of, [*OWN, *single])


def test_heads_must_divide_dim() -> None:
    with pytest.raises(OptionError, match="multiple of heads"):
        HSTU(dim=5, heads=2)
