"""HetComp: golden values, the conformance kit in both phases, the curriculum, each option, resume."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill import models, ops
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Objective
from recdistill.distillers.curriculum import discrepancy
from recdistill.distillers.hetcomp import HetComp, fine_loss, overall_loss
from recdistill.distillers.normaliser import log_normaliser
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import Aggregation, Lists, Member
from recdistill.knowledge.ensemble import aggregate, popularity_shares, rank_spread
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.base import Batch, EmbeddingState, Recommender, State
from recdistill.models.bpr import BPR
from recdistill.models.ranking import top_items
from recdistill.testing import CPU, batch_of, built, check_distiller, tiny_interactions
from recdistill.training.loop import train
from recdistill.training.options import TrainingOptions

SCORES = torch.tensor([[1.0, 0.5, -0.5, 0.0], [0.2, -1.0, 0.8, 0.4]], dtype=torch.float64)
SMALL: dict[str, Any] = {"weight": 1.0, "depth": 6, "discrepancy_depth": 4}
PLAIN = Aggregation()


def lse(*scores: float) -> float:
    return math.log(sum(math.exp(score) for score in scores))


def losses(
    scores: Tensor, observed: list[list[int]], listed: list[list[int]], unobserved: list[list[int]]
) -> Tensor:
    """L_O of each user."""
    ids = torch.cat([torch.tensor(observed), torch.tensor(listed)], dim=1)
    below = torch.tensor([lse(*scores[u, items].tolist()) for u, items in enumerate(unobserved)])
    return overall_loss(scores.gather(1, ids), ids >= 0, below.double())


def test_golden_overall_loss() -> None:
    found = losses(SCORES, [[0], [3]], [[1, 2], [2, 1]], [[3], [0]])
    by_hand = [
        lse(1, 0) - 1 + lse(0.5, 0) - 0.5 + lse(-0.5, 0) + 0.5,
        lse(0.4, 0.2) - 0.4 + lse(0.8, 0.2) - 0.8 + lse(-1, 0.2) + 1,
    ]
    assert found.tolist() == pytest.approx(by_hand)
    assert float(found.mean()) * 2 == pytest.approx(4.26032494, abs=1e-6)
    scores = torch.tensor([[0.1, 0.9, -0.2, 0.4, 0.6, -0.7]], dtype=torch.float64)
    assert float(losses(scores, [[5]], [[2, 3]], [[1, 4]])) == pytest.approx(5.44670219, abs=1e-6)


def test_golden_fine_loss() -> None:
    observed, half = SCORES.gather(1, torch.tensor([[0], [3]])), SCORES.gather(1, torch.tensor([[1], [2]]))
    below = torch.tensor([lse(-0.5, 0), lse(0.2, -1)], dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.int64)
    found = fine_loss(observed, half, (ones, ones), 1, below)
    assert float(found.sum()) == pytest.approx(1.18965770 + (1.21916397 + 1.21916397) / 2, abs=1e-7)


def test_golden_fine_loss_with_several_items() -> None:
    scores = torch.tensor([[0.1, 0.9, -0.2, 0.4, 0.6, -0.7]], dtype=torch.float64)
    below = torch.tensor([lse(0.9, 0.6)], dtype=torch.float64)  # neither observed (0, 5) nor ranked (2, 3)
    twos = torch.tensor([2])
    found = fine_loss(scores[:, [5, 0]], scores[:, [2, 3]], (twos, twos), 1, below)
    assert float(found) == pytest.approx(4.05611686 + (3.43918542 + 2.08589887) / 2, abs=1e-7)
    padded = fine_loss(scores[:, [5, 0, 1]], scores[:, [2, 3, 1]], (twos, twos), 1, below)
    assert float(padded) == pytest.approx(float(found))


@dataclass
class Teachers(TeacherKnowledge):
    """A store of several teachers that is on no disk."""

    several: tuple[Member, ...] = ()
    how: Aggregation = PLAIN

    def members(self, depth: int) -> tuple[Member, ...]:
        return tuple(
            member._replace(states=tuple(ids[:, :depth] for ids in member.states)) for member in self.several
        )

    def aggregation(self) -> Aggregation:
        return self.how


def teachers(
    interactions: Interactions, states: tuple[int, ...] = (3, 1, 4), how: Aggregation = PLAIN
) -> TeacherKnowledge:
    """A store of one member for each number of states, its lists those of a model ever less perturbed."""
    members: list[Member] = []
    everyone = torch.arange(interactions.num_users)
    for number, count in enumerate(states):
        generator = torch.Generator().manual_seed(number)
        final = built(BPR(dim=5), interactions, seed=20 + number).frozen()
        vectors = final.score_vectors()
        assert vectors is not None
        found: list[Tensor] = []
        for state in range(count):
            noise = torch.randn(vectors.users.shape, generator=generator) * 0.5 * (count - 1 - state)
            perturbed = EmbeddingState(vectors.users + noise, vectors.items)
            found.append(top_items(perturbed, everyone, 8, [interactions])[0].int())
        observed = torch.randn(interactions.num_pairs, generator=generator)
        members.append(Member(f"teacher {number}", tuple(found), tuple(range(count)), observed))
    last = members[0].states[-1]
    lists = {"top_items": Lists(last, last.float())}
    return Teachers(interactions, None, lists, observed, several=tuple(members), how=how)


class Run:
    """A method set up on three teachers of 3, 1 and 4 states."""

    def __init__(
        self,
        method: HetComp,
        states: tuple[int, ...] = (3, 1, 4),
        interactions: Interactions | None = None,
        student: Recommender | None = None,
    ) -> None:
        self.method = method
        self.interactions = interactions or tiny_interactions(30, 40, seed=5)
        self.student = student or built(BPR(dim=3), self.interactions)
        self.objective = Objective([method], teachers(self.interactions, states), base_weight=0.0)
        self.objective.setup(self.student, self.interactions, 100, torch.Generator().manual_seed(3), CPU)
        self.objective.start_epoch(0)

    def epochs(self, *epochs: int, learn: float = 0.0) -> None:
        for epoch in epochs:
            if learn:  # the student comes nearer to the final lists of all teachers
                with torch.no_grad():
                    self.student.parameter("user_table").lerp_(self.better().user_table, learn)
                    self.student.parameter("item_table").lerp_(self.better().item_table, learn)
                self.student.train()
            self.objective.start_epoch(epoch)

    def better(self) -> BPR:
        if not hasattr(self, "_better"):
            found = BPR(dim=3)
            found.build(self.interactions, torch.Generator().manual_seed(9))
            self._better = found
        return self._better

    def loss(self, rows: int | None = None) -> Tensor:
        batch = batch_of(self.interactions, rows)
        (term,) = self.objective.terms(self.student, self.student.state(batch), batch).values()
        return term

    @property
    def pointers(self) -> Tensor:
        return self.method.curriculum.get_buffer("pointers")


@pytest.mark.parametrize("transfer", ["overall", "fine"])
@pytest.mark.parametrize("num_sampled", [None, 9])
def test_conforms_in_both_phases(transfer: Any, num_sampled: int | None) -> None:
    check_distiller(lambda: HetComp(**SMALL, transfer=transfer, num_sampled=num_sampled, refresh=1))


def test_conforms_with_other_options() -> None:
    check_distiller(lambda: HetComp(**SMALL, construction="random", refresh=1, gain="student"))
    check_distiller(lambda: HetComp(**SMALL, overall_epochs=2, refresh=2, patience=0, worse_passes=True))
    check_distiller(lambda: HetComp(weight=1.0))
    check_distiller(lambda: HetComp(**SMALL, observed="none", transfer="fine"))


@pytest.mark.parametrize("make", [models.CML, models.LightGCN, models.NeuMF])
@pytest.mark.parametrize("transfer", ["overall", "fine"])
def test_conforms_with_other_students(make: Callable[..., Recommender], transfer: Any) -> None:
    check_distiller(lambda: HetComp(**SMALL, transfer=transfer), lambda: make(dim=3))


def direct_loss(run: Run, users: Tensor, fine: bool) -> float:
    """The method's loss from dense scores, written as its equations."""
    method, width = run.method, 3 if fine else 6
    scores = run.student.state().scores(users).detach().double()
    total = 0.0
    for row, user in enumerate(users.tolist()):
        seen = run.interactions.rows(torch.tensor([user])).items.tolist()
        ranked = [i for i in method.get_buffer("targets")[user].tolist() if i >= 0][:width]
        observed = [i for i in method.get_buffer("ordered")[user].tolist() if i >= 0]
        s = scores[row]
        below = [float(s[j]) for j in range(run.interactions.num_items) if j not in {*seen, *ranked}]
        if not fine:
            total += sum(lse(float(s[k]), *below) - float(s[k]) for k in observed + ranked)
            continue
        rest = [*below, *s[ranked[1:]].tolist()]
        for share, items, others in ((1.0, observed, below), (0.5, ranked, below), (0.5, ranked[:1], rest)):
            for place, k in enumerate(items):
                total += share * (lse(*s[items[place:]].tolist(), *others) - float(s[k]))
    return total / len(users) * (method.fine_weight if fine else 1)


