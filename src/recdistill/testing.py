"""Conformance kits: what every model and every distillation method must do, shipped so that you can test your own.

    from recdistill.testing import check_distiller, check_model, check_sequence_model

    def test_conforms():
        check_model(lambda: MyModel(dim=4))
        check_distiller(lambda: MyMethod(num_interesting=3, depth=8))

A failed check raises AssertionError and says which promise was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from recdistill import ops
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import last_items
from recdistill.distillers.base import Distiller, Objective
from recdistill.errors import MissingKnowledgeError
from recdistill.knowledge.base import KINDS
from recdistill.knowledge.teacher import TeacherKnowledge, live
from recdistill.models.base import Batch, EmbeddingState, Recommender
from recdistill.models.bpr import BPR
from recdistill.models.ranking import top_items
from recdistill.models.sampling import make_batch
from recdistill.models.sasrec import SASRec
from recdistill.models.sequence_batches import Places, SequenceBatch
from recdistill.models.sequential import SequenceModel

CPU = torch.device("cpu")


def tiny_interactions(num_users: int = 9, num_items: int = 14, seed: int = 0) -> Interactions:
    """Random pairs with the awkward cases in them.

    User 0 has one item, user 1 all but three, user 2 none, the last item is observed by nobody.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(num_users, num_items, generator=generator) < 0.3
    seen[0] = False
    seen[0, 1] = True
    seen[1] = True
    seen[1, :2] = False
    seen[2] = False
    seen[:, -1] = False
    users, items = torch.nonzero(seen, as_tuple=True)
    return Interactions.from_events(users, items, num_users, num_items)


