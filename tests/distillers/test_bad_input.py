"""What every method does with options out of range, poor teachers and small catalogues."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recdistill import config, models
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Distiller, Objective
from recdistill.errors import MissingKnowledgeError, OptionError
from recdistill.knowledge.base import Lists
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.ranking import top_items, top_users
from recdistill.signatures import options_of
from recdistill.testing import CPU, batch_of, built, tiny_interactions

METHODS = config.names("distillers")


def make(name: str, **options: Any) -> Distiller:
    method = config.build(config.find("distillers", name), options, name)
    assert isinstance(method, Distiller)
    return method


ITEM_BY_ITEM = [name for name in METHODS if "hidden_states" in make(name).needs]
BY_USER = [name for name in METHODS if name not in ITEM_BY_ITEM]


def first_loss(method: Distiller, knowledge: TeacherKnowledge, interactions: Interactions) -> float:
    student = built(models.BPR(dim=3), interactions)
    objective = Objective([method], knowledge, base_weight=0.0)
    objective.setup(student, interactions, 3, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    batch = batch_of(interactions)
    (term,) = objective.terms(student, student.state(batch), batch).values()
    return float(term.detach())


def lists_only(interactions: Interactions, depth: int) -> TeacherKnowledge:
    """A store of top lists of ``depth``, without any scores to derive more from."""
    state = built(models.BPR(dim=5), interactions, seed=7).frozen()
    items = top_items(state, torch.arange(interactions.num_users), depth, exclude=[interactions])
    users = top_users(state, torch.arange(interactions.num_items), depth, exclude=interactions)
    lists = {"top_items": Lists(items[0].int(), items[1]), "top_users": Lists(users[0].int(), users[1])}
    return TeacherKnowledge(train=interactions, frozen=None, lists=lists)


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_or_temperature_of_zero_is_refused_by_name(method: str) -> None:
    cls = config.find("distillers", method)
    refused = [name for name in options_of(cls) if name == "weight" or "temperature" in name]
    assert "weight" in refused
    for name in refused:
        for value in (0.0, -1.0, float("nan")):
            with pytest.raises(
                OptionError, match=rf"{method}\.{name}: expected (a finite )?number > 0, found"
            ):
                config.build(cls, {name: value}, method)


@pytest.mark.parametrize("method", METHODS)
def test_counts_below_their_range_are_refused_by_name(method: str) -> None:
    cls = config.find("distillers", method)
    counts = [
        name
        for name, option in options_of(cls).items()
        if type(option.default) is int and option.default >= 0
    ]
    for name in counts:
        with pytest.raises(OptionError, match=rf"{method}\.{name}: expected integer >= \d+, found -1"):
            config.build(cls, {name: -1}, method)


@pytest.mark.parametrize("method", BY_USER)
def test_defaults_meant_for_catalogues_of_thousands_work_on_fourteen_items(method: str) -> None:
    interactions = tiny_interactions()
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    assert torch.isfinite(torch.tensor(first_loss(make(method), knowledge, interactions)))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("method", BY_USER)
def test_a_teacher_whose_scores_are_constant(method: str, value: float) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    teacher = built(models.BPR(dim=5), interactions, seed=7)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.fill_(value)
    knowledge = live(teacher, interactions)
    assert torch.isfinite(torch.tensor(first_loss(make(method), knowledge, interactions)))


@pytest.mark.parametrize("method", BY_USER)
def test_a_store_of_lists_alone_serves_a_method_or_says_what_it_lacks(method: str) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge, made = lists_only(interactions, 40), make(method)
    if made.needs <= {"top_items", "top_users", "trajectory"}:
        assert torch.isfinite(torch.tensor(first_loss(made, knowledge, interactions)))
        return
    with pytest.raises(
        MissingKnowledgeError, match=f"{method} reads .*the knowledge holds top_items"
    ) as caught:
        first_loss(made, knowledge, interactions)
    assert "recdistill extract DATA TEACHER --kinds" in caught.value.hint


@pytest.mark.parametrize("method", ["dcd", "ir-rrd"])
def test_item_side_methods_need_lists_of_users(method: str) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge = lists_only(interactions, 40)
    del knowledge.lists["top_users"]
    with pytest.raises(MissingKnowledgeError, match=f"{method} reads top_users"):
        first_loss(make(method), knowledge, interactions)


def test_lists_that_are_too_short_name_the_depth_there_is_and_the_price_of_more() -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    with pytest.raises(
        MissingKnowledgeError, match="depth 40 are read; the knowledge holds them to depth 6"
    ) as caught:
        first_loss(make("rrd", depth=40), lists_only(interactions, 6), interactions)
    assert "depth to 6 or less" in caught.value.hint
    assert "kB of lists" in caught.value.hint
    assert "--depth 40" in caught.value.hint


@pytest.mark.parametrize(("method", "option"), [("unkd", "num_groups"), ("htd", "num_groups")])
def test_more_groups_than_entities_leave_some_empty(method: str, option: str) -> None:
    interactions = tiny_interactions()
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    assert torch.isfinite(torch.tensor(first_loss(make(method, **{option: 60}), knowledge, interactions)))


@pytest.mark.parametrize("method", ITEM_BY_ITEM)
def test_what_is_read_item_by_item_needs_a_live_sequence_model(method: str) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    with pytest.raises(MissingKnowledgeError, match=f"{method} reads what each item of a history becomes"):
        first_loss(make(method), lists_only(interactions, 40), interactions)


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("rrd", "num_interesting"),
        ("rrd", "num_uninteresting"),
        ("sld", "num_uninteresting"),
        ("cd", "num_sampled"),
        ("rce-kd", "num_sampled"),
        ("rce-kd", "k"),
        ("kd", "k"),
        ("rd", "k"),
        ("soft-labels", "k"),
        ("dcd", "depth"),
        ("cpd", "num_items"),
        ("ir-rrd", "items_per_user"),
    ],
)
def test_more_items_than_users_have_left_are_cut_and_said(method: str, option: str) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    student, made = built(models.BPR(dim=3), interactions), make(method, **{option: 1_000_000})
    said: list[str] = []
    objective = Objective([made], knowledge, base_weight=0.0)
    objective.setup(student, interactions, 3, torch.Generator().manual_seed(0), CPU, said.append)
    most = interactions.num_items - int(interactions.user_counts.min())
    assert f"{method}.{option} is {most}, the items that users have left, not 1,000,000" in said
    assert max(buffer.shape[-1] for buffer in made.buffers() if buffer.ndim > 1) < 10 * interactions.num_items
    objective.start_epoch(0)
    batch = batch_of(interactions)
    (term,) = objective.terms(student, student.state(batch), batch).values()
    assert bool(torch.isfinite(term.detach()))


@pytest.mark.parametrize(("method", "groups"), [("unkd", 3), ("unkd", 12), ("htd", 3), ("htd", 60)])
def test_groups_that_come_out_empty(method: str, groups: int) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    found = first_loss(make(method, num_groups=groups), knowledge, interactions)
    assert torch.isfinite(torch.tensor(found))


def test_empty_groups_are_counted_once_the_assignment_is_fixed() -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    said: list[str] = []
    objective = Objective([make("htd", num_groups=60, anneal_epochs=2)], knowledge, base_weight=0.0)
    student = built(models.BPR(dim=3), interactions)
    objective.setup(student, interactions, 9, torch.Generator().manual_seed(0), CPU, said.append)
    for epoch in range(4):
        objective.start_epoch(epoch)
        assert len(said) == (0 if epoch < 2 else 2)
    counts = [int(line.split()[1]) for line in said]
    assert all(30 <= empty < 60 for empty in counts)
    assert [
        line.endswith(f"of 60 groups of {of} are empty")
        for line, of in zip(said, ("users", "items"), strict=True)
    ]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "nkd",
            {"num_neighbors": 500},
            "nkd.num_neighbors is 29, the others that every user and item has, not 500",
        ),
        (
            "dcd",
            {"num_drawn": 50, "depth": 9},
            "dcd.num_drawn is 9, the places that are read of its lists, not 50",
        ),
        (
            "rrd",
            {"num_interesting": 5, "depth": 4},
            "rrd.num_interesting is 4, the places that are read of its lists",
        ),
    ],
)
def test_more_than_there_is_to_draw_from_is_cut_and_said(
    method: str, options: dict[str, Any], message: str
) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    said: list[str] = []
    objective = Objective([make(method, **options)], knowledge, base_weight=0.0)
    student = built(models.BPR(dim=3), interactions)
    objective.setup(student, interactions, 9, torch.Generator().manual_seed(0), CPU, said.append)
    assert any(line.startswith(message) for line in said)
    objective.start_epoch(0)
    batch = batch_of(interactions)
    (term,) = objective.terms(student, student.state(batch), batch).values()
    assert bool(torch.isfinite(term.detach()))


def test_groups_of_one_item_each_are_refused_and_groups_without_pairs_are_said() -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    taken = Interactions.from_events(torch.arange(8), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), 8, 4)
    with pytest.raises(OptionError, match=r"unkd\.num_groups: each of the 4 groups has one item"):
        first_loss(make("unkd", num_groups=100), live(built(models.BPR(dim=5), taken), taken), taken)
    said: list[str] = []
    objective = Objective([make("unkd", num_groups=12, num_pairs=3)], knowledge, base_weight=0.0)
    student = built(models.BPR(dim=3), interactions)
    objective.setup(student, interactions, 3, torch.Generator().manual_seed(0), CPU, said.append)
    assert any("groups have none of the 3 pairs of a user" in line for line in said)


@pytest.mark.parametrize("method", ["rrd", "sld", "cpd", "cd", "rce-kd"])
def test_lists_end_with_the_catalogue_however_deep_they_are_asked_for(method: str) -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    knowledge = live(built(models.BPR(dim=5), interactions, seed=7), interactions)
    found = first_loss(make(method, depth=1_000_000_000), knowledge, interactions)
    assert torch.isfinite(torch.tensor(found))
    ids, _ = knowledge.top_items(torch.arange(30), 1_000_000_000)
    assert ids.shape == (30, 40)