@pytest.mark.parametrize("fine", [False, True])
def test_the_loss_is_the_equations(fine: bool) -> None:
    run = Run(HetComp(**SMALL, transfer="fine" if fine else "overall"))
    batch = batch_of(run.interactions)
    assert float(run.loss().detach()) == pytest.approx(direct_loss(run, batch.users, fine), rel=1e-5)


def test_targets_are_the_teachers_summed_importances_at_the_pointers() -> None:
    run = Run(HetComp(**SMALL))
    run.pointers[4] = torch.tensor([2, 0, 1])
    members = teachers(run.interactions).members(6)
    sums: dict[int, float] = {}
    for x, state in enumerate((2, 0, 1)):
        for rank, item in enumerate(members[x].states[state][4, :6].tolist()):
            sums[item] = sums.get(item, 0.0) + math.exp(-rank / 10)
    order = sorted(sums, key=lambda item: (-round(sums[item], 6), item))[:6]
    assert run.method.curriculum.targets(6)[4].tolist() == order


def test_nothing_moves_before_the_second_refresh_and_then_by_the_gate() -> None:
    run = Run(HetComp(**SMALL, refresh=2, patience=0))
    taught = run.interactions.user_counts > 0
    assert run.pointers[taught].unique().tolist() == [0]
    assert torch.equal(run.pointers[~taught], torch.tensor([[2, 0, 3]]).expand(int((~taught).sum()), -1))
    run.epochs(1)
    assert bool(run.method.curriculum.get_buffer("last").isnan().all())
    run.epochs(2)
    last = run.method.curriculum.get_buffer("last").clone()
    assert not bool(last.isnan().any())
    assert run.pointers[taught].unique().tolist() == [0]
    run.epochs(3)
    run.epochs(4, learn=0.6)
    moved = run.pointers[taught] > 0
    assert bool(moved.any())
    assert not bool(moved.all())
    assert not bool(moved[:, 1].any())  # a teacher of one state has nowhere to go
    student = run.student.frozen()
    ids = top_items(student, torch.arange(30), 4, [run.interactions])[0]
    second = teachers(run.interactions).members(6)[2].states[1]
    now = discrepancy(ids, second)
    expected = (last[:, 2].double() > 1.05 * 0.995**2 * now) | (now == 0)
    assert torch.equal(run.pointers[taught, 2] > 0, expected[taught])
    third = discrepancy(ids, teachers(run.interactions).members(6)[2].states[2])
    aimed = torch.where(run.pointers[:, 2] > 0, third, last[:, 2].double())
    torch.testing.assert_close(run.method.curriculum.get_buffer("last")[taught, 2], aimed[taught].float())