def built(model: Recommender, interactions: Interactions, seed: int = 1, scale: float = 50.0) -> Recommender:
    """``model`` built for ``interactions``, its parameters spread so that losses are not flat."""
    model.build(interactions, torch.Generator().manual_seed(seed))
    if model.closed_form:
        model.fit(interactions, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def batch_of(interactions: Interactions, rows: int | None = None, seed: int = 2) -> Batch:
    """A batch of ``rows`` observed pairs (all by default), one negative each."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(interactions.num_pairs, generator=generator)[:rows]
    users = interactions.users[chosen].long()
    negatives = interactions.sample_unobserved(users, 1, generator)
    return make_batch(
        users, interactions.items[chosen].long(), negatives, interactions.num_users, interactions.num_items
    )


class _Run:
    """One method, set up on a student and a teacher."""

    def __init__(
        self,
        method: Distiller,
        interactions: Interactions,
        student: Recommender | None = None,
        kinds: frozenset[str] | None = None,
        seed: int = 3,
        teacher: Callable[[], Recommender] | None = None,
    ) -> None:
        torch.manual_seed(seed)  # noise and dropout of models
        self.interactions, self.method = interactions, method
        self.student = student or built(BPR(dim=3), interactions)
        teacher = built(teacher() if teacher else BPR(dim=5), interactions, seed=7)
        self.teacher = teacher
        self.knowledge: TeacherKnowledge = live(teacher, interactions)
        self.generator = torch.Generator().manual_seed(seed)
        reads = self.knowledge.restrict(method.needs if kinds is None else kinds)
        self.objective = Objective([method], reads, base_weight=0.0)
        self.objective.setup(self.student, interactions, 10, self.generator, CPU)
        self.objective.start_epoch(0)

    def loss(self, batch: Batch) -> Tensor:
        (term,) = self.objective.terms(self.student, self.student.state(batch), batch).values()
        return term


def check_distiller(
    make: Callable[[], Distiller],
    student: Callable[[], Recommender] | None = None,
    *,
    teacher: Callable[[], Recommender] | None = None,
    stops_gradients: bool = False,
) -> None:
    """Every promise of a distillation method that can be checked without knowing its equation.

    Args:
        make: builds the method with a weight above 0; lists of 14 items and 9 users must be enough for it.
        student: builds the student; a small matrix factorisation by default.
        teacher: builds the teacher; the same, of another dim, by default.
        stops_gradients: the method holds parts of its equation fixed on purpose, so that its gradient is not
            that of its loss; that check is left out.
    """
    for interactions in (tiny_interactions(), tiny_interactions(30, 40, seed=5)):

        def new_student(interactions: Interactions = interactions) -> Recommender:
            return built(student() if student else BPR(dim=3), interactions)

        _finite_with_gradients(make, interactions, new_student, teacher)
        _same_seed_same_loss(make, interactions, new_student)
        _batch_of_one(make, interactions, new_student)
    _needs_are_true(make, tiny_interactions())
    if not stops_gradients:
        _gradients_are_exact(make, tiny_interactions())
    _never_users_by_items(make)


def check_sequence_distiller(
    make: Callable[[], Distiller],
    student: Callable[[], Recommender] | None = None,
    *,
    teacher: Callable[[], Recommender] | None = None,
) -> None:
    """What :func:`check_distiller` checks, for a method that reads sequence models item by item.

    Args:
        make: builds the method with a weight above 0.
        student: builds the student, which reads at most 8 items; two blocks of attention by default.
        teacher: builds the teacher; three blocks of another dim by default.
    """
    interactions = tiny_sequences()

    def run(kinds: frozenset[str] | None = None) -> _Run:
        own = student() if student else SASRec(dim=4, max_length=8, dropout=0.0)
        other = teacher or (lambda: SASRec(dim=6, blocks=3, max_length=8))
        return _Run(make(), interactions, built(own, interactions, scale=5.0), kinds, teacher=other)

    def losses(size: int) -> list[Tensor]:
        made = run()
        found: list[Tensor] = []
        for epoch in range(3):
            made.objective.start_epoch(epoch)
            for batch in made.student.batches(interactions, size, torch.Generator().manual_seed(epoch)):
                loss = made.loss(batch)
                assert loss.dim() == 0, f"the loss has shape {tuple(loss.shape)}; expected a scalar"
                assert bool(torch.isfinite(loss)), f"the loss is {float(loss.detach())}"
                made.objective.after_step()
                found.append(loss)
        found[0].backward()
        own = list(made.method.parameters())
        assert _reached(made.student.parameters()), "no gradient reaches the student"
        assert not own or _reached(own), "no gradient reaches the method's own parameters"
        assert all(p.grad is None for p in made.teacher.parameters()), "a gradient reaches the teacher"
        for parameter in [*made.student.parameters(), *own]:
            if parameter.grad is not None:
                assert bool(torch.isfinite(parameter.grad.to_dense()).all()), "a gradient is not finite"
        return [loss.detach() for loss in found]

    for size in (1000, 7, 1):
        first, second = losses(size), losses(size)
        assert first == second, f"the same seed gives {first} and then {second}"
    for dropped in sorted(make().needs):
        try:
            made = run(make().needs - {dropped})
            made.loss(next(made.student.batches(interactions, 1000, torch.Generator())))
        except MissingKnowledgeError:
            continue
        raise AssertionError(f"needs names '{dropped}', but it is never read")


def _finite_with_gradients(
    make: Callable[[], Distiller],
    interactions: Interactions,
    student: Callable[[], Recommender],
    teacher: Callable[[], Recommender] | None,
) -> None:
    run = _Run(make(), interactions, student(), teacher=teacher)
    loss = torch.zeros(())
    for epoch in range(3):
        run.objective.start_epoch(epoch)
        loss = run.loss(batch_of(interactions))
        assert loss.dim() == 0, f"the loss has shape {tuple(loss.shape)}; expected a scalar"
        assert bool(torch.isfinite(loss)), f"the loss is {float(loss.detach())} in epoch {epoch}"
    loss.backward()
    run.objective.after_step()
    assert _reached(run.student.parameters()), "no gradient reaches the student"
    own = list(run.method.parameters())
    assert not own or _reached(own), "no gradient reaches the method's own parameters"
    assert all(p.grad is None for p in run.teacher.parameters()), "a gradient reaches the teacher"
    for parameter in [*run.student.parameters(), *own]:
        if parameter.grad is not None:
            assert bool(torch.isfinite(parameter.grad.to_dense()).all()), "a gradient is not finite"


def _reached(parameters: Iterator[Any] | list[Any]) -> bool:
    return any(p.grad is not None and bool(p.grad.to_dense().abs().sum() > 0) for p in parameters)


def _same_seed_same_loss(
    make: Callable[[], Distiller], interactions: Interactions, student: Callable[[], Recommender]
) -> None:
    def losses() -> list[float]:
        run = _Run(make(), interactions, student())
        found: list[float] = []
        for epoch in range(3):
            run.objective.start_epoch(epoch)
            found.append(float(run.loss(batch_of(interactions)).detach()))
        return found

    first, second = losses(), losses()
    assert first == second, f"the same seed gives {first} and then {second}"


def _batch_of_one(
    make: Callable[[], Distiller], interactions: Interactions, student: Callable[[], Recommender]
) -> None:
    run = _Run(make(), interactions, student())
    for row in range(min(5, interactions.num_pairs)):
        loss = run.loss(batch_of(interactions, rows=1, seed=row))
        assert bool(torch.isfinite(loss)), f"the loss of a batch of one row is {float(loss.detach())}"


def _needs_are_true(make: Callable[[], Distiller], interactions: Interactions) -> None:
    method = make()
    unknown = method.needs - set(KINDS)
    assert not unknown, f"needs names {sorted(unknown)}; kinds are {KINDS}"
    for dropped in sorted(method.needs):
        try:
            run = _Run(make(), interactions, kinds=method.needs - {dropped})
            run.objective.start_epoch(1)
            run.loss(batch_of(interactions))
        except MissingKnowledgeError:
            continue
        raise AssertionError(f"needs names '{dropped}', but it is never read")


def _gradients_are_exact(make: Callable[[], Distiller], interactions: Interactions) -> None:
    """Float64 gradcheck of the loss as a function of the student's two tables."""
    run = _Run(make(), interactions)
    run.method.double()
    batch = batch_of(interactions, rows=6)
    teacher: Any = _Double(run.knowledge)
    before = run.generator.get_state()
    start = [run.student.parameter(f"{side}_table").detach().double() for side in ("user", "item")]

    def loss(users: Tensor, items: Tensor) -> Tensor:
        run.generator.set_state(before)
        return run.method.loss(EmbeddingState(users * 1, items * 1), teacher, batch)

    tables = [(0.1 * table).requires_grad_() for table in start]
    assert torch.autograd.gradcheck(loss, tuple(tables)), "the gradient is not that of the loss"


class _Double:
    """Knowledge whose vectors are float64."""

    def __init__(self, knowledge: TeacherKnowledge) -> None:
        self._knowledge = knowledge

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._knowledge, name)
        if name not in ("user_embeddings", "item_embeddings", "scores"):
            return found
        return lambda *arguments: found(*arguments).double()


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any torch operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.operation = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in tree_iter(found):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                elements = value.untyped_storage().size() // max(value.element_size(), 1)
                if elements > self.elements:
                    self.elements, self.operation = elements, str(func)
        return found


