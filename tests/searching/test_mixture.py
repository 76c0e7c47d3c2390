"""Mixed cells: sizes, the discrete cell inside them, what is evaluated and what gets a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.models.architecture import SPACES, Architecture
from recdistill.models.cells import BatchNorm, Cell, Neighbours
from recdistill.models.sequence_batches import Places
from recdistill.searching.mixture import MixedCell, one_hot
from recdistill.searching.relaxation import relaxed, straight_through

GENERATOR = torch.Generator().manual_seed(0)
NAMES = SPACES["causal"]
FOUND = Architecture.parse("conv5; skip, conv3d2; none, avg3, max3")


def mixed(dim: int = 4) -> MixedCell:
    generator = torch.Generator().manual_seed(1)
    cell = MixedCell(NAMES, 3, dim, generator)
    for module in cell.modules():
        if isinstance(module, BatchNorm):
            module.mean.normal_(generator=generator)
            module.variance.uniform_(0.5, 2, generator=generator)
    return cell


def windows(padding: int = 0) -> Neighbours:
    """Of 10, 6 and 1 items."""
    width = 10 + padding
    return Neighbours(
        Places(torch.where(torch.arange(width) >= width - torch.tensor([10, 6, 1])[:, None], 0, -1))
    )


X = torch.randn(17, 4, generator=GENERATOR)


@pytest.mark.parametrize(("dim", "expected"), [(64, 1_591_820), (32, 402_700)])
def test_sizes_of_the_causal_space(dim: int, expected: int) -> None:
    assert 4 * sum(p.numel() for p in MixedCell(NAMES, 3, dim, GENERATOR).parameters()) == expected


@pytest.mark.parametrize(("dim", "edge", "cell"), [(64, 99_456, 596_867)])
def test_sizes_of_the_released_space(dim: int, edge: int, cell: int) -> None:
    made = MixedCell(SPACES["released"], 3, dim, GENERATOR)
    assert sum(p.numel() for p in made.edges["1_0"].parameters()) == edge
    assert sum(p.numel() for p in made.parameters()) == cell


@pytest.mark.parametrize("mixture", ["full", "single"])
def test_the_derived_cell_computes_the_same(mixture: Any) -> None:
    cell = mixed().eval()
    found = cell(X, windows(), one_hot(FOUND, NAMES), mixture)
    derived = Cell(FOUND, 4, torch.Generator())
    derived.load_state_dict(cell.weights_of(FOUND))
    torch.testing.assert_close(derived.eval()(X, windows()), found)


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training: bool) -> None:
    z = torch.softmax(torch.randn(6, 8, generator=GENERATOR), dim=1)
    found = mixed().train(training)(X, windows(), z, "full")
    torch.testing.assert_close(mixed().train(training)(X, windows(padding=5), z, "full"), found)


def test_the_future_changes_nothing_before_it() -> None:
    z = torch.softmax(torch.randn(6, 8, generator=GENERATOR), dim=1)
    changed = X.clone()
    changed[6:10] += 1.0
    cell = mixed().eval()
    before, after = (cell(x, windows(), z, "full") for x in (X, changed))
    assert torch.equal(before[:6], after[:6])
    assert torch.equal(before[10:], after[10:])
    assert not torch.equal(before[6], after[6])


def gradients(mixture: Any) -> tuple[Tensor, MixedCell, Tensor]:
    cell, alpha = mixed(), torch.zeros(6, 8, requires_grad=True)
    noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    z = straight_through(relaxed(alpha, noise, 1.0))
    cell(X, windows(), z, mixture).square().mean().backward()
    assert alpha.grad is not None
    return alpha.grad, cell, z


def test_all_operations_are_judged_by_the_full_mixture() -> None:
    gradient, cell, _ = gradients("full")
    assert bool((gradient.abs().sum(dim=1) > 0).all())
    assert all(p.grad is not None for p in cell.parameters())


def test_the_single_mixture_touches_what_was_drawn_alone() -> None:
    gradient, cell, z = gradients("single")
    assert bool((gradient.abs().sum(dim=1) > 0).any())
    drawn = {
        f"edges.{edge}.{NAMES[place]}"
        for edge, place in zip(cell.edges, z.detach().argmax(dim=1).tolist(), strict=True)
    }
    for name, parameter in cell.edges.named_parameters(prefix="edges"):
        assert (parameter.grad is not None) == (name.rsplit(".", 2 if ".norm." in name else 1)[0] in drawn), (
            name
        )
    full, other, _ = gradients("full")
    assert not torch.allclose(full, gradient)
    assert float(other.mix.attention.detach().sum()) == float(cell.mix.attention.detach().sum())


def test_none_everywhere_leaves_the_input() -> None:
    none = Architecture.from_edges(["none"] * 6)
    assert torch.equal(mixed().eval()(X, windows(), one_hot(none, NAMES), "single"), X)
