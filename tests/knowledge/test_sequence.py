"""A live sequence teacher: what it answers item by item."""

from __future__ import annotations

import pytest
import torch

from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.teacher import live
from recdistill.models.bpr import BPR
from recdistill.models.cellnet import CellNet
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_batches import SequenceBatch
from recdistill.models.sequence_state import SequenceState
from recdistill.testing import built, tiny_interactions, tiny_sequences

DATA = tiny_sequences()


def batch_and_student(max_length: int = 8) -> tuple[SequenceBatch, SequenceState]:
    student = built(CellNet(dim=3, max_length=max_length), DATA)
    batch = next(student.batches(DATA, 1000, torch.Generator().manual_seed(0)))
    state = student.state(batch)
    assert isinstance(batch, SequenceBatch)
    assert isinstance(state, SequenceState)
    return batch, state


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_a_teacher_answers_as_its_own_state_does(head: str) -> None:
    teacher = built(SASRec(dim=6, max_length=8, head="untied" if head == "untied" else "tied"), DATA)
    batch, student = batch_and_student()
    reads = live(teacher, DATA).state(batch).sequence_reads(student.places)
    expected = teacher.eval().state(batch)
    assert isinstance(expected, SequenceState)
    assert reads.whole
    assert reads.rows.tolist() == list(range(len(student.places.items)))
    torch.testing.assert_close(reads.embeddings, expected.embeddings)
    assert len(reads.hidden_states) == 2
    torch.testing.assert_close(reads.logits(), expected.logits())
    torch.testing.assert_close(reads.logits(slice(2, 5)), expected.logits()[2:5])
    chosen = torch.tensor([3, 1])
    torch.testing.assert_close(reads.logits(chosen, chosen), expected.logits()[chosen][:, chosen])
    assert not reads.logits().requires_grad
    assert all(not part.requires_grad for part in (reads.embeddings, *reads.hidden_states))


def test_it_is_computed_once_a_step() -> None:
    batch, student = batch_and_student()
    knowledge = live(built(SASRec(dim=6, max_length=8), DATA), DATA)
    state = knowledge.state(batch)
    first = state.restrict(frozenset({"hidden_states"})).sequence_reads(student.places)
    assert state.sequence_reads(student.places) is first
    assert knowledge.state(batch).sequence_reads(student.places) is not first


def test_a_teacher_that_reads_fewer_items_answers_for_the_newest() -> None:
    batch, student = batch_and_student()
    reads = live(built(SASRec(dim=6, max_length=3), DATA), DATA).state(batch).sequence_reads(student.places)
    assert not reads.whole
    assert reads.rows.tolist() == (student.places.from_end < 3).nonzero()[:, 0].tolist()
    assert len(reads.embeddings) == len(reads.rows)


def test_others_do_not_answer() -> None:
    assert "hidden_states" in live(built(SASRec(dim=6), DATA), DATA).kinds
    plain = live(built(BPR(dim=3), tiny_interactions()), tiny_interactions())
    assert "hidden_states" not in plain.kinds
    with pytest.raises(MissingKnowledgeError, match="only a live sequence model") as caught:
        plain.require(frozenset({"hidden_states"}), "x")
    assert caught.value.hint.startswith("distil from the model itself: --live MODEL")
    with pytest.raises(MissingKnowledgeError) as caught:
        plain.require(frozenset({"hidden_states"}), "logit-kd")
    assert caught.value.hint.startswith(
        "stored lists are enough with --set logit-kd.places=newest --set logit-kd.items"
    )
    batch, student = batch_and_student()
    with pytest.raises(MissingKnowledgeError, match="not declared"):
        live(built(SASRec(dim=6), DATA), DATA).restrict(frozenset({"scores"})).state(batch).sequence_reads(
            student.places
        )