@contextmanager
def largest_tensor() -> Generator[_Largest]:
    """Watch torch operations: ``elements`` of the largest tensor made, and its ``operation``."""
    with _Largest() as watch:
        yield watch


def _never_users_by_items(make: Callable[[], Distiller]) -> None:
    users, items = 6000, 6000
    generator = torch.Generator().manual_seed(0)
    pairs = (
        torch.randint(0, users, (20_000,), generator=generator),
        torch.randint(0, items, (20_000,), generator=generator),
    )
    interactions = Interactions.from_events(*pairs, users, items)
    with largest_tensor() as watch:
        run = _Run(make(), interactions)
        run.loss(batch_of(interactions, rows=64)).backward()
    assert watch.elements < users * items // 2, (
        f"{watch.operation} makes {watch.elements:,} elements for {users:,} users x {items:,} items"
    )


def check_model(
    make: Callable[[], Recommender], *, observed_negatives: bool = False, catalogue: int = 6000
) -> None:
    """Every promise of a model that can be checked without knowing its equation.

    Args:
        make: builds the model (unbuilt).
        observed_negatives: its negatives are drawn from all items on purpose, so some are observed.
        catalogue: items of the data on which nothing of users × items may be built; fewer for a model that
            holds an items × items block by design.
    """
    interactions = tiny_interactions()
    model = built(make(), interactions)
    _state_is_consistent(model)
    if not model.closed_form:
        _trains(make, interactions, observed_negatives)
    again = built(make(), interactions)
    again.frozen()  # a model may settle its parameters when its state is computed
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), f"the same seed builds another {name}"
    _lists_are_right(model, interactions)
    _model_never_users_by_items(make, catalogue)


def _state_is_consistent(model: Recommender) -> None:
    state = model.frozen()
    users = torch.arange(state.num_users)
    with torch.no_grad():
        full = state.scores(users)
        assert full.shape == (state.num_users, state.num_items), f"scores have shape {tuple(full.shape)}"
        ids = torch.arange(state.num_items).expand(state.num_users, -1)
        torch.testing.assert_close(state.scores(users, ids.contiguous()), full)
        padded = state.scores(users[:1], torch.tensor([[-1, 0]]))
        assert float(padded[0, 0]) == 0.0, "the id -1 (padding) must score 0"
        vectors = state.score_vectors()
        if vectors is not None:
            product = vectors.users @ vectors.items.T
            for bias, shape in ((vectors.item_bias, (1, -1)), (vectors.user_bias, (-1, 1))):
                product = product if bias is None else product + bias.view(shape)
            torch.testing.assert_close(product, full, msg="score_vectors do not give the scores")
        if "embeddings" in state.kinds:
            assert state.user_embeddings(users).shape[1] == state.item_embeddings(users[:1]).shape[1]