def test_patience_moves_what_the_gate_does_not() -> None:
    run = Run(HetComp(**SMALL, refresh=1, patience=2, threshold=1e9, floor=0.0))
    taught = run.interactions.user_counts > 0
    waits = run.pointers[taught, 2]
    found: list[int] = []
    for epoch in range(1, 9):
        run.epochs(epoch)
        waits = run.pointers[taught, 2]
        found.append(round(float(waits.double().mean())))
    assert found == [0, 0, 1, 1, 2, 2, 3, 3]  # the first look only takes the discrepancies
    never = Run(HetComp(**SMALL, refresh=1, patience=0, threshold=1e9, floor=0.0))
    never.epochs(*range(1, 9))
    assert float(never.pointers[taught, 2].double().mean()) < 0.2  # only a discrepancy of 0 passes


def test_a_student_past_the_early_states_goes_on_to_the_final_ones() -> None:
    interactions = tiny_interactions(30, 40, seed=5)
    taught = interactions.user_counts > 0
    final = built(BPR(dim=5), interactions, seed=20)  # the first teacher's last state
    for patience, ends in ((0, False), (3, True)):
        run = Run(HetComp(**SMALL, refresh=1, patience=patience), interactions=interactions, student=final)
        for epoch in range(1, 12):  # three looks a state of the second teacher, and the first
            run.epochs(epoch)
            assert bool(torch.isfinite(run.loss()))
        assert bool((run.pointers[taught] == torch.tensor([2, 0, 3])).all()) == ends


