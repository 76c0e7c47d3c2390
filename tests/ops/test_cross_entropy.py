"""The tiled softmax cross entropy against the plain one."""

from __future__ import annotations

import pytest
import torch

from recdistill import ops
from recdistill.ops import tiles
from recdistill.testing import largest_tensor


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_value_and_gradients(monkeypatch: pytest.MonkeyPatch, biased: bool, scale: float) -> None:
    monkeypatch.setattr(tiles, "_LEAST_ROWS", 1)
    monkeypatch.setattr(tiles, "_TILE_ROWS", 5)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(13, 4, generator=generator, dtype=torch.float64) * scale
    items = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(40, generator=generator, dtype=torch.float64) if biased else None
    targets = torch.randint(40, (13,), generator=generator)
    found: list[list[torch.Tensor]] = []
    for loss_of in (ops.softmax_cross_entropy, ops.softmax_cross_entropy_reference):
        own_rows, own_items = rows.clone().requires_grad_(), items.clone().requires_grad_()
        own_bias = None if bias is None else bias.clone().requires_grad_()
        loss = 3.0 * loss_of(own_rows, own_items, targets, own_bias)
        loss.backward()
        gradients = [tensor.grad for tensor in (own_rows, own_items, own_bias) if tensor is not None]
        found.append([loss.detach(), *(g for g in gradients if g is not None)])
    assert len(found[0]) == (4 if biased else 3)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_float32_on_many_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    rows, items = torch.randn(600, 8, generator=generator), torch.randn(90, 8, generator=generator)
    targets = torch.randint(90, (600,), generator=generator)
    torch.testing.assert_close(
        ops.softmax_cross_entropy(rows, items, targets),
        ops.softmax_cross_entropy_reference(rows, items, targets),
    )


def test_the_frozen_side_gets_no_gradient() -> None:
    rows = torch.randn(6, 4, requires_grad=True)
    items = torch.randn(9, 4)
    ops.softmax_cross_entropy(rows, items, torch.arange(6)).backward()
    assert rows.grad is not None
    assert items.grad is None
    with torch.no_grad():
        assert not ops.softmax_cross_entropy(rows, items, torch.arange(6)).requires_grad


def test_bfloat16_under_autocast() -> None:
    rows = torch.randn(6, 4, requires_grad=True)
    items = torch.randn(9, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ops.softmax_cross_entropy(rows, items, torch.arange(6))
    loss.backward()
    assert loss.dtype == torch.float32
    expected = ops.softmax_cross_entropy_reference(rows, items, torch.arange(6))
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=2e-2)


def test_only_a_tile_of_scores_is_held() -> None:
    rows, items = torch.randn(2000, 4, requires_grad=True), torch.randn(5000, 4, requires_grad=True)
    with largest_tensor() as watch:
        ops.softmax_cross_entropy(rows, items, torch.zeros(2000, dtype=torch.int64)).backward()
    assert watch.elements <= 1 << 20