def _trains(make: Callable[[], Recommender], interactions: Interactions, observed_negatives: bool) -> None:
    for rows in (None, 1):
        model = built(make(), interactions)
        batch = batch_of(interactions, rows)
        loss = model.loss(model.state(batch), batch)
        assert loss.dim() == 0, f"the loss has shape {tuple(loss.shape)}; expected a scalar"
        assert bool(torch.isfinite(loss)), f"the loss is {float(loss.detach())}"
        loss.backward()
        assert _reached(model.parameters()), "no gradient reaches the parameters"
    epoch = list(make_batches(model, interactions))
    rows_seen = sum(len(batch) for batch in epoch)
    assert rows_seen > 0, "an epoch has no rows"
    for batch in epoch:
        if batch.negatives is not None:
            users = batch.row_users[:, None].expand_as(batch.negatives).reshape(-1)
            seen = interactions.contains(users, batch.negatives.reshape(-1))
            assert observed_negatives or not bool(seen.any()), "a negative is an observed item"


def make_batches(model: Recommender, interactions: Interactions, seed: int = 4) -> Iterator[Batch]:
    """One epoch of the model's batches of at most 7 rows."""
    return model.batches(interactions, 7, torch.Generator().manual_seed(seed))


def _lists_are_right(model: Recommender, interactions: Interactions) -> None:
    users = torch.arange(interactions.num_users)
    ids, scores = top_items(model.frozen(), users, interactions.num_items, [interactions])
    for user in users.tolist():
        found = ids[user][ids[user] >= 0]
        owner = torch.full_like(found, user)
        assert not bool(interactions.contains(owner, found).any()), "a seen item is listed"
        left = interactions.num_items - int(interactions.user_counts[user])
        assert len(found) == left, f"user {user} gets {len(found)} items of {left} unseen"
        ranked = scores[user][: len(found)]
        assert bool((ranked.diff() <= 0).all()), "the list is not sorted"


def _model_never_users_by_items(make: Callable[[], Recommender], items: int) -> None:
    users = 6000
    generator = torch.Generator().manual_seed(0)
    pairs = (
        torch.randint(0, users, (20_000,), generator=generator),
        torch.randint(0, items, (20_000,), generator=generator),
    )
    interactions = Interactions.from_events(*pairs, users, items)
    with largest_tensor() as watch:
        model = built(make(), interactions)
        if not model.closed_form:
            batch = batch_of(interactions, rows=64)
            model.loss(model.state(batch), batch).backward()
    assert watch.elements < users * items // 2, (
        f"{watch.operation} makes {watch.elements:,} elements for {users:,} users x {items:,} items"
    )