def test_the_gate_of_the_released_code_opens_for_all_where_ours_does_not() -> None:
    released: dict[str, Any] = {"floor": 0.0, "patience": 0, "worse_passes": True}
    ours: dict[str, Any] = {"patience": 0}
    for options, all_move in ((released, True), (ours, False)):
        run = Run(HetComp(**SMALL, refresh=1, **options))
        run.epochs(100, 101)  # the student stands still: D_last = D
        taught = run.interactions.user_counts > 0
        assert bool((run.pointers[taught][:, [0, 2]] == 1).all()) == all_move
        if not all_move:
            assert float(run.pointers[taught].double().mean()) < 0.2


def test_the_fine_loss_begins_when_all_pointers_are_final() -> None:
    run = Run(HetComp(**SMALL, refresh=1, patience=1))
    fine: list[bool] = []
    pending = [run.method.pending()]
    for epoch in range(1, 6):
        run.epochs(epoch)
        fine.append(bool(run.method.get_buffer("fine")))
        pending.append(run.method.pending())
    assert fine == [False, False, False, True, True]
    assert [bool(text) for text in pending] == [True, True, True, True, False, False]
    assert re.search(
        r"final states \(mean pointers: teacher 0 0\.\d of 2, teacher 2 0\.\d of 3\)$", pending[0]
    )
    assert torch.equal(run.pointers, torch.tensor([[2, 0, 3]]).expand(30, -1))
    final = HetComp(**SMALL, construction="final")
    at_once = Run(final)
    assert bool(at_once.method.get_buffer("fine"))
    assert torch.equal(at_once.method.get_buffer("targets"), run.method.get_buffer("targets"))
    later = Run(HetComp(**SMALL, construction="final", overall_epochs=3))
    states: list[bool] = []
    assert later.method.pending() == "the loss of the order has not begun"
    for epoch in range(5):
        later.epochs(epoch)
        states.append(bool(later.method.get_buffer("fine")))
    assert states == [False, False, False, True, True]
    never = Run(HetComp(**SMALL, construction="final", transfer="overall"))
    assert not bool(never.method.get_buffer("fine"))
    assert not never.method.pending()


def test_without_dynamic_construction_the_targets_never_change() -> None:
    run = Run(HetComp(**SMALL, refresh=1, construction="final"))
    before = run.method.get_buffer("targets").clone()
    run.epochs(1, 2, 3, learn=0.5)
    assert torch.equal(run.method.get_buffer("targets"), before)
    dynamic = Run(HetComp(**SMALL, refresh=1, patience=1))
    assert not torch.equal(dynamic.method.get_buffer("targets"), before)
    dynamic.epochs(*range(1, 5))
    assert torch.equal(dynamic.method.get_buffer("targets"), before)


def test_random_order_ends_with_the_final_states() -> None:
    ordered = Run(HetComp(**SMALL, refresh=1, patience=1))
    shuffled = Run(HetComp(**SMALL, refresh=1, patience=1, construction="random"))
    assert not torch.equal(ordered.method.get_buffer("targets"), shuffled.method.get_buffer("targets"))
    for run in (ordered, shuffled):
        run.epochs(*range(1, 6))
    assert torch.equal(ordered.method.get_buffer("targets"), shuffled.method.get_buffer("targets"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("depth", 4),
        ("refresh", 2),
        ("patience", 2),
        ("threshold", 1e9),
        ("decay", 0.5),
        ("floor", 1.1),
        ("worse_passes", True),
        ("gain", "student"),
        ("discrepancy_depth", 2),
        ("construction", "final"),
        ("construction", "random"),
        ("num_sampled", 15),
        ("weight", 2.0),
        ("transfer", "fine"),
        ("observed", "none"),
    ],
)
def test_every_option_changes_something(option: str, value: Any) -> None:
    found: list[list[float]] = []
    for options in ({}, {option: value}):
        run = Run(
            HetComp(**{**SMALL, "refresh": 1, "patience": 0, "threshold": 1.01, "floor": 0.0, **options})
        )
        path: list[float] = []
        for epoch in range(1, 12):
            run.epochs(epoch, learn=0.1)
            path += [float(run.loss().detach()), float(run.method.curriculum.get_buffer("last").nansum())]
        found.append(path)
    assert found[0] != found[1]


