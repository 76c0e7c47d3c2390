"""The training loop: learning, early stopping, resume bit for bit, divergence, history, trajectory."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from line_cases import Notes
from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Context, Distiller, Objective
from recdistill.distillers.de import DE
from recdistill.distillers.rrd import RRD
from recdistill.errors import ArtifactError, DataError, OptionError, RecdistillError
from recdistill.knowledge.base import TeacherState
from recdistill.knowledge.teacher import live
from recdistill.models.base import Batch, Recommender, State
from recdistill.models.bpr import BPR
from recdistill.models.lightgcn import LightGCN
from recdistill.models.popularity import Popularity
from recdistill.testing import built, tiny_interactions
from recdistill.training.loop import train
from recdistill.training.options import TrainingOptions


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs() -> Interactions:
    return tiny_interactions(40, 60, seed=1)


def objective(kind: str) -> Objective:
    if kind == "alone":
        return Objective()
    knowledge = live(built(BPR(dim=6), pairs(), seed=8), pairs())
    rrd = RRD(weight=0.1, num_interesting=3, num_uninteresting=4, depth=9, resample_every=2)
    return Objective([rrd, DE(weight=0.1, num_experts=2, anneal_epochs=6)], knowledge)


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions(**{"epochs": 6, "batch_size": 64, "learning_rate": 0.02, "patience": 3, **changes})


def score(model: Recommender) -> float:
    """A stand-in for validation that moves with the weights."""
    with torch.no_grad():
        return float(sum(parameter.abs().sum() for parameter in model.parameters()))


def test_the_loss_falls_and_history_says_so(tmp_path: Path) -> None:
    result = train(BPR(dim=8), objective("both"), pairs(), options(epochs=15), score, work=tmp_path)
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < 0.9 * losses[0]
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert lines == json.loads(json.dumps(result.history))
    assert set(lines[0]["losses"]) == {"bpr", "rrd", "de"}
    assert lines[0]["loss"] == pytest.approx(sum(lines[0]["losses"].values()))
    assert lines[0]["metric"]["ndcg@10"] > 0
    assert lines[0]["rows"] == int((pairs().user_counts < 60).float().mul(pairs().user_counts).sum())


def test_the_best_state_is_kept_and_patience_stops() -> None:
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    seen: list[torch.Tensor] = []

    def validate(model: Recommender) -> float:
        seen.append(model.state_dict()["user_table"].clone())
        return next(values)

    model = BPR(dim=3)
    result = train(model, Objective(), pairs(), options(epochs=50), validate)
    assert (result.best_epoch, result.best_metric, result.stopped_early) == (2, 0.5, True)
    assert len(result.history) == 5
    assert torch.equal(model.user_table, seen[1])


@pytest.mark.parametrize("shares", [(0.5, 0.25), (0.25, 0.25, 1.0)])
def test_shares_of_a_trajectory_ascend(shares: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match=r"trajectory.*ascending order, each once"):
        options(trajectory=shares)


class Scheduled(Distiller):
    """Has a schedule of so many epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.weight = 1.0
        self.register_buffer("left", torch.tensor(epochs))

    def start_epoch(self, epoch: int, context: Context) -> None:
        self.get_buffer("left").sub_(1)

    def loss(self, student: State, teacher: TeacherState, batch: Batch) -> torch.Tensor:
        return student.scores(batch.users).square().mean() * 0.0

    def pending(self) -> str:
        return "more to come" if self.get_buffer("left") > 0 else ""


@pytest.mark.parametrize(("schedule", "num_epochs", "told"), [(1, 5, 0), (4, 6, 0), (30, 20, 1)])
def test_patience_counts_from_the_end_of_a_methods_schedule(
    schedule: int, num_epochs: int, told: int
) -> None:
    """The metric falls from the second epoch on, and patience is 3."""
    values = iter([0.1, 0.5, *(0.4 - place / 100 for place in range(30))])
    shown = Notes()
    knowledge = live(built(BPR(dim=6), pairs(), seed=8), pairs())
    result = train(
        BPR(dim=3),
        Objective([Scheduled(schedule)], knowledge),
        pairs(),
        options(epochs=20),
        lambda model: next(values),
        progress=shown,
    )
    assert (len(result.history), result.best_epoch) == (num_epochs, 2)
    assert shown.notes == ["test-loop: training ended before its schedule: more to come"] * told


