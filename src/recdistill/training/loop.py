"""The one training loop: every model, method and scale goes through it; nothing in it knows about teachers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recdistill.data.interactions import Interactions
from recdistill.distillers.base import Objective
from recdistill.errors import DataError, RecdistillError
from recdistill.models.base import Batch, Recommender
from recdistill.ops.memory import freed_memory_kept
from recdistill.progress import Progress, Silent, Stage
from recdistill.training.checkpoint import Checkpoint
from recdistill.training.group import Group
from recdistill.training.optimisers import Optimiser, Several, group_optimiser, make_optimiser
from recdistill.training.options import TrainingOptions
from recdistill.training.trajectory import Trajectory
from recdistill.wording import counted

Validator = Callable[[Recommender], float | None]


class TrainingDiverged(RecdistillError):
    """A loss that is not finite."""

    kind = "options"


@dataclass
class Result:
    """What a run did.

    Attributes:
        history: one record an epoch, as written to ``history.jsonl``.
        best_epoch: the epoch (from 1) whose state the model now has.
        best_metric: its validation metric; None where nothing was validated.
        stopped_early: patience ran out before the last epoch.
        trajectory: epochs and states that were asked to be kept, in order.
    """

    history: list[dict[str, Any]] = field(default_factory=lambda: [])
    best_epoch: int = 0
    best_metric: float | None = None
    stopped_early: bool = False
    trajectory: list[tuple[int, dict[str, Tensor]]] = field(default_factory=lambda: [])


@dataclass
class _Position:
    """Where a run is: resumed runs start from here.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch under way; its batches are drawn again and these are skipped.
        rows: training rows of those steps.
        seconds: time they took.
        since_best: validations since the best one.
    """

    epoch: int = 0
    step: int = 0
    rows: int = 0
    seconds: float = 0.0
    since_best: int = 0


def train(
    model: Recommender,
    objective: Objective,
    interactions: Interactions,
    options: TrainingOptions,
    validate: Validator | None = None,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    group: Group | None = None,
    work: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train ``model`` on ``objective``; on return the model holds its best validated state.

    Args:
        model: unbuilt; it is built for ``interactions``.
        objective: the loss.
        interactions: the train pairs.
        options: how to train.
        validate: the metric to select by, higher is better; the last epoch is kept without one.
        seed: of every draw.
        device: where to train; the CPU by default.
        group: this process' place among the processes of a run; one process by default. Each sees its own users'
            rows.
        work: directory for checkpoints and ``history.jsonl``; nothing is written without it.
        resume: continue from the checkpoint in ``work`` if there is one, to the same result bit for bit on a CPU.
        progress: where stages are shown.

    Raises:
        TrainingDiverged: the loss is not finite; the terms are in the message.
    """
    run = _Run(
        model, objective, interactions, options, validate, seed, device, group, work, progress or Silent()
    )
    if resume and run.checkpoint is not None and run.checkpoint.exists():
        run.restore()
    elif run.checkpoint is not None:
        run.checkpoint.write_history([])  # one killed before its first checkpoint may have left some
    with freed_memory_kept():
        return run.finish()