def test_the_fine_weight_multiplies_the_fine_loss() -> None:
    fine = [float(Run(HetComp(**SMALL, transfer="fine", fine_weight=w)).loss().detach()) for w in (0.5, 1.0)]
    assert fine[1] == pytest.approx(2 * fine[0])


def test_a_teacher_without_trajectory_is_one_state_and_its_order_of_observed_items_is_read() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    teacher = built(BPR(dim=5), pairs, seed=7)
    method = HetComp(**SMALL)
    student = built(BPR(dim=3), pairs)
    objective = Objective([method], live(teacher, pairs), base_weight=0.0)
    objective.setup(student, pairs, 10, torch.Generator().manual_seed(0), CPU)
    objective.start_epoch(0)
    assert bool(method.get_buffer("fine"))
    ids = live(teacher, pairs).top_items(torch.arange(30), 6).ids
    assert torch.equal(method.get_buffer("targets").long(), ids)
    scores = teacher.frozen().scores(torch.arange(30))
    for user in range(30):
        seen = pairs.rows(torch.tensor([user])).items.long()
        if len(seen):
            best = seen[scores[user, seen].argmax()]
            assert int(method.get_buffer("ordered")[user, 0]) == int(best)


def test_lists_without_observed_scores_say_what_is_missing() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    ids = top_items(built(BPR(dim=5), pairs).frozen(), torch.arange(30), 6, [pairs])[0]
    knowledge = TeacherKnowledge(pairs, None, {"top_items": Lists(ids, ids.float())})
    objective = Objective([HetComp(**SMALL)], knowledge)
    with pytest.raises(MissingKnowledgeError, match=r"hetcomp reads observed_scores.*hetcomp\.observed=none"):
        objective.setup(built(BPR(dim=3), pairs), pairs, 10, torch.Generator(), CPU)


def test_lists_alone_are_enough_without_an_order_of_observed_items() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    ids = top_items(built(BPR(dim=5), pairs).frozen(), torch.arange(30), 6, [pairs])[0]
    knowledge = TeacherKnowledge(pairs, None, {"top_items": Lists(ids, ids.float())})
    method = HetComp(**SMALL, observed="none")
    objective = Objective([method], knowledge)
    objective.setup(built(BPR(dim=3), pairs), pairs, 10, torch.Generator(), CPU)
    assert torch.equal(method.get_buffer("targets").long(), ids)
    assert method.get_buffer("ordered").shape == (30, 0)


def noted(method: HetComp, states: tuple[int, ...] = (3, 1, 4)) -> list[str]:
    """What is said when a method is set up on lists 8 deep."""
    pairs, told = tiny_interactions(30, 40, seed=5), list[str]()
    objective = Objective([method], teachers(pairs, states))
    objective.setup(
        built(BPR(dim=3), pairs), pairs, 10, torch.Generator().manual_seed(0), CPU, note=told.append
    )
    return told


def test_shallow_lists_are_read_as_deep_as_they_are_and_that_is_said() -> None:
    method, same = HetComp(**{**SMALL, "depth": 20}), HetComp(**{**SMALL, "depth": 8})
    assert noted(method) == ["hetcomp.depth is 8, which all lists have, not 20"]
    assert noted(same) == []
    for name in ("targets", "ordered"):
        assert torch.equal(method.get_buffer(name), same.get_buffer(name))


def test_a_single_state_each_is_said() -> None:
    (said,) = noted(HetComp(**SMALL), states=(1, 1))
    assert "no teacher has more than one state" in said
    assert noted(HetComp(**SMALL, construction="final"), states=(1, 1)) == []


