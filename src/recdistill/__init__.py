"""recdistill turns large recommender models into small ones that rank nearly as well.

Each step is one function here and one command of the same name: ``prepare``, ``train``, ``extract``, ``ensemble``,
``distill``, ``evaluate``, ``report``, ``recommend``, ``run``, ``compare``, ``tune``, ``search``, ``demo``;
``load`` opens a model, and ``bidirectional``, from Python only, trains a teacher and a student together. Models are in
``recdistill.models``, methods in ``recdistill.distillers``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recdistill import distillers as distillers
    from recdistill import models as models
    from recdistill.steps.bidirectional import bidirectional as bidirectional
    from recdistill.steps.compare import compare as compare
    from recdistill.steps.demo import demo as demo
    from recdistill.steps.distill import distill as distill
    from recdistill.steps.ensemble import ensemble as ensemble
    from recdistill.steps.evaluate import evaluate as evaluate
    from recdistill.steps.extract import extract as extract
    from recdistill.steps.load import load as load
    from recdistill.steps.prepare import prepare as prepare
    from recdistill.steps.recommend import recommend as recommend
    from recdistill.steps.report import report as report
    from recdistill.steps.run import run as run
    from recdistill.steps.search import search as search
    from recdistill.steps.train import train as train
    from recdistill.steps.tune import tune as tune

__version__ = "0.1.0"

_STEPS = (
    "bidirectional", "compare", "demo", "distill", "ensemble", "evaluate", "extract", "load", "prepare", "recommend",
    "report", "run", "search", "train", "tune",
)  # fmt: skip
_ROOMS = ("distillers", "models")

__all__ = [
    "bidirectional", "compare", "demo", "distill", "distillers", "ensemble", "evaluate", "extract", "load", "models",
    "prepare", "recommend", "report", "run", "search", "train", "tune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Steps and rooms are imported when first used, so that ``import recdistill`` is quick."""
    if name in _STEPS:
        return getattr(importlib.import_module(f"recdistill.steps.{name}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"recdistill.{name}")
    from recdistill.wording import did_you_mean

    near = did_you_mean(name, __all__)
    hint = f"; {near}" if near else ""
    raise AttributeError(f"module 'recdistill' has no attribute '{name}'{hint}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