class _Run:
    """One training run: its generators, optimiser and position."""

    def __init__(
        self,
        model: Recommender,
        objective: Objective,
        interactions: Interactions,
        options: TrainingOptions,
        validate: Validator | None,
        seed: int,
        device: torch.device | None,
        group: Group | None,
        work: Path | None,
        progress: Progress,
    ) -> None:
        self.model, self.objective, self.options = model, objective, options
        self.validate, self.progress = validate, progress
        self.device = device or torch.device("cpu")
        self.group = group or Group()
        self.checkpoint = None if work is None else Checkpoint(work)
        self.generators = {
            name: torch.Generator().manual_seed(seed * 1_000_003 + number)
            for number, name in enumerate(("build", "sampler", "method"))
        }
        torch.manual_seed(seed)  # dropout has no generator argument
        if model.num_users == 0:
            model.build(interactions, self.generators["build"])
        model.to(self.device)
        self.interactions = self.group.own_rows(interactions)
        objective.setup(
            model, self.interactions, options.epochs, self.generators["method"], self.device, progress.note
        )
        self.optimiser, self.apart = self._optimisers()
        self.position = _Position()
        self.result = Result()
        self.best: dict[str, Tensor] = {}
        self.trajectory = Trajectory() if options.trajectory else None
        self._sampler_start = self.generators["sampler"].get_state()
        self._sums: dict[str, Tensor] = {}
        self._saved_at = time.monotonic()

    def _optimisers(self) -> tuple[Optimiser, Several]:
        """What steps with each batch, and what steps with batches of its own before."""
        options, groups = self.options, self.model.parameter_groups()
        own = tuple(f"model.{group.prefix}" for group in groups)
        main = make_optimiser(
            options.optimiser,
            [
                (name, p)
                for name, p in named_parameters(self.model, self.objective)
                if not name.startswith(own)
            ],
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            epsilon=options.epsilon,
        )
        beside, apart = (
            group_optimiser(
                [g for g in groups if g.own_batches == own_batches], self.model.named_parameters()
            )
            for own_batches in (False, True)
        )
        return Several({"main": main, "beside": beside}) if beside.parts else main, apart

    def finish(self) -> Result:
        """Run the epochs that are left and load the best state."""
        if self.model.closed_form:
            self._fit()
            return self.result
        options = self.options
        with self.progress.stage("train", options.epochs, "epochs") as stage:
            stage.skip(self.position.epoch)
            while self.position.epoch < options.epochs:
                record = self._epoch(stage)
                stage.advance(1, **_shown(record))
                if self.validate is not None and self.position.since_best >= options.patience:
                    self.result.stopped_early = True
                    break
        for name, text in self.objective.pending().items():
            self.progress.note(f"{name}: training ended before its schedule: {text}")
        if self.best:
            self.model.load_state_dict(self.best)
        if self.trajectory is not None:
            self.trajectory.settle(self.result.best_epoch, self.model.state_dict(), self.options.trajectory)
            self.result.trajectory = list(self.trajectory.states.items())
            asked, kept = len(set(self.options.trajectory) | {1.0}), len(self.result.trajectory)
            if kept < asked:
                self.progress.note(
                    f"trajectory: {counted(kept, 'state')} kept of {asked}: the best epoch is {self.result.best_epoch}"
                )
        self.model.eval()
        return self.result

    def _fit(self) -> None:
        announcement = self.model.announcement(self.interactions)
        if announcement:
            self.progress.note(announcement)
        started = time.perf_counter()
        self.model.fit(self.interactions, self.generators["build"])
        self.model.eval()
        metric = None if self.validate is None else self.validate(self.model)
        seconds = time.perf_counter() - started
        self.result = Result(
            [self._record(1, {}, metric, self.interactions.num_pairs, seconds, 0.0)], 1, metric, False
        )
        if self.checkpoint is not None:
            self.checkpoint.write_history(self.result.history)

    def _epoch(self, stage: Stage) -> dict[str, Any]:
        epoch, options, position = self.position.epoch, self.options, self.position
        started = time.perf_counter() - position.seconds
        self.model.train()
        self.objective.train()
        if position.step == 0:
            self._sums = {}
            self._sampler_start = self.generators["sampler"].get_state()
            self.objective.start_epoch(epoch)
        sums = self._steps(stage, started)
        rows, seconds = position.rows, time.perf_counter() - started
        position.epoch, position.step, position.rows, position.seconds = epoch + 1, 0, 0, 0.0
        metric, validation_seconds = None, 0.0
        last = epoch + 1 == options.epochs
        if self.validate is not None and ((epoch + 1) % options.validate_every == 0 or last):
            started = time.perf_counter()
            self.model.eval()
            metric = self.validate(self.model)
            validation_seconds = time.perf_counter() - started
        self._keep(epoch + 1, metric)
        losses = {name: total / max(rows, 1) for name, total in sums.items()}
        record = self._record(epoch + 1, losses, metric, rows, seconds, validation_seconds)
        self.result.history.append(record)
        if self.checkpoint is not None:
            self.checkpoint.append_history(record)
            if self._due():
                self.save()
        return record

    def _due(self) -> bool:
        waited = time.monotonic() - self._saved_at
        return self.checkpoint is not None and waited >= self.options.checkpoint_seconds

    def _steps(self, stage: Stage, started: float) -> dict[str, float]:
        """The steps of one epoch that are left; sums of each term over the epoch's rows."""
        position = self.position
        batches = self._batches()
        while self.group.any_has((batch := next(batches, None)) is not None):
            terms = self._step(batch)
            if batch is None:  # another process has rows left
                continue
            for name, value in terms.items():
                weighted = value * len(batch)
                self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted
            position.step += 1
            position.rows += len(batch)
            stage.advance(0)
            if self._due():
                position.seconds = time.perf_counter() - started
                self.save()
        if position.rows == 0:
            raise DataError(
                "no training rows: every user has interacted with every item, or there are no interactions",
                "check the data and its filters",
            )
        found = {name: float(value) for name, value in self._sums.items()}
        if not all(math.isfinite(value) for value in found.values()):
            self._check(
                {name: value / position.rows for name, value in self._sums.items()}, torch.tensor(math.nan)
            )
        return found

    def _step(self, batch: Batch | None) -> dict[str, Tensor]:
        """One optimiser step; the detached terms of the loss. Without a batch the gradient is the others'."""
        if self.apart.parts:
            self._step_apart(None if batch is None else batch.held_out)
        self.optimiser.zero_grad()
        terms = {} if batch is None else self._backward(batch)
        self.group.mean_gradients(p for _, p in named_parameters(self.model, self.objective))
        self.optimiser.step()
        self.objective.after_step()
        return terms

    def _step_apart(self, batch: Batch | None) -> None:
        """One step of the parameters that have batches of their own; the gradients of the others are forgotten."""
        self.optimiser.zero_grad()
        self.apart.zero_grad()
        if batch is not None:
            self._backward(batch)
        self.group.mean_gradients(p for _, p in named_parameters(self.model, self.objective))
        self.apart.step()
        self.apart.zero_grad()

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        autocast = (
            torch.autocast(self.device.type, torch.bfloat16)
            if self.options.precision == "bf16"
            else nullcontext()
        )
        with autocast:
            state = self.model.state(batch)
            terms = self.objective.terms(self.model, state, batch)
        total = torch.stack([value.float() for value in terms.values()]).sum()
        if self.device.type == "cpu":  # on a GPU this would wait for every step; there the epoch's end checks
            self._check(terms, total)
        total.backward()
        return {name: value.detach() for name, value in terms.items()}

    def _batches(self) -> Iterator[Batch]:
        """The epoch's batches that are left: all are drawn, so that a resumed epoch is the same epoch."""
        sampler = self.generators["sampler"]
        sampler.set_state(self._sampler_start)
        batches = self.model.batches(self.interactions, self.options.batch_size, sampler)
        for number, batch in enumerate(batches):
            if number >= self.position.step:
                yield batch.to(self.device)

    def _check(self, terms: dict[str, Tensor], total: Tensor) -> None:
        if bool(torch.isfinite(total)):
            return
        shown = ", ".join(f"{name} {float(value.detach()):.6g}" for name, value in terms.items())
        raise TrainingDiverged(
            f"the loss is not finite in epoch {self.position.epoch + 1}: {shown}",
            "lower training.learning_rate or the weight of the term that grew; a temperature near 0 overflows too",
        )

    def _keep(self, epoch: int, metric: float | None) -> None:
        """Remember this epoch's state if it is the best, and the trajectory if asked."""
        best = self.result.best_metric
        if self.validate is None or (metric is not None and (best is None or metric > best)):
            self.result.best_epoch, self.result.best_metric = epoch, metric
            self.position.since_best = 0
            if self.validate is not None:
                self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        elif metric is not None and not self.objective.pending():
            self.position.since_best += 1
        if self.trajectory is not None:
            self.trajectory.offer(epoch, self.model, self.result.best_epoch)

    def _record(
        self,
        epoch: int,
        losses: dict[str, float],
        metric: float | None,
        rows: int,
        seconds: float,
        validation_seconds: float,
    ) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "loss": sum(losses[name] for name in sorted(losses)),
            "losses": losses,
            "metric": None if metric is None else {self.options.validate_metric: metric},
            "rows": rows,
            "rows_per_second": rows / max(seconds, 1e-9),
            "seconds": seconds,
            "validation_seconds": validation_seconds,
            **({"facts": facts} if (facts := self.objective.facts()) else {}),
        }

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        assert self.checkpoint is not None
        self.checkpoint.save(
            {
                "model": dict(self.model.state_dict()),
                "objective": dict(self.objective.state_dict()),
                "optimiser": self.optimiser.state_tensors(),
                "apart": self.apart.state_tensors(),
                "best": self.best,
                "generators": {name: g.get_state() for name, g in self.generators.items()}
                | {"torch": torch.get_rng_state(), "sampler_start": self._sampler_start},
                "sums": self._sums,
                "trajectory": {} if self.trajectory is None else self.trajectory.tensors(),
            },
            {
                "position": vars(self.position),
                "history": self.result.history,
                "best_epoch": self.result.best_epoch,
                "best_metric": self.result.best_metric,
            },
        )
        self._saved_at = time.monotonic()

    def restore(self) -> None:
        """Continue from the checkpoint."""
        assert self.checkpoint is not None
        tensors, facts = self.checkpoint.load()
        self.model.load_state_dict(tensors["model"])
        self.objective.load_state_dict(tensors["objective"])
        self.optimiser.load_state_tensors(tensors["optimiser"])
        self.apart.load_state_tensors(tensors.get("apart", {}))
        self.best = tensors["best"]
        for name, generator in self.generators.items():
            generator.set_state(tensors["generators"][name])
        torch.set_rng_state(tensors["generators"]["torch"])
        self._sampler_start = tensors["generators"]["sampler_start"]
        self._sums = {name: value.to(self.device) for name, value in tensors["sums"].items()}
        if self.trajectory is not None:
            self.trajectory.load(tensors["trajectory"])
        self.position = _Position(**facts["position"])
        self.result = Result(facts["history"], facts["best_epoch"], facts["best_metric"])
        self.checkpoint.write_history(self.result.history)
        self.progress.note(f"resumed after epoch {self.position.epoch}, step {self.position.step}")


def named_parameters(model: nn.Module, objective: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The model's parameters and the methods' own, by unique names."""
    for prefix, module in (("model", model), ("objective", objective)):
        for name, parameter in module.named_parameters():
            yield f"{prefix}.{name}", parameter


def _shown(record: dict[str, Any]) -> dict[str, object]:
    metric = record["metric"] or {}
    return {"loss": round(record["loss"], 4), **{name: round(value, 4) for name, value in metric.items()}}
