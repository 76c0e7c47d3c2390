"""Cells: worked outputs, causality, padding, sizes, and the description of an architecture."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from recdistill.errors import OptionError
from recdistill.models.architecture import OPERATIONS, SPACES, Architecture
from recdistill.models.cells import BatchNorm, Cell, Convolution, Neighbours, Reads, make_operation
from recdistill.models.sequence_batches import Places

GENERATOR = torch.Generator().manual_seed(0)
EVERY = Architecture(
    (("conv3",), ("max3", "conv5d2"), ("avg3", "conv3d2", "skip"), ("none", "conv5", "none", "conv3"))
)


def places(*lengths: int, padding: int = 0) -> Places:
    """Windows of so many items each."""
    width = max(lengths) + padding
    return Places(torch.where(torch.arange(width) >= width - torch.tensor(lengths)[:, None], 0, -1))


def reads(*windows: list[float]) -> Reads:
    x = torch.tensor([value for window in windows for value in window], dtype=torch.float64)[:, None]
    return Reads(x, Neighbours(places(*(len(window) for window in windows))))


def run(cell: Cell, x: Tensor, *lengths: int, padding: int = 0) -> Tensor:
    return cell(x, Neighbours(places(*lengths, padding=padding)))


def convolved(name: str, values: list[float]) -> list[float]:
    """1, 10 and 100 times the positions read, oldest first."""
    convolution = make_operation(name, 1, GENERATOR)
    assert isinstance(convolution, Convolution)
    with torch.no_grad():
        convolution.matrix.copy_(torch.tensor([1, 10, 100])[:, None])
        convolution.bias.zero_()
        convolution.norm.variance.fill_(1 - BatchNorm.epsilon)
    return convolution.double().eval()(reads(values)).flatten().tolist()


def test_convolutions_by_hand() -> None:
    assert convolved("conv3d2", [1, 2, 3, 4, 5]) == pytest.approx([100, 200, 310, 420, 531])
    assert convolved("around3d2", [1, 2, 3, 4, 5]) == pytest.approx([310, 420, 531, 42, 53])


def test_pools_by_hand() -> None:
    x = reads([1, 3, 0, 2, 1])
    found = {
        name: make_operation(name, 1, GENERATOR) for name in ("max3", "aroundmax3", "avg3", "aroundavg3")
    }
    values = {name: module(x).flatten().tolist() for name, module in found.items() if module is not None}
    assert values["max3"] == [1, 3, 3, 3, 2]
    assert values["aroundmax3"] == [3, 3, 3, 2, 2]
    assert values["avg3"] == pytest.approx([1 / 3, 4 / 3, 4 / 3, 5 / 3, 1])
    assert values["aroundavg3"] == pytest.approx([4 / 3, 4 / 3, 5 / 3, 1, 1])


def test_a_cell_by_hand() -> None:
    """All skip, N = 2: u = ½ x + ½ 2x = (1.5, 3, 4.5)."""
    cell = Cell(Architecture.parse("skip; skip, skip"), 3, GENERATOR).double()
    nn.init.zeros_(cell.mix.attention)
    found = run(cell, torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), 1)
    torch.testing.assert_close(
        found[0], torch.tensor([1, 2, 4.22474487], dtype=torch.float64), atol=1e-6, rtol=0
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
        if isinstance(module, BatchNorm):
            module.mean.normal_(generator=GENERATOR)
            module.variance.uniform_(0.5, 2, generator=GENERATOR)
            nn.init.normal_(module.shift, generator=GENERATOR)
    return cell


def test_the_future_changes_nothing_before_it() -> None:
    cell = filled(Cell(EVERY, 4, GENERATOR)).double().eval()
    x = torch.randn(60, 4, dtype=torch.float64, generator=GENERATOR)
    before = run(cell, x, 30, 30).view(2, 30, 4)
    for at in (0, 7, 29):
        changed = x.view(2, 30, 4).clone()
        changed[:, at:] = torch.randn(2, 30 - at, 4, dtype=torch.float64, generator=GENERATOR)
        found = run(cell, changed.flatten(0, 1), 30, 30).view(2, 30, 4)
        assert torch.equal(before[:, :at], found[:, :at])


def test_the_released_operations_look_ahead() -> None:
    x = torch.randn(9, 4, generator=GENERATOR)
    changed = x.clone()
    changed[5] += 5.0
    for name in SPACES["released"]:
        module = make_operation(name, 4, GENERATOR)
        if module is None:
            continue
        first, second = (module.eval()(Reads(each, Neighbours(places(9))))[:5] for each in (x, changed))
        assert torch.equal(first, second) == OPERATIONS[name].causal, name
    assert not Architecture.parse("around3").causal
    assert EVERY.causal
    assert all(OPERATIONS[name].causal for name in SPACES["causal"])


@pytest.mark.parametrize("architecture", [EVERY, Architecture.parse("around3d2; aroundmax3, aroundavg3")])
@pytest.mark.parametrize("training", [False, True])
def test_padding_and_neighbours_change_nothing(training: bool, architecture: Architecture) -> None:
    cell = filled(Cell(architecture, 4, GENERATOR)).double()
    x = torch.randn(18, 4, dtype=torch.float64, generator=GENERATOR)
    cell.train(training)
    found = run(cell, x, 12, 5, 1)
    torch.testing.assert_close(run(cell, x, 12, 5, 1, padding=6), found)
    again = run(cell, torch.cat([x[17:], x[:17]]), 1, 12, 5)  # training: the same rows in another order
    torch.testing.assert_close(torch.cat([again[1:], again[:1]]), found)
    if not training:
        torch.testing.assert_close(run(cell, x[12:17], 5), found[12:17])


def test_a_single_row_takes_running_statistics() -> None:
    norm = BatchNorm(4)
    norm.mean.fill_(2.0)
    found = norm.train()(torch.full((1, 4), 3.0))
    torch.testing.assert_close(found, torch.ones(1, 4), atol=1e-4, rtol=0)
    assert norm(torch.zeros(0, 4)).shape == (0, 4)


def test_eval_is_the_convolution_followed_by_its_normalisation() -> None:
    module = make_operation("conv5d2", 4, GENERATOR)
    assert isinstance(module, Convolution)
    module.double()
    module.norm.mean.normal_(generator=GENERATOR)
    module.norm.variance.uniform_(0.5, 2, generator=GENERATOR)
    x = torch.randn(2, 9, 4, dtype=torch.float64, generator=GENERATOR)
    read = Reads(x.flatten(0, 1), Neighbours(places(9, 9)))
    plain = nn.functional.conv1d(
        nn.functional.pad(x.transpose(1, 2), (8, 0)),
        module.matrix.view(5, 4, 4).permute(2, 1, 0),
        module.bias,
        dilation=2,
    )
    norm = module.norm
    expected = nn.functional.batch_norm(
        plain, norm.mean, norm.variance, norm.scale, norm.shift, eps=BatchNorm.epsilon
    )
    torch.testing.assert_close(module.eval()(read), expected.transpose(1, 2).flatten(0, 1))


def test_evaluation_without_gradients_computes_the_same() -> None:
    cell = filled(Cell(EVERY, 4, GENERATOR)).double().eval()
    x = torch.randn(9, 4, dtype=torch.float64, generator=GENERATOR)
    for lengths in ((9,), (4, 5)):
        with torch.no_grad():
            torch.testing.assert_close(run(cell, x, *lengths), run(cell, x, *lengths))
            found = run(cell, x, *lengths)
        torch.testing.assert_close(found, run(cell, x, *lengths))


def test_what_is_kept_for_evaluation_is_forgotten_when_weights_change() -> None:
    cell, other = (filled(Cell(EVERY, 4, GENERATOR)).eval() for _ in range(2))
    x = torch.randn(9, 4, generator=GENERATOR)
    with torch.no_grad():
        run(cell, x, 9)
        cell.load_state_dict(other.state_dict())
        assert torch.equal(run(cell, x, 9), run(other, x, 9))
        assert run(cell.double(), x.double(), 9).dtype == torch.float64
        cell.train()
        for parameter in cell.parameters():
            parameter.mul_(2.0)
        cell.eval()
        other.load_state_dict(cell.state_dict())
        assert torch.equal(run(cell, x.double(), 9), run(other.double(), x.double(), 9))


def test_reach_is_how_far_back_an_output_hears() -> None:
    assert EVERY.reach == 2 + 8 + 0 + 2  # conv3, conv5d2, skip, conv3: longer than by way of node 1 and conv5
    assert Architecture.parse("none; none, conv5").reach == 0
    assert Architecture.parse("none; conv3, conv5d2").reach == 2
    x = torch.randn(40, 4, dtype=torch.float64, generator=GENERATOR)
    constant = Architecture.parse(
        "none; none, conv5; skip, skip, conv3"
    )  # 0, a constant, a constant that ends
    for architecture in (EVERY, constant):
        cell = filled(Cell(architecture, 4, GENERATOR)).double().eval()
        size = architecture.reach + 1
        torch.testing.assert_close(run(cell, x[-size:], size)[-1], run(cell, x, 40)[-1])
    cell = filled(Cell(EVERY, 32, GENERATOR)).double().eval()  # wide: some of it is lost in each relu
    x = torch.randn(40, 32, dtype=torch.float64, generator=GENERATOR)
    changed = x.clone()
    changed[-EVERY.reach - 1] += 10
    assert not torch.equal(run(cell, changed, 40)[-1], run(cell, x, 40)[-1])


def test_a_cell_of_none_adds_a_constant() -> None:
    architecture = Architecture.parse("none; none, none")
    assert architecture.empty
    cell = Cell(architecture, 4, GENERATOR)
    x = torch.randn(3, 4, generator=GENERATOR)
    assert torch.equal(run(cell, x, 3), x)
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


def test_taps_are_in_order_and_end_with_their_window() -> None:
    found = reads([1, 2, 3], [4, 5])
    causal = [tap.flatten().tolist() for tap in found.taps(OPERATIONS["conv3"])]
    assert causal == [[0, 0, 1, 0, 0], [0, 1, 2, 0, 4], [1, 2, 3, 4, 5]]
    around = [tap.flatten().tolist() for tap in found.taps(OPERATIONS["around3"])]
    assert around == [[0, 1, 2, 0, 4], [1, 2, 3, 4, 5], [2, 3, 0, 5, 0]]
    assert found.window(OPERATIONS["conv3"])[1].tolist() == [0, 1, 2]
    short = [tap.flatten().tolist() for tap in reads([1, 2]).taps(OPERATIONS["conv5d2"])]
    assert short == [[0, 0], [0, 0], [0, 0], [0, 0], [1, 2]]
