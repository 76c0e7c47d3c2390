"""Commands that train: ``train``, ``distill``, ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from recdistill.cli.call import Call, takes
from recdistill.cli.options import LONG_STEP, DataDir
from recdistill.errors import OptionError
from recdistill.wording import counted


@takes(*LONG_STEP)
def train(
    call: Call,
    data: DataDir,
    model: Annotated[str, Option(help="One of those that recdistill options lists.")] = "bpr",
    *,
    on: Annotated[str, Option(help="Splits to train on: train, or train,valid to refit.")] = "train",
) -> None:
    """Train a teacher, or a student without distillation."""
    from recdistill.config import find
    from recdistill.steps.train import train as run_train
    from recdistill.training.options import TrainingOptions

    chosen = call.sorted_sets({"model": find("models", model), "training": TrainingOptions})
    run_train(
        data,
        {"name": model, **chosen["model"]},
        call.out,
        training=chosen["training"],
        on=on.split(","),
        **call.options("seed", "device", "resume"),
    )
    _finish(call)


@takes(*LONG_STEP)
def distill(
    call: Call,
    data: DataDir,
    knowledge: Annotated[
        Path | None, Argument(metavar="KNOWLEDGE", help="A directory made by 'extract'.", show_default=False)
    ] = None,
    live: Annotated[
        Path | None, Option(help="A model to read instead of a store.", show_default=False)
    ] = None,
    model: Annotated[
        str, Option(help="The student: any model of docs/models.md that trains by steps.")
    ] = "bpr",
    method: Annotated[
        list[str] | None,
        Option(
            "--method",
            help="A method or a preset that recdistill options lists; repeated ones add up"
            " (default recommended, as far as the knowledge goes).",
            show_default=False,
        ),
    ] = None,
    beside: Annotated[
        str | None,
        Option(
            help="A model fitted at once (itemknn, ease, popularity) whose lists are put together with the teacher's,"
            " or none (default: itemknn, where no method is named and both rank the valid rows better).",
            show_default=False,
        ),
    ] = None,
    base_weight: Annotated[float, Option(help="Weight of the student's own loss.")] = 1.0,
) -> None:
    """Train a student on its own loss plus distillation losses."""
    from recdistill.artifacts import read_manifest
    from recdistill.config import find
    from recdistill.data.prepared import Data
    from recdistill.steps.distill import distill as run_distill
    from recdistill.steps.distill import open_knowledge
    from recdistill.steps.methods import method_tables
    from recdistill.steps.origins import check_trainable
    from recdistill.steps.recipe import default_methods, with_beside
    from recdistill.training.options import TrainingOptions

    if (knowledge is None) == (live is None):
        raise OptionError("distill needs a knowledge directory, or --live MODEL, and not both")
    if knowledge is not None and read_manifest(knowledge, kind=("knowledge", "model")).kind == "model":
        raise OptionError(
            f"{knowledge} is a model; expected knowledge made by extract",
            f"to read the model itself: --live {knowledge}",
        )
    check_trainable(find("models", model))
    prepared = Data.load(data)
    teacher = open_knowledge(knowledge or live or "", prepared)
    if beside is not None or not method:
        teacher = with_beside(teacher, prepared, beside, call.progress)
    tables, methods = _named(method_tables(method) if method else default_methods(teacher, call.progress))
    chosen = call.sorted_sets({"model": find("models", model), "training": TrainingOptions, **methods})
    run_distill(
        prepared,
        teacher,
        {"name": model, **chosen["model"]},
        [{**table, **chosen[name]} for name, table in tables.items()],
        call.out,
        training=chosen["training"],
        base_weight=base_weight,
        **call.options("seed", "device", "resume"),
    )
    _finish(call)


@takes(*LONG_STEP)
def search(
    call: Call,
    data: DataDir,
    teacher: Annotated[
        Path,
        Argument(
            metavar="TEACHER",
            help="A sequence model's directory; others and stores, if methods compare no hidden states.",
        ),
    ],
    method: Annotated[
        list[str] | None,
        Option(
            "--method",
            help="A method or a preset that recdistill options lists, in the search and in the training after it;"
            " repeated ones add up (default adarec).",
            show_default=False,
        ),
    ] = None,
    variant: Annotated[
        str, Option(help="searched, or what it is compared with: random, no-cost, no-emd, no-distillation.")
    ] = "searched",
    ablations: Annotated[
        bool, Option("--ablations", help="Every variant, each into a directory of its name in OUT.")
    ] = False,
    max_latency_ms: Annotated[
        float | None, Option(help="Budget of the encoder on this machine.", show_default=False)
    ] = None,
    max_megabytes: Annotated[
        float | None, Option(help="Budget of the weights, tables among them.", show_default=False)
    ] = None,
) -> None:
    """Search for the student that learns most from a sequence teacher at a given cost, and train it."""
    from recdistill.artifacts import read_manifest
    from recdistill.models.cellnet import CellNet
    from recdistill.searching.options import SearchOptions
    from recdistill.steps.ablations import ablations as run_ablations
    from recdistill.steps.methods import method_tables
    from recdistill.steps.search import search as run_search
    from recdistill.training.options import TrainingOptions

    tables, methods = _named(method_tables(method or "adarec"))
    chosen = call.sorted_sets(
        {"model": CellNet, "search": SearchOptions, "training": TrainingOptions, **methods}
    )
    flags = {"max_latency_ms": max_latency_ms, "max_megabytes": max_megabytes}
    budgets = {name: value for name, value in flags.items() if value is not None}
    for name in budgets:
        if name in chosen["search"]:
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(f"search.{name} is given by {flag} and by --set", "give one of them")
    call.watch("*" if ablations else "")
    options: dict[str, Any] = {
        "model": chosen["model"],
        "options": {
            **chosen["search"],
            **budgets,
        },
        "methods": [{**table, **chosen[name]} for name, table in tables.items()],
        "training": chosen["training"],
        **call.options("seed", "device", "resume"),
    }
    if ablations and variant != "searched":
        raise OptionError(f"--ablations makes every variant, and --variant {variant} one", "give one of them")
    if ablations:
        made = run_ablations(data, teacher, call.out, **options)
        summaries = {name: read_manifest(call.out / name).summary for name in made}
        lines = [f"{name}: {_search_lines(summary)[0]}" for name, summary in summaries.items()]
        call.finish(summaries, lines)
        return
    run_search(data, teacher, call.out, variant=variant, **options)  # pyright: ignore[reportArgumentType]  # checked there
    _finish(call)


def _named(
    tables: list[dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, type[Any]]]:
    """Tables of methods, and their classes, by the names under which ``--set`` finds their options."""
    from recdistill.distillers.base import term_names
    from recdistill.steps.methods import find_method

    named = dict(zip(term_names([str(table["method"]) for table in tables]), tables, strict=True))
    return named, {name: find_method(str(table["method"])) for name, table in named.items()}


def _finish(call: Call) -> None:
    """Print what the manifest of a model says."""
    from recdistill.artifacts import read_manifest

    summary = read_manifest(call.out).summary
    lines = _search_lines(summary) if "search" in summary else []
    lines.append(f"{summary['parameters']:,} parameters, {summary['bytes']:,} bytes")
    if summary.get("best_metric") is not None:
        where = f"epoch {summary['best_epoch']} of {summary['epochs']}"
        lines.append(f"best validation metric {summary['best_metric']:.4f} at {where}")
    call.finish(summary, lines)


def _search_lines(summary: dict[str, Any]) -> list[str]:
    found = summary["search"]
    takes = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found["takes"].items())
    over = "" if found.get("within", True) else " (OVER BUDGET: nothing that was tried stays within)"
    first = f"{counted(found['cells'], 'cell')} of {found['text']}; {takes}{over}"
    return [first, *found["drawn"].splitlines()]
