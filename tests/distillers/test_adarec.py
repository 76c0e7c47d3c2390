"""AdaRec's loss: the equation by hand, its parts, weights of layers, conformance."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill.data.interactions import Interactions
from recdistill.distillers.adarec import AdaRec
from recdistill.distillers.layers import layer_distances
from recdistill.distillers.logit_kd import LogitKD
from recdistill.errors import OptionError
from recdistill.ops.divergence import divergence
from recdistill.ops.transport import cooperative_weights, transport_plan
from recdistill.testing import check_sequence_distiller
from sequence_cases import DATA, ONCE, Step, value


@pytest.mark.parametrize("reverse", [False, True])
def test_the_equation_by_hand(reverse: bool) -> None:
    direction: Any = "reverse" if reverse else "forward"
    step = Step(AdaRec(direction=direction, embeddings=0.5, hidden=2.0, logits=3.0, temperature=2.0))
    method: Any = step.method
    first = step.student.embeddings @ method.of_embeddings.map.matrix + method.of_embeddings.map.bias
    expected = 0.5 * (first - step.teacher.embeddings).square().mean()
    layers = torch.stack(step.student.hidden_states) @ method.of_layers.map.matrix + method.of_layers.map.bias
    cost = layer_distances(layers, torch.stack(step.teacher.hidden_states), "kl", reverse)
    plan = transport_plan(cost, torch.full((2,), 0.5), torch.full((4,), 0.25))
    expected = expected + 2 * (plan * cost).sum()
    logits = divergence(step.student.logits(), step.teacher.logits(), 2.0, reverse).mean()
    torch.testing.assert_close(step.loss(), expected + 3 * logits)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_teachers_weights_follow_the_forward_divergence(direction: Any) -> None:
    step = Step(AdaRec(direction=direction, smoothing=0.0))
    method: Any = step.method
    layers = torch.stack(step.student.hidden_states) @ method.of_layers.map.matrix + method.of_layers.map.bias
    targets = torch.stack(step.teacher.hidden_states)
    cost = layer_distances(layers, targets, "kl", direction == "reverse").detach()
    w, u = torch.full((2,), 0.5), torch.full((4,), 0.25)
    plan = transport_plan(cost, w, u)
    step.loss()
    step.objective.after_step()
    own, _ = cooperative_weights(plan, cost, w, u, smoothing=0.0)
    _, others = cooperative_weights(plan, layer_distances(layers, targets).detach(), w, u, smoothing=0.0)
    torch.testing.assert_close(method.transport.student_weights, own)
    torch.testing.assert_close(method.transport.teacher_weights, others)


def test_every_option_changes_the_loss() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"embeddings": 0.0},
        {"hidden": 0.0},
        {"logits": 0.0},
        {"metric": "mse"},
        {"direction": "reverse"},
        {"temperature": 2.0},
        {"solver": "sinkhorn"},
        {"logit_rows": 1},
        {"places": "newest"},
        {"places": "newest", "logit_rows": 1},
        {"places": "newest", "temperature": 2.0},
        {"places": "newest", "direction": "reverse"},
    ]
    found = [value(AdaRec(**options)) for options in changes]
    assert len(set(found)) == len(found)
    for options in ({"weight_temperature": 1.0}, {"smoothing": 0.0}):
        step, other = Step(AdaRec()), Step(AdaRec(**options))
        for each in (step, other):
            each.loss()
            each.objective.after_step()
        first, second = (each.method.get_buffer("transport.student_weights") for each in (step, other))
        assert not torch.equal(first, second), options


def test_some_items_stand_for_all() -> None:
    step = Step(AdaRec(embeddings=0.0, hidden=0.0, logit_rows=2))
    each = divergence(step.student.logits(), step.teacher.logits())
    method: Any = step.method
    state = method.generator.get_state()
    drawn = torch.randperm(len(each), generator=method.generator)[:2]
    method.generator.set_state(state)
    assert len(each) > 2
    torch.testing.assert_close(step.loss(), each[drawn].mean())
    assert not torch.equal(step.loss(), each[drawn].mean())  # drawn anew
    everything = Step(AdaRec(embeddings=0.0, hidden=0.0, logit_rows=1000))
    torch.testing.assert_close(everything.loss(), each.mean())


@pytest.mark.parametrize("data", [DATA, ONCE], ids=["again", "once"])
@pytest.mark.parametrize("reverse", [False, True])
def test_logits_at_the_newest_items(reverse: bool, data: Interactions) -> None:
    direction: Any = "reverse" if reverse else "forward"
    options: dict[str, Any] = {
        "places": "newest",
        "direction": direction,
        "temperature": 2.0,
        "mask_seen": data is ONCE,
    }
    step = Step(AdaRec(embeddings=0.0, hidden=0.0, logits=3.0, **options), data=data)
    users = step.batch.users
    assert step.objective.knowledge is not None
    targets = step.objective.knowledge.state(step.batch).scores(users)
    if data is ONCE:
        pairs = torch.cartesian_prod(users, torch.arange(data.num_items)).unbind(1)
        targets = targets.masked_fill(data.contains(*pairs).view_as(targets), -torch.inf)
    each = divergence(step.student.scores(users), targets, 2.0, reverse)
    torch.testing.assert_close(step.loss(), 3 * each.mean())
    whole = Step(AdaRec(**options), data=data).loss() - Step(AdaRec(logits=0.0, **options), data=data).loss()
    torch.testing.assert_close(whole, each.mean())
    some = Step(AdaRec(embeddings=0.0, hidden=0.0, logit_rows=2, **options), data=data)
    method: Any = some.method
    drawn = torch.randperm(len(each), generator=torch.Generator().manual_seed(0))
    method.generator.manual_seed(0)
    torch.testing.assert_close(some.loss(), each[drawn[:2]].mean())


def test_logits_of_what_was_not_seen() -> None:
    step = Step(AdaRec(embeddings=0.0, hidden=0.0, mask_seen=True), data=ONCE)
    expected = Step(LogitKD(mask_seen=True), data=ONCE).loss()
    torch.testing.assert_close(step.loss(), expected)
    unmasked = Step(AdaRec(embeddings=0.0, hidden=0.0), data=ONCE).loss()
    assert float(unmasked.detach()) != float(expected.detach())


def test_what_is_read_is_what_is_needed() -> None:
    logits: dict[str, Any] = {"embeddings": 0.0, "hidden": 0.0}
    assert AdaRec().needs == AdaRec(**logits).needs == {"hidden_states"}
    assert AdaRec(places="newest").needs == {"hidden_states", "scores"}
    assert AdaRec(places="newest", **logits).needs == {"scores"}
    assert AdaRec(places="newest", logits=0.0).needs == {"hidden_states"}


def test_facts_are_the_layers_weights() -> None:
    step = Step(AdaRec())
    step.loss()
    step.objective.after_step()
    facts = step.objective.facts()["adarec"]
    assert [name for name in facts if name.startswith("student")] == ["student 1", "student 2"]
    assert sum(share for name, share in facts.items() if name.startswith("flow")) == pytest.approx(1)
    assert sum(facts.values()) == pytest.approx(3)
    assert Step(AdaRec(hidden=0.0)).objective.facts() == {}


def test_some_part_is_needed() -> None:
    with pytest.raises(OptionError, match="every part has weight 0"):
        AdaRec(embeddings=0.0, hidden=0.0, logits=0.0)


@pytest.mark.parametrize("part", ["embeddings", "hidden", "logits", None])
def test_conforms(part: str | None) -> None:
    options: dict[str, Any] = (
        {} if part is None else {"embeddings": 0.0, "hidden": 0.0, "logits": 0.0, part: 1.0}
    )
    check_sequence_distiller(lambda: AdaRec(**options))


def test_conforms_with_some_items() -> None:
    check_sequence_distiller(lambda: AdaRec(logit_rows=2))


@pytest.mark.parametrize("options", [{}, {"logit_rows": 2}, {"embeddings": 0.0, "hidden": 0.0}])
def test_conforms_at_the_newest_items(options: dict[str, Any]) -> None:
    check_sequence_distiller(lambda: AdaRec(places="newest", **options))
