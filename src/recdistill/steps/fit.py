"""What `train` and `distill` share: from a model and an objective to a model directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from recdistill import artifacts, config
from recdistill.artifacts import save_arrays
from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.data.sequences import newcomers
from recdistill.distillers.base import Objective
from recdistill.errors import OptionError
from recdistill.evaluation.candidates import Negatives
from recdistill.evaluation.validate import validator
from recdistill.models.base import Recommender
from recdistill.models.popularity import Popularity
from recdistill.progress import Progress
from recdistill.steps.load import WEIGHTS, load, save_model
from recdistill.training.checkpoint import Checkpoint, note_start
from recdistill.training.loop import Result, train
from recdistill.training.options import TrainingOptions

DataLike = Data | Path | str
ModelLike = Recommender | str | Mapping[str, Any]


def open_data(data: DataLike) -> Data:
    """A prepared data directory, by path or opened already."""
    return data if isinstance(data, Data) else Data.load(data)


def make_model(model: ModelLike, path: str = "model") -> Recommender:
    """An unbuilt model from an instance, a name, or a table with ``name`` and options; errors call it ``path``."""
    if isinstance(model, Recommender):
        if model.num_users:
            raise OptionError("the model is built already", "pass an unbuilt one, such as BPR(dim=20)")
        return model
    if isinstance(model, type):
        raise OptionError(
            f"expected a model, found the class {model.__name__}", f"call it: {model.__name__}(...)"
        )
    chosen = {"name": model} if isinstance(model, str) else dict(model)
    if "name" not in chosen:
        raise OptionError("model has no name", f"one of: {', '.join(config.names('models'))}")
    built = config.build(config.find("models", str(chosen.pop("name"))), chosen, path)
    assert isinstance(built, Recommender)
    return built


def make_training(
    training: TrainingOptions | Mapping[str, Any] | None, path: str = "training"
) -> TrainingOptions:
    """Training options from an instance or a table; errors call them ``path``."""
    if isinstance(training, TrainingOptions):
        return training
    return config.build(TrainingOptions, dict(training or {}), path)


def pick_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one.

    Raises:
        OptionError: an unknown device, or no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise OptionError(f"device must be auto, cpu or cuda; found '{name}'")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            "device is cuda, but torch sees no GPU", "use --device cpu, or install torch for CUDA"
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def fit(
    data: Data,
    model: Recommender,
    objective: Objective,
    training: TrainingOptions,
    out: Path | str,
    *,
    distill: list[dict[str, Any]],
    beside: dict[str, Any] | None = None,
    inputs: dict[str, str],
    lineage: dict[str, Any],
    on: Sequence[str],
    seed: int,
    device: str,
    force: bool,
    resume: bool,
    progress: Progress,
) -> Recommender:
    """Train ``model`` on ``objective`` into the directory ``out``, or find it there."""
    options = call_options(model, training, distill, objective.base_weight, on)
    if beside:
        options["beside"] = beside
    inputs = {"data": data.hash, **inputs}
    with artifacts.step(
        out, kind="model", options=options, seed=seed, inputs=inputs, force=force, resume=resume
    ) as job:
        if job.reused:
            progress.note(f"{out}: already there, same inputs and options: reused")
        else:
            note_start(job, resume, progress)
            interactions = data.fitted(on)
            validate = None
            if len(on) == 1 and data.valid.num_pairs:
                validate = make_validator(data, training)
            elif not model.closed_form:
                progress.note("nothing to validate on: the last epoch is kept")
            result = train(
                model,
                objective,
                interactions,
                training,
                validate,
                seed=seed,
                device=pick_device(device),
                work=job.work,
                resume=resume,
                progress=progress,
            )
            if validate is not None and result.best_metric is not None and not isinstance(model, Popularity):
                _note_below_popularity(result.best_metric, interactions, validate, training, progress)
            model.attach(data.users, data.items, interactions)
            save_model(model, job.work)
            _save_trajectory(result, job.work)
            Checkpoint(job.work).clear()
            job.summary.update(lineage, **model_summary(model, result, job.work))
    return load(out)


def call_options(
    model: Recommender,
    training: TrainingOptions,
    distill: Sequence[Mapping[str, Any]] = (),
    base_weight: float = 1.0,
    on: Sequence[str] = ("train",),
) -> dict[str, Any]:
    """The options by which a model's manifest tells whether it is the one that is asked for."""
    options: dict[str, Any] = {
        "model": {"name": model.model_name(), **model.options},
        "training": {k: v for k, v in training.options.items() if k != "checkpoint_seconds"},
        "on": list(on),
    }
    if distill:
        options |= {"distill": [dict(table) for table in distill], "base_weight": base_weight}
    return options


def make_validator(data: Data, training: TrainingOptions) -> Callable[[Recommender], float]:
    """What ``training`` selects by, on the valid split of ``data``; test rows are not looked at."""
    number = training.validate_negatives
    negatives = None
    if number is not None:
        users = (data.valid.user_counts > 0).nonzero().squeeze(1)
        negatives = Negatives(data.train.union(data.valid), number, users, data.manifest.seed or 0)
    targets, earlier = newcomers(data.valid, data.train)
    known = (data.train,) if earlier is None else (data.train, earlier)
    histories = None if earlier is None else data.train.union(earlier)
    masked = () if data.has_repeats else known
    return validator(targets, masked, training.validate_metric, negatives, histories)


def _note_below_popularity(
    best: float,
    interactions: Interactions,
    validate: Callable[[Recommender], float],
    training: TrainingOptions,
    progress: Progress,
) -> None:
    """Say that a trained model ranks the valid rows worse than popularity does, where it does."""
    popularity, generator = Popularity(), torch.Generator()
    popularity.build(interactions, generator)
    popularity.fit(interactions, generator)
    popularity.eval()
    floor = validate(popularity)
    if best < floor:
        progress.note(
            f"{training.validate_metric} {best:.4f} on the valid rows is below the {floor:.4f} of the most popular"
            " items for everyone: try other learning rates, more epochs or more patience"
        )


def model_summary(model: Recommender, result: Result, work: Path) -> dict[str, Any]:
    """What a model's manifest says of it and its training; ``work`` holds its weights."""
    return {
        "parameters": model.num_parameters(),
        "bytes": (work / WEIGHTS).stat().st_size,
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "best_metric": result.best_metric,
        "stopped_early": result.stopped_early,
        "trajectory": [epoch for epoch, _ in result.trajectory],
        "seconds_per_epoch": sum(r["seconds"] for r in result.history) / max(len(result.history), 1),
    }


def _save_trajectory(result: Result, work: Path) -> None:
    for epoch, state in result.trajectory:
        folder = work / "trajectory"
        folder.mkdir(exist_ok=True)
        save_arrays(folder / f"epoch-{epoch:06d}.safetensors", state)
