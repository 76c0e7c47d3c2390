"""Cells: worked outputs, causality, padding, sizes, and the description of an architecture."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from recdistill.errors import OptionError
from recdistill.models.architecture import OPERATIONS, SPACES, Architecture
from recdistill.models.cells import Cell, Convolution, MaskedBatchNorm, make_operation, taps

GENERATOR = torch.Generator().manual_seed(0)
EVERY = Architecture(
    (("conv3",), ("max3", "conv5d2"), ("avg3", "conv3d2", "skip"), ("none", "conv5", "none", "conv3"))
)


def sequence(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def convolved(name: str, values: list[float]) -> list[float]:
    """1, 10 and 100 times the positions read, oldest first."""
    convolution = make_operation(name, 1, GENERATOR)
    assert isinstance(convolution, Convolution)
    with torch.no_grad():
        convolution.matrix.copy_(torch.tensor([1, 10, 100])[:, None])
        convolution.bias.zero_()
        convolution.norm.variance.fill_(1 - MaskedBatchNorm.epsilon)
    return convolution.double().eval()(sequence(values), None).flatten().tolist()


def test_convolutions_by_hand() -> None:
    assert convolved("conv3d2", [1, 2, 3, 4, 5]) == pytest.approx([100, 200, 310, 420, 531])
    assert convolved("around3d2", [1, 2, 3, 4, 5]) == pytest.approx([310, 420, 531, 42, 53])


def test_pools_by_hand() -> None:
    x = sequence([1, 3, 0, 2, 1])
    found = {
        name: make_operation(name, 1, GENERATOR) for name in ("max3", "aroundmax3", "avg3", "aroundavg3")
    }
    values = {
        name: module(x, None).flatten().tolist() for name, module in found.items() if module is not None
    }
    assert values["max3"] == [1, 3, 3, 3, 2]
    assert values["aroundmax3"] == [3, 3, 3, 2, 2]
    assert values["avg3"] == pytest.approx([1 / 3, 4 / 3, 4 / 3, 5 / 3, 1])
    assert values["aroundavg3"] == pytest.approx([4 / 3, 4 / 3, 5 / 3, 1, 1])


def test_a_cell_by_hand() -> None:
    """All skip, N = 2: u = ½ x + ½ 2x = (1.5, 3, 4.5)."""
    cell = Cell(Architecture.parse("skip; skip, skip"), 3, GENERATOR).double()
    nn.init.zeros_(cell.mix.attention)
    found = cell(torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.float64), None)
    torch.testing.assert_close(
        found[0, 0], torch.tensor([1, 2, 4.22474487], dtype=torch.float64), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("dim", [32, 64])
def test_sizes(dim: int) -> None:
    def size(name: str) -> int:
        edges = "; ".join(", ".join([name] * n) for n in (1, 2, 3))
        cell = Cell(Architecture.parse(edges), dim, GENERATOR)
        return 4 * sum(parameter.numel() for parameter in cell.parameters())

    expected = {32: (125_452, 76_300, 268), 64: (496_652, 300_044, 524)}[dim]
    assert (size("conv5"), size("conv3d2"), size("skip")) == expected


def filled(cell: Cell) -> Cell:
    """``cell`` whose normalisation has statistics of its own."""
    for module in cell.modules():
        if isinstance(module, MaskedBatchNorm):
            module.mean.normal_(generator=GENERATOR)
            module.variance.uniform_(0.5, 2, generator=GENERATOR)
            nn.init.normal_(module.shift, generator=GENERATOR)
    return cell


def test_the_future_changes_nothing_before_it() -> None:
    cell = filled(Cell(EVERY, 4, GENERATOR)).double().eval()
    x = torch.randn(2, 30, 4, dtype=torch.float64, generator=GENERATOR)
    for at in (0, 7, 29):
        changed = x.clone()
        changed[:, at:] = torch.randn(2, 30 - at, 4, dtype=torch.float64, generator=GENERATOR)
        assert torch.equal(cell(x, None)[:, :at], cell(changed, None)[:, :at])


def test_the_released_operations_look_ahead() -> None:
    x = torch.randn(1, 9, 4, generator=GENERATOR)
    changed = x.clone()
    changed[:, 5] += 5.0
    for name in SPACES["released"]:
        module = make_operation(name, 4, GENERATOR)
        if module is None:
            continue
        before = torch.equal(module.eval()(x, None)[:, :5], module(changed, None)[:, :5])
        assert before == OPERATIONS[name].causal, name
    assert not Architecture.parse("around3").causal
    assert EVERY.causal
    assert all(OPERATIONS[name].causal for name in SPACES["causal"])


@pytest.mark.parametrize("training", [False, True])
def test_left_padding_changes_nothing(training: bool) -> None:
    torch.manual_seed(0)
    cell = filled(Cell(EVERY, 4, GENERATOR)).double().train(training)
    x = torch.randn(3, 12, 4, dtype=torch.float64, generator=GENERATOR)
    lengths = torch.tensor([12, 5, 1])
    present = torch.arange(12) >= 12 - lengths[:, None]
    found = cell(x, present)[present]
    padded = torch.cat([torch.randn(3, 6, 4, dtype=torch.float64, generator=GENERATOR), x], dim=1)
    longer = torch.cat([torch.zeros(3, 6, dtype=torch.bool), present], dim=1)
    torch.testing.assert_close(cell(padded, longer)[longer], found)
    if not training:
        alone = cell(x[2:, -1:], None)
        torch.testing.assert_close(alone[0, 0], found[-1])


def test_batch_norm_is_that_of_the_positions_that_are_there() -> None:
    own, theirs = MaskedBatchNorm(4).double(), nn.BatchNorm1d(4).double()
    x = 3 * torch.randn(5, 6, 4, dtype=torch.float64, generator=GENERATOR) + 1
    present = torch.rand(5, 6, generator=GENERATOR) < 0.6
    for _ in range(2):
        torch.testing.assert_close(own(x, present)[present], theirs(x[present]))
    mean, variance = theirs.running_mean, theirs.running_var
    assert mean is not None
    assert variance is not None
    torch.testing.assert_close(own.mean, mean)
    torch.testing.assert_close(own.variance, variance)
    torch.testing.assert_close(own(x, None).flatten(0, 1), theirs(x.flatten(0, 1)))
    single = torch.zeros(5, 6, dtype=torch.bool)
    single[0, 0] = True
    assert bool(torch.isfinite(own(x, single)).all())


def test_eval_is_the_convolution_followed_by_its_normalisation() -> None:
    module = make_operation("conv5d2", 4, GENERATOR)
    assert isinstance(module, Convolution)
    module.double()
    module.norm.mean.normal_(generator=GENERATOR)
    module.norm.variance.uniform_(0.5, 2, generator=GENERATOR)
    x = torch.randn(2, 9, 4, dtype=torch.float64, generator=GENERATOR)
    plain = nn.functional.conv1d(
        nn.functional.pad(x.transpose(1, 2), (8, 0)),
        module.matrix.view(5, 4, 4).permute(2, 1, 0),
        module.bias,
        dilation=2,
    )
    norm = module.norm
    expected = nn.functional.batch_norm(
        plain, norm.mean, norm.variance, norm.scale, norm.shift, eps=MaskedBatchNorm.epsilon
    )
    torch.testing.assert_close(module.eval()(x, None), expected.transpose(1, 2))


def test_reach_is_how_far_back_an_output_hears() -> None:
    assert EVERY.reach == 2 + 8 + 0 + 2  # conv3, conv5d2, skip, conv3: longer than by way of node 1 and conv5
    assert Architecture.parse("none; none, conv5").reach == 0
    assert Architecture.parse("none; conv3, conv5d2").reach == 2
    x = torch.randn(1, 40, 4, dtype=torch.float64, generator=GENERATOR)
    constant = Architecture.parse(
        "none; none, conv5; skip, skip, conv3"
    )  # 0, a constant, a constant that ends
    for architecture in (EVERY, constant):
        cell = filled(Cell(architecture, 4, GENERATOR)).double().eval()
        short = x[:, -architecture.reach - 1 :]
        torch.testing.assert_close(cell(short, None)[:, -1], cell(x, None)[:, -1])
    cell = filled(Cell(EVERY, 4, GENERATOR)).double().eval()
    changed = x.clone()
    changed[:, -EVERY.reach - 1] += 10
    assert not torch.equal(cell(changed, None)[:, -1], cell(x, None)[:, -1])


def test_a_cell_of_none_adds_a_constant() -> None:
    architecture = Architecture.parse("none; none, none")
    assert architecture.empty
    cell = Cell(architecture, 4, GENERATOR)
    x = torch.randn(1, 3, 4, generator=GENERATOR)
    assert torch.equal(cell(x, None), x)
    assert list(cell.edges) == []


def test_descriptions_come_back() -> None:
    assert Architecture.parse(str(EVERY)) == EVERY
    assert Architecture.from_json(json.loads(json.dumps(EVERY.to_json()))) == EVERY
    assert Architecture.from_edges(EVERY.edges) == EVERY
    assert EVERY.drawn().splitlines() == [
        "1 = conv3(input)",
        "2 = max3(input) + conv5d2(1)",
        "3 = avg3(input) + conv3d2(1) + skip(2)",
        "4 = conv5(1) + conv3(3)",
        "output = input + relu(norm(mean of 1, 2, 3, 4))",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one node"),
        ("conv3; skip", "node 2 has 1 operations; expected 2"),
        ("conv3, skip", "node 1 has 2 operations"),
        ("conv4", "no operation is called 'conv4'"),
    ],
)
def test_bad_descriptions_are_named(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Architecture.parse(text)


def test_taps_are_views_in_order() -> None:
    x = sequence([1, 2, 3])
    assert [tap.flatten().tolist() for tap in taps(x, OPERATIONS["conv3"])] == [
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
    ]
