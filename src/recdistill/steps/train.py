"""`train`: a teacher, or a student without distillation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recdistill.distillers.base import Objective
from recdistill.models.base import Recommender
from recdistill.progress import Progress, Silent
from recdistill.steps.fit import DataLike, ModelLike, fit, make_model, make_training, open_data
from recdistill.training.options import TrainingOptions


def train(
    data: DataLike,
    model: ModelLike = "bpr",
    out: Path | str = "runs/train",
    *,
    training: TrainingOptions | Mapping[str, Any] | None = None,
    on: Sequence[str] = ("train",),
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Recommender:
    """Train a model on its own loss.

    Args:
        data: a prepared data directory.
        model: an unbuilt model, its name, or a table of its name and options.
        out: the model directory to write.
        training: how to train, see :class:`~recdistill.training.loop.TrainingOptions`.
        on: ``train``, or ``train`` and ``valid`` to refit without validation.
        seed: of initialisation and draws.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace another model in ``out``.
        resume: continue an interrupted run.
        progress: where stages are shown.

    Returns:
        The trained model, loaded from ``out``.

    Raises:
        RecdistillError: bad options or data, or ``out`` holds something else.
    """
    return fit(
        open_data(data),
        make_model(model),
        Objective(),
        make_training(training),
        out,
        distill=[],
        inputs={},
        lineage={},
        on=on,
        seed=seed,
        device=device,
        force=force,
        resume=resume,
        progress=progress or Silent(),
    )
