"""The supernet: what comes out of it computes the same, draws, groups of parameters, searches that resume exactly."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill import config
from recdistill.distillers.adarec import AdaRec
from recdistill.distillers.base import Objective
from recdistill.knowledge.teacher import live
from recdistill.models.architecture import Architecture
from recdistill.models.cellnet import CellNet
from recdistill.models.cells import BatchNorm, Neighbours
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_batches import Places
from recdistill.searching.budget import Meter, Part
from recdistill.searching.cost_term import CostTerm
from recdistill.searching.costs import cost_table
from recdistill.searching.supernet import SearchBatch, Supernet, of_users
from recdistill.testing import CPU, built, check_sequence_model, tiny_sequences
from recdistill.training.loop import Result, train
from recdistill.training.options import TrainingOptions

DATA = tiny_sequences()
SMALL: dict[str, Any] = {"dim": 4, "nodes": 2, "cells": 2, "max_length": 8}


def supernet(**options: Any) -> Supernet:
    return Supernet(**{**SMALL, **options})


def made(**options: Any) -> Supernet:
    model = built(supernet(**options), DATA, scale=3.0)
    assert isinstance(model, Supernet)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.mean.normal_(generator=generator)
            module.variance.uniform_(0.5, 2, generator=generator)
    return model


@pytest.mark.parametrize("options", [{"dropout": 0.0}, {"mixture": "single", "head": "untied"}], ids=str)
def test_conforms_but_for_what_is_not_drawn(options: dict[str, Any]) -> None:
    """Here the last number of cells is always drawn; operations that are not have no gradient."""

    class Deep(Supernet):
        def build_layers(self, generator: torch.Generator) -> None:
            super().build_layers(generator)
            self.architecture["cells"].data[0, -1] += 100.0

    single = options.get("mixture") == "single"
    unreached = pytest.raises(AssertionError, match="no gradient reaches") if single else nullcontext()
    with unreached:
        check_sequence_model(lambda: Deep(**{**SMALL, **options}))


@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_the_student_that_is_derived_computes_the_same(cells: int, head: str) -> None:
    model = made(head=head).eval()
    architecture = Architecture.parse("conv5d2; skip, conv3")
    with torch.no_grad():
        model.architecture["operations"].zero_()
        for edge, name in enumerate(architecture.edges):
            model.architecture["operations"][edge, model.operations.index(name)] = 1.0
        model.architecture["cells"].zero_()
        model.architecture["cells"][0, cells - 1] = 1.0
    student = model.student(architecture, cells)
    student.build(DATA, torch.Generator())
    student.load_state_dict(model.weights_of(architecture, cells))
    student.eval()
    places = Places(torch.tensor([[-1, 3, 1, 3, 5], [2, 2, 4, 0, 1]]))
    with torch.no_grad():
        one, other = model.encode(places), student.encode(places)
    torch.testing.assert_close(one.outputs, other.outputs)
    assert len(one.hidden_states) == len(other.hidden_states) == cells
    for left, right in zip(one.hidden_states, other.hidden_states, strict=True):
        torch.testing.assert_close(left, right)


def test_training_draws_and_evaluation_does_not() -> None:
    model = made()
    places = Places(torch.tensor([[3, 1, 3]]))

    def drawn() -> list[int]:
        model.encode(places)
        assert model.drawn is not None
        return [*model.drawn[0].detach().argmax(dim=1).tolist(), int(model.drawn[1].detach().argmax())]

    model.train()
    model.generator = torch.Generator().manual_seed(0)
    first = [drawn() for _ in range(20)]
    model.generator = torch.Generator().manual_seed(0)
    assert [drawn() for _ in range(20)] == first
    assert len({tuple(found) for found in first}) > 10
    assert {found[-1] for found in first} == {0, 1}
    model.eval()
    assert len({tuple(drawn()) for _ in range(5)}) == 1


@pytest.mark.parametrize("mixture", ["full", "single"])
def test_numbers_of_cells_that_compute_the_same_have_no_gradient_apart(mixture: Any) -> None:
    """With ``none`` on every edge all cells pass on the same, so that nothing speaks for one number of them."""
    model = made(cells=4, mixture=mixture, dropout=0.0).train()
    with torch.no_grad():
        model.architecture["operations"].fill_(-1e4)[:, model.operations.index("none")] = 1e4
        for cell in model.cells[1:]:
            cell.load_state_dict(model.cells[0].state_dict())
    model.generator = torch.Generator().manual_seed(0)
    places = Places(torch.tensor([[3, 1, 3], [2, 0, 1]]))
    hidden: list[Tensor] = []
    for _ in range(12):
        encoded = model.encode(places)
        hidden = list(encoded.hidden_states)
        model.architecture["cells"].grad = None
        encoded.outputs.square().sum().backward()
        found = model.architecture["cells"].grad
        assert found is not None
        assert all(torch.allclose(hidden[0], other) for other in hidden)
        torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mixture", ["full", "single"])
def test_the_gradient_of_the_number_of_cells_reads_every_number(mixture: Any) -> None:
    """∂L/∂d_n = ⟨∂L/∂output, x_n⟩ for deeper cells too, by hand."""
    model = made(cells=3, mixture=mixture, dropout=0.0).train()
    model.generator = torch.Generator().manual_seed(3)
    places = Places(torch.tensor([[3, 1, 3], [2, 0, 1]]))
    for _ in range(8):
        encoded = model.encode(places)
        assert model.drawn is not None
        choices, depth = model.drawn
        (found,) = torch.autograd.grad(encoded.outputs.sum(), depth)
        with torch.no_grad():
            x, each = encoded.embeddings, list[Tensor]()
            for cell in model.cells:
                x = cell(x, Neighbours(places), choices, mixture)
                each.append(x.sum())
        torch.testing.assert_close(found, torch.stack(each), rtol=1e-4, atol=1e-5)


def test_evaluation_computes_the_derived_architecture() -> None:
    model = made(cells=2)
    architecture = Architecture.parse("conv5d2; none, conv3")
    student = model.student(architecture, 1)
    student.build(DATA, torch.Generator())
    student.load_state_dict(model.weights_of(architecture, 1))
    places = Places(torch.tensor([[-1, 3, 1, 3, 5], [2, 2, 4, 0, 1]]))
    model.derivation = lambda: (architecture, 1)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().encode(places).outputs, student.eval().encode(places).outputs)
        other = Architecture.parse("conv3; conv3, conv3")
        model.derivation = lambda: (other, 2)
        kept = model.encode(places).outputs
        torch.testing.assert_close(kept, student.encode(places).outputs)  # nothing has been learnt since
        assert not torch.allclose(model.train().eval().encode(places).outputs, kept)


METHODS = ["adarec", "bert-emd", "layer-map", "hint", "logit-kd", "rrd", "rce-kd", "de"]


@pytest.mark.parametrize("method", [*METHODS, "hint.1"])
def test_methods_learn_from_however_many_cells_are_drawn(method: str) -> None:
    name, _, layer = method.partition(".")
    built_method = config.find("distillers", name)(**({"student_layer": int(layer)} if layer else {}))
    model = supernet(cells=3, mixture="single")
    teacher = built(SASRec(dim=6, blocks=2, max_length=8), DATA)
    objective = Objective([built_method, CostTerm()], live(teacher, DATA))
    result = train(model, objective, DATA, TrainingOptions(epochs=6, batch_size=16))
    assert all(math.isfinite(record["loss"]) for record in result.history)


def test_the_student_has_every_option_of_the_search() -> None:
    given: dict[str, Any] = {
        "loss": "sampled-softmax",
        "popularity": 0.7,
        "calibration": 0.3,
        "num_negatives": 4,
    }
    student = made(**given).student(Architecture.parse("conv3; skip, conv3"), 1)
    for name, value in {**given, "dim": 4, "max_length": 8}.items():
        assert student.options[name] == value
    missing = set(config.option_names(CellNet)) - set(config.option_names(Supernet))
    assert missing == {"architecture"}


def test_the_architecture_may_be_frozen() -> None:
    model = made().train()
    model.frozen_architecture.fill_(True)
    assert model.encode(Places(torch.tensor([[3, 1, 3]]))).outputs.requires_grad
    assert model.drawn is not None
    assert not model.drawn[0].requires_grad


@pytest.mark.parametrize("mixture", ["full", "single"])
def test_a_fixed_number_of_cells(mixture: Any) -> None:
    model = made(search_cells=False, mixture=mixture).train()
    for _ in range(5):
        assert len(model.encode(Places(torch.tensor([[3, 1, 3]]))).hidden_states) == 2


def test_halves_of_users_for_weights_and_architecture() -> None:
    model = made(bilevel=True)
    weights, apart = set[int](), set[int]()
    for batch in model.batches(DATA, 5, torch.Generator().manual_seed(0)):
        assert isinstance(batch, SearchBatch)
        assert batch.held_out is not None
        weights |= set(batch.users.tolist())
        apart |= set(batch.held_out.users.tolist())
    assert weights
    assert apart
    assert not weights & apart
    assert model.parameter_groups()[0].own_batches
    kept = of_users(DATA, model.held_out_users)
    assert kept.num_users == DATA.num_users
    assert kept.has_order


class _Search:
    """A search of a few epochs on tiny data."""

    def __init__(
        self, work: Path | None = None, epochs: int = 3, resume: bool = False, **options: Any
    ) -> None:
        self.model = supernet(architecture_rate=0.05, **options)
        teacher = built(SASRec(dim=6, blocks=3, max_length=8), DATA, seed=7, scale=5.0)
        parts = {name: Part(0.1 * n) for n, name in enumerate(self.model.operations)}
        meters = [Meter("x", Part(0.0), Part(0.1), parts, 0.5)]
        self.cost = CostTerm(meters=meters, price_rate=0.5, warmup=1, schedule=(1.0, 0.5, 1, 0.3))
        self.objective = Objective([AdaRec(), self.cost], live(teacher, DATA), 0.5)
        settings = TrainingOptions(epochs=epochs, batch_size=3, checkpoint_seconds=0.0, learning_rate=0.01)
        self.result: Result = train(
            self.model, self.objective, DATA, settings, seed=3, work=work, resume=resume
        )

    def state(self) -> dict[str, Tensor]:
        return {**self.model.state_dict(), **{f"o.{k}": v for k, v in self.objective.state_dict().items()}}


class _Stop(Exception):
    pass


@pytest.mark.parametrize("options", [{}, {"bilevel": True}, {"mixture": "single"}], ids=str)
def test_a_search_resumes_exactly(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _Search(**options)
    steps = 0
    after = CostTerm.after_step

    def interrupted(self: CostTerm) -> None:
        nonlocal steps
        steps += 1
        if steps == (2 if options.get("bilevel") else 5):
            raise _Stop
        after(self)

    monkeypatch.setattr(CostTerm, "after_step", interrupted)
    with pytest.raises(_Stop):
        _Search(tmp_path, **options)
    monkeypatch.setattr(CostTerm, "after_step", after)
    resumed = _Search(tmp_path, resume=True, **options)
    assert 0 < resumed.result.history[-1]["epoch"] == 3
    for name, value in whole.state().items():
        assert torch.equal(value, resumed.state()[name]), name


@pytest.mark.parametrize("bilevel", [False, True])
def test_what_learns_in_which_step(bilevel: bool) -> None:
    first = _Search(epochs=1, bilevel=bilevel).model  # warm-up: the weights alone
    fresh = supernet(bilevel=bilevel)
    fresh.build(DATA, torch.Generator().manual_seed(3 * 1_000_003))
    for name, value in fresh.architecture.items():
        assert torch.equal(value, first.architecture[name]), name
    assert not torch.equal(first.item_table, fresh.item_table)
    later = _Search(epochs=2, bilevel=bilevel).model
    assert not torch.equal(later.architecture["operations"], fresh.architecture["operations"])


def test_prices_rise_while_what_is_drawn_costs_too_much() -> None:
    found = _Search(epochs=3)
    assert float(found.cost.get_buffer("prices")) > 0
    facts = found.result.history[-1]["facts"]["cost-term"]
    assert facts["temperature"] == pytest.approx(0.3)
    assert facts["price x"] == pytest.approx(float(found.cost.get_buffer("prices")))
    assert sum(value for name, value in facts.items() if name.startswith("2<1 ")) == pytest.approx(1)
    assert sum(value for name, value in facts.items() if name.startswith("cells ")) == pytest.approx(1)


def test_prices_rise_and_fall_by_a_step_at_most() -> None:
    cost = _Search(epochs=3).cost  # out of its warm-up
    prices, ratios = cost.get_buffer("prices"), cost.get_buffer("ratios")
    prices.fill_(1.0)
    for ratio, expected in ((40.0, 1.5), (1.2, 1.6), (0.5, 1.35), (0.0, 0.85), (0.0, 0.35), (0.0, 0.0)):
        ratios.fill_(ratio)
        cost.after_step()
        assert float(prices) == pytest.approx(expected)


@pytest.mark.parametrize("cost", ["linear", "adabert", "released"])
def test_the_trade_off_by_hand(cost: Any) -> None:
    model = made().train()
    term = CostTerm(cost=cost, beta=2.0)
    objective = Objective([term], live(built(SASRec(dim=6, max_length=8), DATA), DATA), 0.0)
    objective.setup(model, DATA, 3, torch.Generator().manual_seed(0), torch.device("cpu"))
    objective.start_epoch(0)
    batch = next(model.batches(DATA, 100, torch.Generator()))
    state = model.state(batch)
    state.user_embeddings(batch.users)
    (found,) = objective.terms(model, state, batch).values()
    assert model.drawn is not None
    choices, depth = (part.detach() for part in model.drawn)
    size = (100, 128) if cost == "released" else (8, 4)
    each = choices.double() @ cost_table(cost, model.operations, *size)
    cells = int(depth.argmax()) + 1
    expected = 2 * (each.sum() if cost == "released" else each.mean() * cells / 2)
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)
    found.backward()
    assert model.architecture["operations"].grad is not None


def test_the_held_out_users_are_those_of_the_architecture() -> None:
    model: Any = built(supernet(bilevel=True), DATA)
    for batch in model.batches(DATA, 5, torch.Generator().manual_seed(0)):
        assert not bool(model.held_out_users[batch.users].any())
        assert bool(model.held_out_users[batch.held_out.users].all())


def test_the_number_of_cells_is_frozen_too() -> None:
    model: Any = built(supernet(), DATA).train()
    model.frozen_architecture.fill_(True)
    model.encode(Places(torch.tensor([[3, 1, 3]])))
    assert not model.drawn[1].requires_grad


def test_prices_stand_still_while_the_architecture_is_frozen() -> None:
    model: Any = built(supernet(), DATA)
    parts = {name: Part(0.1) for name in model.operations}
    term = CostTerm(meters=[Meter("x", Part(0.0), Part(0.1), parts, 0.5)], warmup=1)
    objective = Objective([term], live(built(SASRec(dim=6, max_length=8), DATA), DATA), 0.0)
    objective.setup(model, DATA, 3, torch.Generator().manual_seed(0), CPU)
    for epoch, expected in ((0, 0.0), (1, 0.05)):
        objective.start_epoch(epoch)
        term.get_buffer("ratios").fill_(9.0)
        objective.after_step()
        assert float(term.get_buffer("prices")) == pytest.approx(expected)


def test_the_priced_loss_by_hand() -> None:
    model: Any = built(supernet(), DATA).train()
    parts = {name: Part(0.1 * n) for n, name in enumerate(model.operations)}
    term = CostTerm(meters=[Meter("x", Part(0.2), Part(0.1), parts, 0.7)])
    objective = Objective([term], live(built(SASRec(dim=6, max_length=8), DATA), DATA), 0.0)
    objective.setup(model, DATA, 3, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    term.get_buffer("prices").fill_(3.0)
    batch = next(model.batches(DATA, 100, torch.Generator()))
    state = model.state(batch)
    assert len(state.embeddings)  # draws
    (found,) = objective.terms(model, state, batch).values()
    edges = model.drawn[0].detach().argmax(dim=1)
    cells = int(model.drawn[1].detach().argmax()) + 1
    ratio = cells * (0.1 + 0.1 * float(edges.sum())) / 0.5
    assert float(found.detach()) == pytest.approx(3 * (ratio - 1), rel=1e-5)
