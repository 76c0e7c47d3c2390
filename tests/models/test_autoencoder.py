"""The autoencoder's layers and losses against dense formulas, in one tile and in many."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.models import autoencoder
from recdistill.models.autoencoder import (
    Autoencoder,
    Codes,
    annealed,
    divergence,
    log_norms,
    multinomial_loss,
)
from recdistill.ops import Rows
from recdistill.testing import largest_tensor, tiny_interactions

ROWS = Rows(torch.tensor([0, 2, 2, 3, 7]), torch.tensor([0, 3, 4, 0, 1, 2, 4], dtype=torch.int32))
DENSE = torch.tensor([[1, 0, 0, 1, 0], [0] * 5, [0, 0, 0, 0, 1], [1, 1, 1, 0, 1]], dtype=torch.float64)


def tables(width: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes: list[tuple[int, ...]] = [(4, width), (5, width), (5,)]
    hidden, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def network(hidden_dim: int, dropout: float = 0.0) -> Autoencoder:
    made = Autoencoder(14, 3, hidden_dim, dropout, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.arange(parameter.shape[-1]).sin())  # no bias is 0
    return made


@pytest.mark.parametrize("tile", [1, 10, 1 << 20])
def test_the_likelihood_and_its_gradient_in_tiles(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "_TILE", tile)
    hidden, weight, bias = tables()
    expected = -(DENSE * (hidden @ weight.T + bias).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(multinomial_loss(hidden, weight, bias, ROWS), expected)

    def loss(*parts: Any) -> torch.Tensor:
        return multinomial_loss(parts[0], parts[1], parts[2], ROWS)

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


@pytest.mark.parametrize("tile", [1, 10, 1 << 20])
def test_norms_and_their_gradient_in_tiles(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "_TILE", tile)
    hidden, weight, bias = (part.detach().float().requires_grad_() for part in tables())
    expected = (hidden @ weight.T + bias).logsumexp(dim=1)
    found = log_norms(hidden, weight, bias)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(log_norms(hidden, weight, bias), expected)
    upstream = torch.arange(1.0, 5)
    wanted = torch.autograd.grad((expected * upstream).sum(), (hidden, weight, bias))
    for one, other in zip(
        torch.autograd.grad((found * upstream).sum(), (hidden, weight, bias)), wanted, strict=True
    ):
        torch.testing.assert_close(one, other)


def test_scores_of_a_thousand_are_finite() -> None:
    hidden, weight, bias = (1000 * part.detach() for part in tables())
    hidden.requires_grad_()
    loss = multinomial_loss(hidden, weight, bias, ROWS)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert hidden.grad is not None
    assert bool(torch.isfinite(hidden.grad).all())


def test_no_more_than_a_tile_of_scores_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "_TILE", 40_000)
    pairs = tiny_interactions(500, 900)
    hidden = torch.randn(500, 4, requires_grad=True)
    weight, bias = torch.randn(900, 4, requires_grad=True), torch.zeros(900, requires_grad=True)
    rows = pairs.rows(torch.arange(500))
    with largest_tensor() as watch:
        multinomial_loss(hidden, weight, bias, rows).backward()
        log_norms(hidden, weight, bias).sum().backward()
    assert watch.elements <= max(40_000, pairs.num_pairs), watch.operation


@pytest.mark.parametrize("hidden_dim", [0, 5])
def test_encoding_is_that_of_the_dense_row(hidden_dim: int) -> None:
    made, pairs = network(hidden_dim), tiny_interactions()
    seen = torch.zeros(pairs.num_users, pairs.num_items)
    seen[pairs.users.long(), pairs.items.long()] = 1
    entry = seen / seen.norm(dim=1, keepdim=True).clamp(min=1)
    latent = entry @ made.input_table + made.input_bias
    if hidden_dim:
        latent = latent.tanh() @ made.latent_weight + made.latent_bias
    for noisy in (False, True):
        torch.manual_seed(4)
        found = made.encode(pairs.rows(torch.arange(pairs.num_users)), noisy)
        torch.manual_seed(4)
        code = latent[:, :3] + noisy * (0.5 * latent[:, 3:]).exp() * torch.randn(pairs.num_users, 3)
        if hidden_dim:
            code = (code @ made.hidden_weight + made.hidden_bias).tanh()
        torch.testing.assert_close(found.mean, latent[:, :3])
        torch.testing.assert_close(found.log_variance, latent[:, 3:])
        torch.testing.assert_close(found.hidden, code)


def test_dropout_keeps_the_mean_of_the_input() -> None:
    made, pairs = network(0, dropout=0.4), tiny_interactions()
    rows = pairs.rows(torch.tensor([1] * 4000))  # 11 items
    torch.manual_seed(0)
    with torch.no_grad():
        dropped, plain = made.encode(rows, True).mean, made.encode(rows, False).mean
    assert float(dropped.std(dim=0).min()) > 0
    torch.testing.assert_close(dropped.mean(dim=0), plain[0], atol=0.02, rtol=0)


def test_vectors_of_the_batch_are_made_once_and_those_of_others_when_asked() -> None:
    made, pairs = network(0, dropout=0.5).train(), tiny_interactions()
    torch.manual_seed(0)
    codes = Codes(made, pairs, torch.tensor([1, 3, 4]))
    table, place = codes.vectors(torch.tensor([4, 1]))
    again, _ = codes.vectors(torch.tensor([3]))
    assert place.tolist() == [2, 0]
    assert again is table
    assert codes.encoded(torch.tensor([1, 3, 4])).hidden is table
    other, place = codes.vectors(torch.tensor([[4, 5], [5, 0]]))
    assert (other.shape[0], place.tolist()) == (3, [[1, 2], [2, 0]])


def test_all_vectors_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, pairs = network(5).eval(), tiny_interactions()
    with torch.no_grad():
        whole = Codes(made, pairs).table
        monkeypatch.setattr(autoencoder, "_ROWS_AT_ONCE", 2)
        torch.testing.assert_close(Codes(made, pairs).table, whole)


def test_divergence_of_a_standard_normal_is_0() -> None:
    assert float(divergence(torch.zeros(2, 3), torch.zeros(2, 3))) == 0


def test_beta_grows_linearly_to_its_cap() -> None:
    found = [float(annealed(0.2, torch.tensor(steps), 10)) for steps in (0, 5, 10, 20)]
    assert found == pytest.approx([0.0, 0.1, 0.2, 0.2])
    assert float(annealed(0.2, torch.tensor(0), 0)) == pytest.approx(0.2)
