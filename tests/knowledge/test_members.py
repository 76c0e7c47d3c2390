"""The teachers behind a store: states in order, the final lists last."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recdistill.artifacts import save_arrays
from recdistill.errors import ArtifactError, MissingKnowledgeError
from recdistill.knowledge.base import Aggregation, Lists
from recdistill.knowledge.members import ending_at, read_states, stored_members
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.bpr import BPR
from recdistill.testing import built, tiny_interactions

A, B, C = torch.tensor([[1, 2], [0, 3]]), torch.tensor([[2, 1], [0, 3]]), torch.tensor([[2, 3], [3, 1]])


def test_a_model_is_one_member_with_one_state() -> None:
    pairs = tiny_interactions()
    teacher = live(built(BPR(dim=3), pairs), pairs)
    (member,) = teacher.members(5)
    assert member.epochs == (0,)
    assert member.states[0].dtype == torch.int32
    assert torch.equal(member.states[0].long(), teacher.top_items(torch.arange(pairs.num_users), 5).ids)
    assert member.observed_scores is not None
    assert torch.equal(member.observed_scores, teacher.observed_scores())
    assert teacher.members(5) is teacher.members(5)


def test_lists_alone_are_a_member_and_nothing_is_none() -> None:
    pairs = tiny_interactions()
    ids = torch.zeros(pairs.num_users, 2, dtype=torch.int64)
    (member,) = TeacherKnowledge(pairs, None, {"top_items": Lists(ids, ids.float())}).members()
    assert member.observed_scores is None
    assert member.states[0].shape == (pairs.num_users, 2)
    with pytest.raises(MissingKnowledgeError, match="top_items"):
        TeacherKnowledge(pairs, None).members()


def test_members_are_read_only_by_those_that_declare_it() -> None:
    pairs = tiny_interactions()
    teacher = live(built(BPR(dim=3), pairs), pairs)
    assert len(teacher.restrict(frozenset({"trajectory"})).members()) == 1
    assert teacher.restrict(frozenset({"trajectory"})).aggregation() == Aggregation()
    for read in ("members", "aggregation"):
        with pytest.raises(MissingKnowledgeError, match="read but not declared"):
            getattr(teacher.restrict(frozenset({"top_items"})), read)()


def test_states_are_ordered_by_their_epochs(tmp_path: Path) -> None:
    for epoch, ids in ((10, B), (9, A)):  # as text, 10 comes before 9
        save_arrays(tmp_path / f"epoch-{epoch}.safetensors", {"ids": ids})
    found = read_states(tmp_path, 2, 1)
    assert list(found) == [9, 10]
    assert found[10].tolist() == [[2], [0]]
    assert found[9].dtype == torch.int32


def test_the_final_lists_are_the_last_state() -> None:
    assert list(ending_at({5: A, 9: B}, B, 0, None)) == [5, 9]
    assert list(ending_at({5: A, 9: B}, C, 0, None)) == [5, 9, 10]
    assert list(ending_at({5: A, 9: B}, C, 30, None)) == [5, 9, 30]
    assert list(ending_at({}, C, 7, None)) == [7]


def test_a_repeated_state_counts_once() -> None:
    assert list(ending_at({5: A, 7: A, 9: B}, B, 0, None)) == [5, 9]


def test_a_trajectory_out_of_order_is_refused() -> None:
    with pytest.raises(ArtifactError, match="out of order: the final lists are those of epoch 5"):
        ending_at({5: A, 9: B}, A, 0, Path("store"))
    with pytest.raises(ArtifactError, match="out of order: the lists of epoch 9 are those of epoch 5"):
        ending_at({5: A, 7: B, 9: A}, C, 0, Path("store"))


def test_two_states_of_one_epoch_and_other_users_are_refused(tmp_path: Path) -> None:
    save_arrays(tmp_path / "epoch-7.safetensors", {"ids": A})
    with pytest.raises(ArtifactError, match="the data has 3 users"):
        read_states(tmp_path, 3, 5)
    save_arrays(tmp_path / "epoch-007.safetensors", {"ids": A})
    with pytest.raises(ArtifactError, match="two states of epoch 7"):
        read_states(tmp_path, 2, 5)


@pytest.mark.parametrize("name", ["epoch-x", "first"])
def test_states_are_named_by_their_epoch(name: str, tmp_path: Path) -> None:
    save_arrays(tmp_path / "epoch-1.safetensors", {"ids": A})
    save_arrays(
        tmp_path / "observed_scores.safetensors", {"scores": A.float()}
    )  # which lies beside a member's states
    assert list(read_states(tmp_path, 2, 5)) == [1]
    save_arrays(tmp_path / f"{name}.safetensors", {"ids": A})
    with pytest.raises(ArtifactError, match="expected a name such as"):
        read_states(tmp_path, 2, 5)


def test_states_of_different_depths_are_cut_to_the_common_one(tmp_path: Path) -> None:
    (tmp_path / "trajectory").mkdir()
    save_arrays(tmp_path / "trajectory" / "epoch-1.safetensors", {"ids": A[:, :1]})
    (member,) = stored_members(tmp_path, None, C, None, 100)
    assert [state.shape[1] for state in member.states] == [1, 1]
    assert member.epochs == (1, 2)
