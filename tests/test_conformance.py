"""The conformance kit finds what is wrong with a method."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from recdistill.distillers.base import Context, Distiller, list_scores
from recdistill.knowledge.base import TeacherState
from recdistill.models.base import Batch, State
from recdistill.models.bpr import BPR
from recdistill.models.sasrec import SASRec
from recdistill.testing import check_distiller, check_sequence_distiller


class Sound(Distiller):
    """The squared scores of the teacher's first items, weighed by a parameter of its own."""

    needs = frozenset({"top_items"})

    def __init__(self) -> None:
        super().__init__()
        self.weight = 1.0

    def setup(self, context: Context) -> None:
        self.items = context.knowledge.top_items(torch.arange(context.interactions.num_users), 4).ids.long()
        self.share = torch.nn.Parameter(torch.ones(()))

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        scores = list_scores(student, batch.users, self.items[batch.users])
        return (self.share * scores).square().mean()


class HalfTheGradient(Sound):
    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        scores = list_scores(student, batch.users, self.items[batch.users])
        return (self.share * scores * scores.detach()).mean()


class HalfItsOwnGradient(Sound):
    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        scores = list_scores(student, batch.users, self.items[batch.users]).detach()
        return super().loss(student, teacher, batch) + (self.share * self.share.detach() * scores).mean()


class DenseLater(Sound):
    def start_epoch(self, epoch: int, context: Context) -> None:
        if epoch == 2:
            self.dense = torch.zeros(context.interactions.num_users, context.interactions.num_items).bool()


class DenseInNumpy(Sound):
    def start_epoch(self, epoch: int, context: Context) -> None:
        self.dense = np.ones((context.interactions.num_users, context.interactions.num_items), np.float32)


class DenseInAThread(Sound):
    def start_epoch(self, epoch: int, context: Context) -> None:
        shape = context.interactions.num_users, context.interactions.num_items
        with ThreadPoolExecutor(1) as pool:
            self.dense = pool.submit(torch.ones, shape).result()


class DenseInParts(Sound):
    def start_epoch(self, epoch: int, context: Context) -> None:
        width = context.interactions.num_items
        self.dense = [torch.ones(width) for _ in range(context.interactions.num_users)]


class DenseInBytes(Sound):
    def start_epoch(self, epoch: int, context: Context) -> None:
        self.dense = np.ones((context.interactions.num_users, context.interactions.num_items), dtype=np.uint8)


class SaysTooMuch(Sound):
    needs = frozenset({"top_items", "embeddings"})


class DrawsByItself(Sound):
    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        return super().loss(student, teacher, batch) * torch.rand((), generator=self.generator)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.generator = torch.Generator()
        self.generator.seed()


class DrawsByTorchsOwn(Sound):
    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        return super().loss(student, teacher, batch) * torch.rand(())


class IdleParameter(Sound):
    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        return list_scores(student, batch.users, self.items[batch.users]).square().mean()


class Infinite(Sound):
    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> Tensor:
        return super().loss(student, teacher, batch) / (len(batch.users) - 1)


BROKEN = [
    (HalfTheGradient, r"gradient of student\..*_table is not that of the loss"),
    (DenseLater, "elements for 6,000 users x 6,000 items"),
    (DenseInNumpy, "for 20,000 users x 20,000 items"),
    (DenseInAThread, "for 20,000 users x 20,000 items"),
    (DenseInParts, "for 20,000 users x 20,000 items"),
    (DenseInBytes, "for 20,000 users x 20,000 items"),
    (SaysTooMuch, "needs names 'embeddings', but it is never read"),
    (DrawsByItself, "the same seed gives"),
    (DrawsByTorchsOwn, "the same seed gives"),
    (IdleParameter, "no gradient reaches the method's own parameters"),
    (Infinite, "the loss of a batch of one row is inf"),
]


def test_a_sound_method_conforms() -> None:
    check_distiller(Sound)
    check_sequence_distiller(Sound)


@pytest.mark.parametrize(("broken", "message"), BROKEN)
def test_what_is_wrong_is_found(broken: type[Sound], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_distiller(broken)


def test_a_wrong_gradient_is_found_beside_any_student() -> None:
    with pytest.raises(AssertionError, match=r"gradient of student\..*_table is not that of the loss"):
        check_distiller(HalfTheGradient, lambda: BPR(dim=4))
    with pytest.raises(AssertionError, match=r"gradient of student\..* is not that of the loss"):
        check_sequence_distiller(HalfTheGradient, lambda: SASRec(dim=4, max_length=6))


def test_where_the_student_is_held_fixed_a_methods_own_gradient_is_checked_all_the_same() -> None:
    check_distiller(HalfTheGradient, stops_gradients=True)
    with pytest.raises(AssertionError, match=r"gradient of method\.share is not that of the loss"):
        check_distiller(HalfItsOwnGradient, stops_gradients=True)


def test_a_draw_by_torchs_own_generator_is_found_beside_sequence_models() -> None:
    with pytest.raises(AssertionError, match="the same seed gives"):
        check_sequence_distiller(DrawsByTorchsOwn)