def tiny_sequences(num_items: int = 14, seed: int = 0) -> Interactions:
    """Events in order with the awkward cases in them.

    User 0 has one event, user 1 two, user 2 none, user 3 forty on all items but the last two, user 4 one item three
    times, users 5 to 8 a few at random, with repeats and gaps between positions. The last item is observed by nobody.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([1, 2, 0, 40, 3, 5, 4, 9, 17])
    users = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    items = torch.randint(num_items - 2, users.shape, generator=generator)
    items[users == 3] = torch.arange(40) * 5 % (num_items - 2)
    items[users == 4] = 6
    positions = 3 * torch.arange(len(users)) + 1
    return Interactions.from_events(users, items, len(lengths), num_items, positions=positions)


def check_sequence_model(make: Callable[[], Recommender], *, causal: bool = True) -> None:
    """Every promise of a sequence model that can be checked without knowing its equation.

    Args:
        make: builds the model (unbuilt), which reads at least 2 and at most 30 items.
        causal: what it makes of an item does not depend on later ones.
    """
    interactions = tiny_sequences()
    model = built(make(), interactions, scale=3.0)
    assert isinstance(model, SequenceModel), "expected a SequenceModel"
    _state_is_consistent(model)
    _lists_are_right(model, interactions)
    again = built(make(), interactions, scale=3.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), f"the same seed builds another {name}"
    model.eval()
    with torch.no_grad():
        _padding_changes_nothing(model, interactions)
        _histories_are_read_alike(model, interactions)
        if causal:
            _future_changes_nothing(model)
    _sequences_train(make, interactions)
    _never_rows_by_items(make)


def _encoded(model: SequenceModel, sequences: Tensor) -> list[Tensor]:
    """Everything an encoder makes of each item, in the places of the sequences."""
    places = Places(sequences)
    found = model.encode(places)
    return [places.padded(part) for part in (found.embeddings, *found.hidden_states, found.outputs)]


def _padding_changes_nothing(model: SequenceModel, interactions: Interactions) -> None:
    users = (interactions.event_indptr.diff() > 0).nonzero().squeeze(1)
    length = min(model.max_length, 30)
    together = last_items(interactions, users, length)
    narrow = last_items(interactions, users[:2], 2)
    wider = torch.nn.functional.pad(narrow, (3, 0), value=-1)
    for name, one, other in (
        ("more padding", _encoded(model, narrow), [part[:, 3:] for part in _encoded(model, wider)]),
        ("longer neighbours", _encoded(model, narrow), [part[:2, -2:] for part in _encoded(model, together)]),
    ):
        for left, right in zip(one, other, strict=True):
            torch.testing.assert_close(left, right, msg=f"{name} of the batch changes a sequence")
    empty = _encoded(model, torch.full((2, 3), -1))[-1]
    assert bool((empty == 0).all()), "an empty sequence has outputs"


def _histories_are_read_alike(model: SequenceModel, interactions: Interactions) -> None:
    everyone = torch.arange(interactions.num_users)
    full = model.state(None).scores(everyone)
    assert bool(torch.isfinite(full).all()), "scores of some history are not finite"
    for batch in make_batches(model, interactions):
        torch.testing.assert_close(
            model.state(batch).scores(batch.users),
            full[batch.users],
            msg="a batch's users score differently than in the state of all users",
        )
        torch.testing.assert_close(
            model.state(batch).scores(everyone), full, msg="users outside of the batch score differently"
        )
    rows = interactions.event_rows(everyone)
    torch.testing.assert_close(model.fold_in(rows).scores(everyone), full, msg="folded histories differ")
    flipped = model.fold_in(ops.Rows(rows.indptr, rows.items.flip(0))).scores(everyone)
    assert not torch.allclose(flipped, full), "the order of the histories changes nothing"
    cut = last_items(interactions, torch.tensor([3]), model.max_length)[0]
    assert len(cut) < int(interactions.event_indptr.diff()[3]), "the model reads more than 39 items"
    newest = model.fold_in(ops.Rows(torch.tensor([0, len(cut)]), cut.int()))
    torch.testing.assert_close(
        newest.scores(torch.tensor([0])), full[3:4], msg="items older than the maximum are read"
    )


def _future_changes_nothing(model: SequenceModel) -> None:
    length = min(model.max_length, 12)
    sequence = (torch.arange(length) * 5 % model.num_items)[None]
    before = _encoded(model, sequence)
    for place in range(1, length):
        changed = sequence.clone()
        changed[:, place:] = (changed[:, place:] + 1) % model.num_items
        for left, right in zip(before, _encoded(model, changed), strict=True):
            torch.testing.assert_close(
                left[:, :place], right[:, :place], msg=f"item {place} changes what is made of earlier ones"
            )
            assert not torch.allclose(left[:, place], right[:, place]), f"item {place} itself changes nothing"


def _sequences_train(make: Callable[[], Recommender], interactions: Interactions) -> None:
    for size in (1, 7, 1000):
        model = built(make(), interactions, scale=3.0)
        users: list[int] = []
        for batch in model.batches(interactions, size, torch.Generator().manual_seed(4)):
            assert isinstance(batch, SequenceBatch), "expected batches of sequences"
            users += batch.users.tolist()
            torch.testing.assert_close(batch.positives, batch.targets[batch.targets >= 0])
            loss = model.loss(model.state(batch), batch)
            assert loss.dim() == 0, f"the loss has shape {tuple(loss.shape)}; expected a scalar"
            assert bool(torch.isfinite(loss)), f"the loss is {float(loss.detach())}"
            loss.backward()
        assert len(users) == len(set(users)), "a user is in two batches of an epoch"
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert bool(torch.isfinite(parameter.grad.to_dense()).all()), (
                f"the gradient of {name} is not finite"
            )


def _never_rows_by_items(make: Callable[[], Recommender]) -> None:
    users, items, length = 2000, 20_000, 6
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(items, (users * length,), generator=generator)
    owners = torch.arange(users).repeat_interleave(length)
    interactions = Interactions.from_events(owners, drawn, users, items, positions=torch.arange(len(drawn)))
    with largest_tensor() as watch:
        model = built(make(), interactions)
        batch = next(model.batches(interactions, 5000, generator))
        model.loss(model.state(batch), batch).backward()
    assert watch.elements < len(batch) * items // 4, (
        f"{watch.operation} makes {watch.elements:,} elements for {len(batch):,} rows x {items:,} items"
    )