def test_discrepancies_read_lists_deeper_than_the_targets() -> None:
    found: list[Tensor] = []
    for depth in (2, 8):
        run = Run(HetComp(**{**SMALL, "depth": depth, "discrepancy_depth": 8, "refresh": 1}))
        run.epochs(1)
        found.append(run.method.curriculum.get_buffer("means")[:3])
    assert torch.equal(*found)


def test_users_with_no_list_and_short_lists() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    run = Run(HetComp(**SMALL, refresh=1, patience=1), interactions=pairs)
    for m in run.method.curriculum.members:
        for ids in m.states:
            ids[3] = -1
            ids[4, 1:] = -1
    run.objective.setup(run.student, pairs, 10, torch.Generator().manual_seed(3), CPU)
    assert run.pointers[3].tolist() == [2, 0, 3]
    for epoch in range(6):
        run.epochs(epoch)
        assert bool(torch.isfinite(run.loss()))
    assert run.method.get_buffer("targets")[3].unique().tolist() == [-1]
    assert int((run.method.get_buffer("targets")[4] >= 0).sum()) <= 3
    assert bool(run.method.get_buffer("fine"))


def test_a_student_that_ranks_as_the_targets_has_less_loss_than_any_other() -> None:
    """The fine loss of one list is least where its order is the teacher's and everything else is far below."""
    steps = torch.arange(6, 0, -1).double()[None] * 20
    counts = (torch.tensor([2]), torch.tensor([4]))
    below = torch.tensor([-50.0]).double()
    best = fine_loss(steps[:, :2], steps[:, 2:], counts, 1, below)
    assert float(best) == pytest.approx(0.0, abs=1e-7)
    assert float(fine_loss(steps[:, :2].flip(1), steps[:, 2:], counts, 1, below)) > 10


def test_facts_say_where_the_curriculum_is() -> None:
    run = Run(HetComp(**SMALL, refresh=1, patience=1))
    assert run.method.facts().keys() == {
        "fine",
        "pointer teacher 0",
        "pointer teacher 1",
        "pointer teacher 2",
    }
    run.epochs(1, 2)
    facts = run.method.facts()
    assert facts["fine"] == 0
    assert 0 < facts["pointer teacher 2"] < 3
    assert 0 < facts["discrepancy teacher 2"] <= 1
    assert 0 < facts["discrepancy target"] <= 1
    json.dumps(facts, allow_nan=False)


def test_the_sampled_normaliser_draws_anew_at_each_step() -> None:
    run = Run(HetComp(**SMALL, num_sampled=10))
    exact = Run(HetComp(**SMALL))
    drawn = [float(run.loss().detach()) for _ in range(300)]
    assert len(set(drawn)) > 200
    mean = sum(drawn) / len(drawn)
    assert mean == pytest.approx(float(exact.loss().detach()), rel=0.2)
    whole = Run(HetComp(**SMALL, num_sampled=40))
    assert float(whole.loss().detach()) == pytest.approx(float(exact.loss().detach()), rel=1e-5)


class Killed(Exception):
    pass


class Fragile(BPR):
    """Fails at a step."""

    steps = 0
    fails_at = 10**9

    def loss(self, state: State, batch: Batch) -> Tensor:
        self.steps += 1
        if self.steps == self.fails_at:
            raise Killed
        return super().loss(state, batch)


@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
@pytest.mark.parametrize("options", [{}, {"construction": "random", "num_sampled": 20}])
def test_resume_within_an_epoch_and_across_refreshes(
    tmp_path: Path, share: float, options: dict[str, Any]
) -> None:
    pairs = tiny_interactions(40, 60, seed=1)

    def objective() -> Objective:
        method = HetComp(**{**SMALL, "weight": 0.1}, refresh=2, patience=1, **options)
        return Objective([method], teachers(pairs))

    chosen = TrainingOptions(epochs=11, batch_size=256, learning_rate=0.02, checkpoint_seconds=0.0)
    whole = Fragile(dim=4)
    straight = train(whole, objective(), pairs, chosen, work=tmp_path / "a")
    assert [record["facts"]["hetcomp"]["fine"] for record in straight.history] == [0.0] * 8 + [1.0] * 3
    broken = Fragile(dim=4)
    broken.fails_at = int(whole.steps * share) + 1
    with pytest.raises(Killed):
        train(broken, objective(), pairs, chosen, work=tmp_path / "b")
    again = Fragile(dim=4)
    resumed = train(again, objective(), pairs, chosen, work=tmp_path / "b", resume=True)
    assert again.steps < whole.steps
    assert torch.equal(whole.user_table, again.user_table)
    assert torch.equal(whole.item_table, again.item_table)
    kept = ("losses", "facts")
    assert [[r[k] for k in kept] for r in straight.history] == [[r[k] for k in kept] for r in resumed.history]


