"""Teacher's knowledge: derived lists, padding, restriction, scores with biases."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from line_cases import Notes
from recdistill import config
from recdistill.atomic import size_text
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import Lists, cut
from recdistill.knowledge.frozen import FrozenState, frozen_state, stored_arrays
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.base import Recommender, ScoreVectors
from recdistill.models.bpr import BPR
from recdistill.models.cml import CML
from recdistill.models.ease import EASE
from recdistill.models.itemknn import ItemKNN
from recdistill.models.neumf import NeuMF
from recdistill.models.popularity import Popularity
from recdistill.models.simplex import SimpleX
from recdistill.steps.distill import note_teacher
from recdistill.testing import built, tiny_interactions


def biased() -> FrozenState:
    generator = torch.Generator().manual_seed(0)
    pairs = tiny_interactions()
    vectors = ScoreVectors(
        torch.randn(pairs.num_users, 3, generator=generator),
        torch.randn(pairs.num_items, 3, generator=generator),
        torch.randn(pairs.num_items, generator=generator),
        torch.randn(pairs.num_users, generator=generator),
    )
    return FrozenState(vectors, None)


def dense(state: FrozenState) -> torch.Tensor:
    v = state.vectors
    assert v is not None
    assert v.item_bias is not None
    assert v.user_bias is not None
    return v.users @ v.items.T + v.item_bias + v.user_bias[:, None]


def test_scores_have_their_biases_and_padding_scores_0() -> None:
    state = biased()
    users = torch.arange(state.num_users)
    torch.testing.assert_close(state.scores(users), dense(state))
    ids = torch.tensor([[3, -1, 0]]).expand(len(users), 3).contiguous()
    found = state.scores(users, ids)
    torch.testing.assert_close(found[:, [0, 2]], dense(state)[:, [3, 0]])
    assert found[:, 1].tolist() == [0.0] * len(users)


def test_users_to_whom_all_items_are_alike_are_counted() -> None:
    pairs, low = tiny_interactions(), -torch.inf
    ids = torch.arange(3).repeat(pairs.num_users, 1)
    scores = torch.tensor([[3.0, 2.0, 1.0]]).repeat(pairs.num_users, 1)
    scores[1] = 5.0
    scores[2] = torch.tensor([0.5, 0.5, low])
    scores[3] = torch.tensor([0.5, low, low])  # one item has no order
    ids[scores == low] = -1
    assert TeacherKnowledge(pairs, None, {"top_items": Lists(ids, scores)}).num_undecided() == 2

    generator = torch.Generator().manual_seed(0)
    tables = tuple(torch.randn(rows, 2, generator=generator) for rows in (pairs.num_users, pairs.num_items))
    tables[0][4] = 0.0
    assert TeacherKnowledge(pairs, FrozenState(ScoreVectors(*tables), None)).num_undecided() == 1
    assert TeacherKnowledge(pairs, FrozenState(ScoreVectors(*tables), None)).num_undecided("top_users") == 0
    same = torch.ones(pairs.num_items, 2)
    assert (
        TeacherKnowledge(pairs, FrozenState(ScoreVectors(tables[0], same), None)).num_undecided()
        == pairs.num_users
    )
    biased_items = ScoreVectors(*tables, item_bias=torch.arange(pairs.num_items).float())
    assert TeacherKnowledge(pairs, FrozenState(biased_items, None)).num_undecided() == 0
    by_popularity = ScoreVectors(
        torch.ones(pairs.num_users, 1), torch.arange(pairs.num_items)[:, None].float()
    )
    popular = TeacherKnowledge(pairs, FrozenState(by_popularity, None))
    assert (popular.num_undecided(), popular.num_undecided("top_users")) == (0, pairs.num_items)
    assert TeacherKnowledge(pairs, None, {}).num_undecided() == 0


def test_derived_lists_are_those_of_the_dense_table() -> None:
    pairs, state = tiny_interactions(), biased()
    knowledge = TeacherKnowledge(pairs, state)
    table = dense(state)
    table[pairs.users.long(), pairs.items.long()] = -torch.inf
    by_item = knowledge.top_items(torch.arange(pairs.num_users), 4)
    by_user = knowledge.top_users(torch.arange(pairs.num_items), 4)
    for found, rows in ((by_item, table), (by_user, table.T)):
        values, ids = rows.topk(4, dim=1)
        expected = torch.where(values.isneginf(), -1, ids)
        assert torch.equal(found.ids, expected)
        torch.testing.assert_close(found.scores, values)


def test_observed_scores_are_in_the_order_of_the_train_pairs() -> None:
    pairs, state = tiny_interactions(), biased()
    expected = dense(state)[pairs.users.long(), pairs.items.long()]
    torch.testing.assert_close(TeacherKnowledge(pairs, state).observed_scores(), expected)


def test_a_deeper_list_is_derived_and_a_shallow_store_says_what_it_lacks() -> None:
    pairs = tiny_interactions()
    teacher = live(built(BPR(dim=3), pairs), pairs)
    users = torch.arange(pairs.num_users)
    shallow = teacher.top_items(users, 2)
    assert torch.equal(teacher.top_items(users, 5).ids[:, :2], shallow.ids)
    store = TeacherKnowledge(pairs, None, {"top_items": Lists(shallow.ids.int(), shallow.scores)})
    assert store.kinds == {"top_items", "trajectory"}
    with pytest.raises(
        MissingKnowledgeError, match="to depth 5 are read; the knowledge holds them to depth 2"
    ):
        store.top_items(users, 5)
    with pytest.raises(MissingKnowledgeError, match="embeddings"):
        store.user_embeddings(users)


def test_users_whose_whole_list_is_stored_need_no_more_depth() -> None:
    pairs = tiny_interactions()  # user 1 has seen all but three items
    teacher = live(built(BPR(dim=3), pairs), pairs)
    lists = teacher.top_items(torch.arange(pairs.num_users), 4)
    store = TeacherKnowledge(pairs, None, {"top_items": Lists(lists.ids.int(), lists.scores)})
    found = store.top_items(torch.tensor([1]), 9)
    assert found.lengths.tolist() == [3]
    assert found.ids.shape == (1, 9)


def test_cut_pads() -> None:
    lists = Lists(torch.tensor([[4, 2]]), torch.tensor([[1.0, 0.5]]))
    assert cut(lists, 1).ids.tolist() == [[4]]
    assert cut(lists, 3).ids.tolist() == [[4, 2, -1]]
    assert cut(lists, 3).scores.tolist() == [[1.0, 0.5, -torch.inf]]


def test_restricted_knowledge_answers_what_was_declared_and_nothing_else() -> None:
    pairs = tiny_interactions()
    teacher = live(built(BPR(dim=3), pairs), pairs)
    reads = teacher.restrict(frozenset({"top_items"}))
    users = torch.arange(3)
    assert torch.equal(reads.top_items(users, 3).ids, teacher.top_items(users, 3).ids)
    for read in (
        lambda: reads.user_embeddings(users),
        lambda: reads.item_embeddings(users),
        lambda: reads.scores(users),
        lambda: reads.top_users(users, 3),
        reads.observed_scores,
        reads.teacher_dim,
    ):
        with pytest.raises(MissingKnowledgeError, match="read but not declared"):
            read()


def test_a_model_without_embeddings_is_a_teacher_of_lists() -> None:
    pairs = tiny_interactions()
    teacher = live(built(Popularity(), pairs), pairs)
    assert teacher.kinds == {"scores", "top_items", "top_users", "observed_scores", "trajectory"}
    with pytest.raises(MissingKnowledgeError, match=r"de reads embeddings; the knowledge holds"):
        teacher.require(frozenset({"embeddings"}), "de")


@pytest.mark.parametrize("with_embeddings", [True, False])
def test_stored_arrays_name_what_differs(with_embeddings: bool) -> None:
    pairs = tiny_interactions()
    state = live(built(BPR(dim=3), pairs), pairs).frozen if with_embeddings else biased()
    assert state is not None
    names = set(stored_arrays(state))
    assert names == (
        {"users", "items"} if with_embeddings else {"score_users", "score_items", "item_bias", "user_bias"}
    )


@pytest.mark.parametrize(
    "make", [lambda: NeuMF(dim=3), lambda: EASE(regularisation=1.0), lambda: ItemKNN(num_neighbors=5)]
)
def test_models_without_score_vectors_are_live_teachers(make: Callable[[], Recommender]) -> None:
    pairs = tiny_interactions()
    model = built(make(), pairs)
    teacher = live(model, pairs)
    assert teacher.kinds >= {"scores", "top_items", "top_users", "observed_scores"}
    assert teacher.score_vectors() is None
    users, items = torch.arange(pairs.num_users), torch.arange(pairs.num_items)
    with torch.no_grad():
        table = model.frozen().scores(users).clone()
    found = teacher.scores(users, items.repeat(len(users), 1))
    assert not found.requires_grad
    torch.testing.assert_close(found, table)
    observed = table[pairs.users.long(), pairs.items.long()]
    torch.testing.assert_close(teacher.observed_scores(), observed)
    table[pairs.users.long(), pairs.items.long()] = -torch.inf
    for lists, rows in ((teacher.top_items(users, 4), table), (teacher.top_users(items, 4), table.T)):
        torch.testing.assert_close(lists.scores, rows.topk(4, dim=1).values)
    has = "embeddings" in model.frozen().kinds
    assert ("embeddings" in teacher.kinds) is has
    if has:
        assert teacher.user_embeddings(users).shape == (pairs.num_users, 6)
        assert not teacher.item_embeddings(items).requires_grad


def test_a_store_of_embeddings_without_scores_says_so() -> None:
    pairs = tiny_interactions()
    state = live(built(NeuMF(dim=3), pairs), pairs).frozen
    assert state is not None
    arrays = stored_arrays(state)
    assert set(arrays) == {"users", "items", "embeddings_only"}
    assert state.embeddings is not None
    store = TeacherKnowledge(pairs, FrozenState(None, state.embeddings))
    assert store.kinds == {"embeddings"}
    users = torch.arange(3)
    with pytest.raises(MissingKnowledgeError, match="the knowledge has no top_items"):
        store.top_items(users, 3)
    with pytest.raises(MissingKnowledgeError, match="observed_scores"):
        store.observed_scores()
    with pytest.raises(MissingKnowledgeError, match="reads scores") as error:
        store.require(frozenset({"scores"}), "cd")
    assert "--live MODEL" in str(error.value.hint)


@pytest.mark.parametrize("make", [lambda: CML(dim=3), lambda: SimpleX(dim=3, score_scale=4.0)])
def test_the_scale_of_bounded_scores_is_known_of_a_teacher(make: Callable[[], Recommender]) -> None:
    pairs = tiny_interactions()
    model = built(make(), pairs)
    teacher = live(model, pairs)
    assert teacher.score_scale == model.frozen().score_scale > 1
    assert teacher.frozen is not None
    assert float(stored_arrays(teacher.frozen)["score_scale"]) == teacher.score_scale
    everyone = torch.arange(pairs.num_users)
    torch.testing.assert_close(teacher.scores(everyone), model.frozen().scores(everyone).detach())


def test_answers_on_another_device_come_from_copies_made_once() -> None:
    interactions = tiny_interactions()
    state = frozen_state(built(BPR(dim=3), interactions))
    meta = torch.device("meta")  # the only other device that every machine has
    copy = state.on(meta)
    assert copy is state.on(meta)
    assert state.on(torch.device("cpu")) is state
    assert state.user_embeddings(torch.zeros(2, dtype=torch.int64, device=meta)).device == meta
    assert state.scores(torch.zeros(2, dtype=torch.int64, device=meta)).shape == (2, interactions.num_items)


def test_a_deeper_store_costs_what_all_of_its_lists_take() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    lists = {
        kind: Lists(torch.arange(4).repeat(rows, 1), torch.arange(4.0).flip(0).repeat(rows, 1))
        for kind, rows in (("top_items", 30), ("top_users", 40))
    }
    with pytest.raises(MissingKnowledgeError, match=re.escape(f"({size_text(8 * 9 * (30 + 40))} of lists)")):
        TeacherKnowledge(pairs, None, lists).top_items(torch.arange(30), 9)


def test_items_whose_users_have_no_order_are_told_where_that_is_read() -> None:
    pairs = tiny_interactions(30, 40, seed=5)
    knowledge = live(built(Popularity(), pairs), pairs)
    for name, told in (("ir-rrd", True), ("rrd", False)):
        notes = Notes()
        note_teacher(knowledge, [config.find("distillers", name)()], notes)
        assert any("scores all users alike for 40 of 40 items" in note for note in notes.notes) == told