@pytest.mark.parametrize("optimiser", ["adam", "sparse-adam", "rowwise-adagrad"])
@pytest.mark.parametrize("kind", ["alone", "both"])
def test_resume_continues_bit_for_bit(tmp_path: Path, kind: str, optimiser: str) -> None:
    chosen = options(optimiser=optimiser, checkpoint_seconds=0.0, trajectory=(0.5, 1.0))
    whole = BPR(dim=4)
    straight = train(whole, objective(kind), pairs(), chosen, score, work=tmp_path / "a", seed=5)

    class Stop(Exception):
        pass

    calls = 0

    def interrupted(model: Recommender) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Stop
        return score(model)

    with pytest.raises(Stop):
        train(BPR(dim=4), objective(kind), pairs(), chosen, interrupted, work=tmp_path / "b", seed=5)
    again = BPR(dim=4)
    resumed = train(again, objective(kind), pairs(), chosen, score, work=tmp_path / "b", seed=5, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name

    def facts(history: list[dict[str, Any]]) -> list[Any]:
        return [(r["epoch"], r["losses"], r["metric"], r["rows"]) for r in history]

    assert facts(straight.history) == facts(resumed.history)
    assert [epoch for epoch, _ in straight.trajectory] == [epoch for epoch, _ in resumed.trajectory]
    for (_, one), (_, other) in zip(straight.trajectory, resumed.trajectory, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_was_killed_before_its_first_checkpoint_leaves_no_history(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "lo')
    result = train(BPR(dim=4), Objective(), pairs(), options(epochs=2), score, work=tmp_path, resume=True)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ArtifactError, match=r"no space left for .*history\.jsonl: .* free"):
        train(BPR(dim=4), Objective(), pairs(), options(epochs=2), score, work=tmp_path)


def test_resume_within_an_epoch_skips_the_steps_that_were_done(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Fragile(BPR):
        steps = 0
        fails_at = 10**9

        def loss(self, state: State, batch: Batch) -> torch.Tensor:
            self.steps += 1
            if self.steps == self.fails_at:
                raise Killed
            return super().loss(state, batch)

    chosen = options(checkpoint_seconds=0.0)
    whole = Fragile(dim=4)
    train(whole, objective("both"), pairs(), chosen, score, work=tmp_path / "a")
    broken = Fragile(dim=4)
    broken.fails_at = whole.steps // 2 + 1
    with pytest.raises(Killed):
        train(broken, objective("both"), pairs(), chosen, score, work=tmp_path / "b")
    again = Fragile(dim=4)
    train(again, objective("both"), pairs(), chosen, score, work=tmp_path / "b", resume=True)
    assert again.steps == whole.steps - broken.fails_at + 1
    assert torch.equal(whole.item_table, again.item_table)


def test_the_same_seed_gives_the_same_model_and_another_another() -> None:
    models = [BPR(dim=4) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, objective("both"), pairs(), options(), seed=seed)
    assert torch.equal(models[0].user_table, models[1].user_table)
    assert not torch.equal(models[0].user_table, models[2].user_table)


def test_a_loss_that_is_not_finite_stops_with_its_terms() -> None:
    class Broken(BPR):
        def loss(self, state: State, batch: Batch) -> torch.Tensor:
            return super().loss(state, batch) * torch.inf

    with pytest.raises(RecdistillError, match=r"not finite in epoch 1: \S+ inf"):
        train(Broken(dim=3), Objective(), pairs(), options())


def test_no_training_rows_is_bad_data() -> None:
    everything = Interactions.from_events(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2)
    with pytest.raises(DataError, match="no training rows"):
        train(BPR(dim=2), Objective(), everything, options())


def test_a_closed_form_model_is_one_epoch(tmp_path: Path) -> None:
    model = Popularity()
    result = train(model, Objective(), pairs(), options(), lambda _: 0.25, work=tmp_path)
    assert (len(result.history), result.best_metric) == (1, 0.25)
    assert torch.equal(model.get_buffer("counts"), pairs().item_counts.float())


class Counting(RRD):
    """RRD that tells how many steps it has taken."""

    def setup(self, context: Any) -> None:
        super().setup(context)
        self.register_buffer("steps", torch.zeros(()))

    def after_step(self) -> None:
        self.get_buffer("steps").add_(1)

    def facts(self) -> dict[str, float]:
        return {"steps": float(self.get_buffer("steps"))}


def test_facts_of_methods_are_in_the_history(tmp_path: Path) -> None:
    knowledge = live(built(BPR(dim=6), pairs(), seed=8), pairs())
    small: dict[str, Any] = {"num_interesting": 3, "num_uninteresting": 4, "depth": 9}
    methods = [RRD(**small), Counting(**small)]
    train(BPR(dim=4), Objective(methods, knowledge), pairs(), options(epochs=2), work=tmp_path)
    first, second = (json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines())
    steps = -(-pairs().num_pairs // 64)
    assert first["facts"] == {"test-loop": {"steps": steps}}
    assert second["facts"] == {"test-loop": {"steps": 2 * steps}}
    train(BPR(dim=4), objective("both"), pairs(), options(epochs=1), work=tmp_path / "none")
    assert "facts" not in json.loads((tmp_path / "none" / "history.jsonl").read_text())


def test_validate_every() -> None:
    result = train(BPR(dim=2), Objective(), pairs(), options(epochs=5, validate_every=2), score)
    assert [record["metric"] is not None for record in result.history] == [False, True, False, True, True]


def test_bf16_changes_products_and_stays_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.ops.experts.bfloat16_is_fast", lambda device: True)
    exact, low = LightGCN(dim=4, init_std=0.5), LightGCN(dim=4, init_std=0.5)
    first = train(exact, objective("both"), pairs(), options(epochs=2))
    second = train(low, objective("both"), pairs(), options(epochs=2, precision="bf16"))
    assert first.history[-1]["loss"] != second.history[-1]["loss"]
    assert second.history[-1]["loss"] == pytest.approx(first.history[-1]["loss"], rel=0.05)
    assert low.table.dtype == torch.float32


def test_weight_decay_and_learning_rate_change_the_result() -> None:
    def final(**changes: Any) -> torch.Tensor:
        model = BPR(dim=3)
        train(model, Objective(), pairs(), options(**changes))
        return model.user_table.detach()

    base = final()
    assert float(final(weight_decay=0.5).abs().sum()) < float(base.abs().sum())
    for changes in (
        {"learning_rate": 0.001},
        {"epsilon": 1e-3},
        {"batch_size": 16},
        {"optimiser": "sparse-adam"},
    ):
        assert not torch.equal(base, final(**changes)), changes


def test_fewer_states_than_asked_are_said() -> None:
    said, values = Notes(), iter(range(100))
    train(
        BPR(dim=2),
        Objective(),
        pairs(),
        options(epochs=6, trajectory=(0.25, 0.5, 1.0)),
        lambda _: -float(next(values)),
        progress=said,
    )
    assert any("trajectory: 1 state kept of 3: the best epoch is 1" in note for note in said.notes)


def test_the_trajectory_ends_at_the_best_epoch() -> None:
    values = iter(range(100))
    result = train(
        BPR(dim=2),
        Objective(),
        pairs(),
        options(epochs=40, trajectory=(0.25, 0.5, 1.0)),
        lambda _: float(-abs(next(values) - 32)),
    )
    assert result.best_epoch == 33
    epochs = [epoch for epoch, _ in result.trajectory]
    assert epochs == sorted(epochs)
    assert abs(epochs[0] - 33 / 4) <= 2
    assert epochs[-1] == 33


def test_of_equal_epochs_the_first_is_kept() -> None:
    result = train(BPR(dim=2), Objective(), pairs(), TrainingOptions(epochs=3), lambda model: 0.5)
    assert result.best_epoch == 1