def test_the_normaliser_leaves_out_what_the_phase_ranks() -> None:
    run = Run(HetComp(**SMALL, construction="final", overall_epochs=1))
    users = torch.arange(30)
    wide = run.method._excluded(users)
    run.epochs(1)
    narrow = run.method._excluded(users)
    assert isinstance(wide, ops.Rows)
    assert int((wide.indptr.diff() - narrow.indptr.diff()).max()) == 3
    state = run.student.state()
    assert bool((log_normaliser(state, users, narrow) >= log_normaliser(state, users, wide)).all())


ENSEMBLES = [
    Aggregation(temperature=3.0),
    Aggregation(weights=(1.0, 4.0, 0.5)),
    Aggregation(consistency=3.0),
    Aggregation(debias=4.0),
    Aggregation(5.0, (1.0, 2.0, 3.0), 1.0, 2.0),
]


def run_of(how: Aggregation, method: HetComp) -> Run:
    """A run whose teachers were put together in a way of their own."""
    run = Run(method)
    run.objective = Objective([method], teachers(run.interactions, how=how), base_weight=0.0)
    run.objective.setup(run.student, run.interactions, 100, torch.Generator().manual_seed(3), CPU)
    run.objective.start_epoch(0)
    return run


@pytest.mark.parametrize("how", ENSEMBLES, ids=str)
def test_the_ensembles_own_options_hold_at_every_state(how: Aggregation) -> None:
    final: dict[str, Any] = {**SMALL, "construction": "final"}
    for options in (SMALL, final):
        plain, other = (run_of(one, HetComp(**options)).method for one in (PLAIN, how))
        assert torch.equal(plain.get_buffer("targets"), Run(HetComp(**options)).method.get_buffer("targets"))
        assert not torch.equal(plain.get_buffer("targets"), other.get_buffer("targets"))
        same_order = torch.equal(plain.get_buffer("ordered"), other.get_buffer("ordered"))
        assert same_order == (how.weights is None and how.temperature == PLAIN.temperature)
    run = run_of(how, HetComp(**final))
    members = teachers(run.interactions).members(6)
    expected = aggregate(
        [member.states[-1] for member in members],
        run.interactions.num_items,
        6,
        temperature=how.temperature,
        weights=how.weights,
        spreads=[rank_spread(member.states) for member in members],
        consistency=how.consistency,
        popularity=popularity_shares(run.interactions.item_counts),
        debias=how.debias,
    )
    assert torch.equal(run.method.get_buffer("targets"), expected.ids)


def test_the_fine_loss_takes_a_tenth() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    for depth, tenth in ((20, 2), (19, 1), (8, 1)):
        method = HetComp(depth=depth)
        objective = Objective([method], live(built(BPR(dim=5), pairs, seed=7), pairs), base_weight=0.0)
        objective.setup(built(BPR(dim=3), pairs), pairs, 10, torch.Generator(), CPU)
        assert method.get_buffer("ordered").shape == (30, tenth)


def test_without_an_order_of_observed_items_where_pairs_repeat() -> None:
    users, items = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 2, 3, 0, 4])
    pairs = Interactions.from_events(users, items, 2, 12, positions=torch.arange(5))
    assert pairs.has_repeats
    method = HetComp(depth=4)
    objective = Objective([method], live(built(BPR(dim=5), pairs, seed=7), pairs), base_weight=0.0)
    objective.setup(built(BPR(dim=3), pairs), pairs, 10, torch.Generator(), CPU)
    assert method.get_buffer("ordered").shape == (2, 0)


def test_more_items_drawn_than_there_are_is_said() -> None:
    method = HetComp(**{**SMALL, "num_sampled": 41})
    assert "hetcomp.num_sampled is 40, the items that there are, not 41" in noted(method)
    assert not any("num_sampled" in said for said in noted(HetComp(**{**SMALL, "num_sampled": 40})))
