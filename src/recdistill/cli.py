"""The command line: verbs parse, call and print; everything else is done by the function of the same name."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

import recdistill
from recdistill.errors import OptionError, RecdistillError

app = typer.Typer(
    name="recdistill",
    help="Turn a large recommender into a small one that ranks nearly as well, and prove it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[
    Path | None, typer.Option("--out", help="Directory to write (default runs/<verb>).", show_default=False)
]
FileOut = Annotated[
    Path | None,
    typer.Option("--out", help="Directory to write (default: the file's out).", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option, such as model.dim=20; may be repeated.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what was made with other options.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
DataDir = Annotated[Path, typer.Argument(metavar="DATA", help="A directory made by 'prepare'.")]
On = Annotated[str, typer.Option(help="Splits to train on: train, or train,valid to refit.")]


_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])
"""A mistyped command; newer typer releases carry their own copy of click, so it cannot be imported from there."""


_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line: exit 0, 2 for anything the caller can mend, 130 for Ctrl-C."""
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)  # without a stand-alone run, an exit code is returned
    except RecdistillError as error:
        _fail(error.message, error.kind, error.hint, as_json)
    except _UsageError as error:
        context: Any = getattr(error, "ctx", None)
        where = context.command_path if context else "recdistill"
        message = getattr(error, "format_message", error.__str__)()
        _fail(message.rstrip("."), "options", f"see {where} --help", as_json)
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        print("interrupted; what was there before is untouched, --resume continues", file=sys.stderr)  # noqa: T201
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, kind: str, hint: str, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"error": message, "kind": kind, "hint": hint}))  # noqa: T201
    print(f"error: {message}" + (f"; {hint}" if hint else ""), file=sys.stderr)  # noqa: T201
    sys.exit(2)


class _Call:
    """One command under way: where its result goes (``result``: in which folder of OUT) and how it is printed."""

    def __init__(self, out: Path, as_json: bool, result: str = "") -> None:
        from recdistill.terminal import TerminalProgress

        self.out, self.as_json, self._result = out, as_json, result
        self.progress = TerminalProgress()
        self._started = time.monotonic()
        self._before = self._stamp()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = (self.out / self._result / "manifest.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def finish(self, result: dict[str, Any], lines: list[str]) -> None:
        """Print the result: one JSON object, or lines for a person."""
        reused = self._before is not None and self._before == self._stamp()
        if self.as_json:
            seconds = round(time.monotonic() - self._started, 3)
            print(json.dumps({"out": str(self.out), "reused": reused, "seconds": seconds, "result": result}))  # noqa: T201
            return
        for line in lines:
            print(line)  # noqa: T201
        print(f"{'reused' if reused else 'written'}: {self.out}")  # noqa: T201


def _assignments(texts: list[str] | None) -> dict[str, Any]:
    from recdistill.config import parse_assignments

    return parse_assignments(texts or [])


def _sorted_options(
    texts: list[str] | None, components: dict[str, Callable[..., Any]]
) -> dict[str, dict[str, Any]]:
    from recdistill.config import resolve_keys

    return resolve_keys(_assignments(texts), components)


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows of text as lines with aligned columns, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _model_lines(summary: dict[str, Any]) -> list[str]:
    lines = [f"{summary['parameters']:,} parameters, {summary['bytes']:,} bytes"]
    if summary.get("best_metric") is not None:
        where = f"epoch {summary['best_epoch']} of {summary['epochs']}"
        lines.append(f"best validation metric {summary['best_metric']:.4f} at {where}")
    return lines


@app.command()
def demo(
    out: Out = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run the whole line on built-in synthetic data; ends with a table and report.html."""
    from recdistill.evaluation.tables import table
    from recdistill.steps.demo import demo as run_demo

    call = _Call(out or Path("runs/demo"), as_json)
    found = run_demo(
        call.out, overrides=_assignments(sets), seed=seed, device=device, force=force, progress=call.progress
    )
    call.finish(
        {"evaluation": found.evaluation, "report": str(found.page)},
        [*_aligned(table(found.evaluation)), f"report: {found.page}"],
    )


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A file, folder or glob of interactions; 'synthetic'; or a public set, such as movielens-1m.",
        ),
    ],
    out: Out = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="random, leave-one-out, temporal, given (default if there is a split column) or file-order.",
            show_default=False,
        ),
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(help="Shares of train, valid and test, such as .8,.1,.1.", show_default=False),
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(help="leave-one-out holds out the last row, or a random one.", show_default=False),
    ] = None,
    min_user_interactions: Annotated[
        int, typer.Option(help="Drop users with fewer, and repeat until every user that is left has as many.")
    ] = 1,
    min_item_interactions: Annotated[int, typer.Option(help="Drop items with fewer, likewise.")] = 1,
    min_rating: Annotated[
        float | None, typer.Option(help="Keep rows rated at least this.", show_default=False)
    ] = None,
    duplicates: Annotated[
        str | None, typer.Option(help="merge or keep repeated user-item rows.", show_default=False)
    ] = None,
    unseen_items: Annotated[
        str | None,
        typer.Option(help="keep or drop held-out items that are not in train.", show_default=False),
    ] = None,
    valid_share: Annotated[
        float | None,
        typer.Option(
            help="Share of train users whose last row validates, where the data has no valid split.",
            show_default=False,
        ),
    ] = None,
    user_column: Annotated[str | None, typer.Option(help="Guessed by default.", show_default=False)] = None,
    item_column: Annotated[str | None, typer.Option(help="Guessed by default.", show_default=False)] = None,
    rating_column: Annotated[str | None, typer.Option(help="Guessed by default.", show_default=False)] = None,
    time_column: Annotated[str | None, typer.Option(help="Guessed by default.", show_default=False)] = None,
    position_column: Annotated[
        str | None, typer.Option(help="Guessed by default.", show_default=False)
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="Guessed by default.", show_default=False)] = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Read interactions, filter and split them."""
    from recdistill.steps.prepare import prepare as run_prepare

    del device  # every verb takes it; preparation runs on the CPU
    call = _Call(out or Path("runs/prepare"), as_json)
    options: dict[str, Any] = {
        "split": split, "ratios": _numbers("ratios", ratios, ".8,.1,.1"), "holdout": holdout, "min_rating": min_rating,
        "duplicates": duplicates, "unseen_items": unseen_items, "valid_share": valid_share,
        "user_column": user_column, "item_column": item_column, "rating_column": rating_column,
        "time_column": time_column, "position_column": position_column, "split_column": split_column,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    options |= {
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
    }
    options |= _sorted_options(sets, {"data": run_prepare})["data"]
    data = run_prepare(source, call.out, seed=seed, force=force, progress=call.progress, **options)
    summary = data.manifest.summary
    call.finish(summary, [f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()])


def _numbers(option: str, text: str | None, example: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--{option}: expected numbers such as {example}; found '{text}'") from None


@app.command()
def train(
    data: DataDir,
    model: Annotated[str, typer.Option(help="bpr, lightgcn, popularity, ...")] = "bpr",
    out: Out = None,
    on: On = "train",
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a teacher, or a student without distillation."""
    from recdistill.artifacts import read_manifest
    from recdistill.config import find
    from recdistill.steps.train import train as run_train
    from recdistill.training.loop import TrainingOptions

    call = _Call(out or Path("runs/train"), as_json)
    chosen = _sorted_options(sets, {"model": find("models", model), "training": TrainingOptions})
    run_train(
        data,
        {"name": model, **chosen["model"]},
        call.out,
        training=chosen["training"],
        on=on.split(","),
        seed=seed,
        device=device,
        force=force,
        resume=resume,
        progress=call.progress,
    )
    summary = read_manifest(call.out).summary
    call.finish(summary, _model_lines(summary))


@app.command()
def extract(
    data: DataDir,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A directory made by 'train'.")],
    kinds: Annotated[
        str | None,
        typer.Option(
            help="top_items,top_users,observed_scores,embeddings,trajectory (default: all there are).",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[int, typer.Option(help="Length of the lists.")] = 500,
    out: Out = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Store a teacher's knowledge; a store of the same teacher is extended."""
    from recdistill.steps.extract import describe
    from recdistill.steps.extract import extract as run_extract

    del seed  # every verb takes it; extraction draws nothing
    call = _Call(out or Path("runs/extract"), as_json)
    options: dict[str, Any] = {"depth": depth, "kinds": None if kinds is None else kinds.split(",")}
    options |= _sorted_options(sets, {"extract": run_extract})["extract"]
    found = describe(
        run_extract(data, model, call.out, device=device, force=force, progress=call.progress, **options)
    )
    call.finish(found, [f"{', '.join(found['kinds'])} to depth {found['depth']}, {found['bytes']:,} bytes"])


@app.command()
def ensemble(
    knowledge: Annotated[
        list[Path],
        typer.Argument(metavar="KNOWLEDGE...", help="Directories made by 'extract', one a teacher."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="The prepared data (default: found beside the stores).", show_default=False),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Ranks that count, and length of the lists (default: the depth that all have).",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="An item at rank r counts exp(-r / temperature).")
    ] = 10.0,
    weights: Annotated[
        str | None, typer.Option(help="One a teacher, such as 2,1,1 (default: all 1).", show_default=False)
    ] = None,
    consistency: Annotated[
        float, typer.Option(help="Weight of what a teacher ranked alike at all its states.")
    ] = 0.0,
    debias: Annotated[
        float, typer.Option(help="How much popular items lose on which the teachers disagree.")
    ] = 0.0,
    out: Out = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Put several teachers' knowledge together as one, by rank aggregation."""
    from recdistill.steps.ensemble import ensemble as run_ensemble
    from recdistill.steps.extract import describe

    del seed, device  # every verb takes them; lists are aggregated on the CPU, and nothing is drawn
    call = _Call(out or Path("runs/ensemble"), as_json)
    options: dict[str, Any] = {
        "data": data, "depth": depth, "temperature": temperature, "weights": _numbers("weights", weights, "2,1,1"),
        "consistency": consistency, "debias": debias,
    }  # fmt: skip
    options |= _sorted_options(sets, {"ensemble": run_ensemble})["ensemble"]
    found = describe(run_ensemble(knowledge, call.out, force=force, progress=call.progress, **options))
    told = ", ".join(member["name"] for member in found["members"])
    call.finish(
        found,
        [f"{len(found['members'])} teachers: {told}", f"depth {found['depth']}, {found['bytes']:,} bytes"],
    )


@app.command()
def distill(
    data: DataDir,
    knowledge: Annotated[
        Path | None,
        typer.Argument(metavar="KNOWLEDGE", help="A directory made by 'extract'.", show_default=False),
    ] = None,
    live: Annotated[
        Path | None, typer.Option(help="A model to read instead of a store.", show_default=False)
    ] = None,
    model: Annotated[
        str, typer.Option(help="The student: any model of docs/models.md that trains by steps.")
    ] = "bpr",
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="A method or a preset of docs/methods.md; repeated ones add up (default de-rrd).",
            show_default=False,
        ),
    ] = None,
    base_weight: Annotated[float, typer.Option(help="Weight of the student's own loss.")] = 1.0,
    out: Out = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a student on its own loss plus distillation losses."""
    from recdistill.artifacts import read_manifest
    from recdistill.config import find
    from recdistill.distillers.base import term_names
    from recdistill.steps.distill import DEFAULT_PRESET, find_method, method_tables
    from recdistill.steps.distill import distill as run_distill
    from recdistill.training.loop import TrainingOptions

    if (knowledge is None) == (live is None):
        raise OptionError("distill needs a knowledge directory, or --live MODEL, and not both")
    call = _Call(out or Path("runs/distill"), as_json)
    if knowledge is not None and read_manifest(knowledge, kind=("knowledge", "model")).kind == "model":
        raise OptionError(
            f"{knowledge} is a model; expected knowledge made by extract",
            f"to read the model itself: --live {knowledge}",
        )
    tables = method_tables(method or [DEFAULT_PRESET])
    names = term_names([str(table["method"]) for table in tables])
    components: dict[str, Callable[..., Any]] = {"model": find("models", model), "training": TrainingOptions}
    for name, table in zip(names, tables, strict=True):
        components[name] = find_method(str(table["method"]))
    chosen = _sorted_options(sets, components)
    run_distill(
        data,
        knowledge or live or "",
        {"name": model, **chosen["model"]},
        [{**table, **chosen[name]} for name, table in zip(names, tables, strict=True)],
        call.out,
        training=chosen["training"],
        base_weight=base_weight,
        seed=seed,
        device=device,
        force=force,
        resume=resume,
        progress=call.progress,
    )
    summary = read_manifest(call.out).summary
    call.finish(summary, _model_lines(summary))


@app.command()
def search(
    data: DataDir,
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="A sequence model's directory.")],
    variant: Annotated[
        str,
        typer.Option(help="searched, or what it is compared with: random, no-cost, no-emd, no-distillation."),
    ] = "searched",
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Every variant, each into a directory of its name in OUT.")
    ] = False,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Budget of the encoder on this machine.", show_default=False)
    ] = None,
    max_megabytes: Annotated[
        float | None, typer.Option(help="Budget of the weights, tables among them.", show_default=False)
    ] = None,
    out: Out = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Search for the student that learns most from a sequence teacher at a given cost, and train it."""
    from recdistill.artifacts import read_manifest
    from recdistill.distillers.adarec import AdaRec
    from recdistill.models.cellnet import CellNet
    from recdistill.searching.options import SearchOptions
    from recdistill.steps.search import VARIANTS
    from recdistill.steps.search import ablations as run_ablations
    from recdistill.steps.search import search as run_search
    from recdistill.training.loop import TrainingOptions

    call = _Call(out or Path("runs/search"), as_json)
    components: dict[str, Callable[..., Any]] = {
        "model": CellNet,
        "search": SearchOptions,
        "adarec": AdaRec,
        "training": TrainingOptions,
    }
    chosen = _sorted_options(sets, components)
    budgets = {"max_latency_ms": max_latency_ms, "max_megabytes": max_megabytes}
    options: dict[str, Any] = {
        "model": chosen["model"],
        "options": {
            **chosen["search"],
            **{name: value for name, value in budgets.items() if value is not None},
        },
        "method": chosen["adarec"],
        "training": chosen["training"],
        "seed": seed,
        "device": device,
        "force": force,
        "resume": resume,
        "progress": call.progress,
    }
    if ablations:
        run_ablations(data, teacher, call.out, **options)
        summaries = {name: read_manifest(call.out / name).summary for name in VARIANTS}
        lines = [f"{name}: {_searched_lines(summary)[0]}" for name, summary in summaries.items()]
        call.finish(summaries, lines)
        return
    run_search(data, teacher, call.out, variant=variant, **options)  # pyright: ignore[reportArgumentType]  # checked there
    summary = read_manifest(call.out).summary
    call.finish(summary, [*_searched_lines(summary), *_model_lines(summary)])


def _searched_lines(summary: dict[str, Any]) -> list[str]:
    found = summary["search"]
    takes = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found["takes"].items())
    return [f"{found['cells']} cells of {found['text']}; {takes}", *found["drawn"].splitlines()]


@app.command()
def evaluate(
    data: DataDir,
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model or knowledge directories.")],
    protocol: Annotated[
        str, typer.Option(help="full: all items; sampled: each target among --negatives.")
    ] = "full",
    negatives: Annotated[int, typer.Option(help="Candidates beside the target (sampled).")] = 499,
    k: Annotated[str, typer.Option(help="Cut-offs.")] = "5,10,20",
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    mask: Annotated[str, typer.Option(help="default, seen or none.")] = "default",
    teacher: Annotated[
        Path | None, typer.Option(help="Of the share of the gap that was closed.", show_default=False)
    ] = None,
    alone: Annotated[Path | None, typer.Option(help="The undistilled student.", show_default=False)] = None,
    latency: Annotated[bool, typer.Option(help="Measure milliseconds per recommendation.")] = True,
    out: Out = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare models by ranking held-out items, with paired tests."""
    from recdistill.evaluation.tables import table
    from recdistill.steps.evaluate import evaluate as run_evaluate

    call = _Call(out or Path("runs/evaluate"), as_json)
    try:
        cuts = tuple(int(part) for part in k.split(","))
    except ValueError:
        raise OptionError(f"--k: expected whole numbers such as 5,10,20; found '{k}'") from None
    options: dict[str, Any] = {
        "device": device,
        "protocol": protocol, "negatives": negatives, "k": cuts, "split": split, "mask": mask,
        "teacher": teacher, "alone": alone, "latency": latency,
    }  # fmt: skip
    options |= _sorted_options(sets, {"evaluate": run_evaluate})["evaluate"]
    found = run_evaluate(data, models, call.out, seed=seed, force=force, progress=call.progress, **options)
    call.finish(found, _aligned(table(found)))


@app.command()
def recommend(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory.")],
    k: Annotated[int, typer.Option(help="Items a user.")] = 10,
    users: Annotated[
        Path | None, typer.Option(help="A file of user ids (default: all users).", show_default=False)
    ] = None,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what a user has in train.")] = True,
    cold: Annotated[str, typer.Option(help="For unknown users: error, or popular.")] = "error",
    out: Out = None,
    sets: Set = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write top lists with scores and external ids."""
    from recdistill.artifacts import read_manifest
    from recdistill.steps.recommend import recommend as run_recommend

    del seed  # every verb takes it; recommending draws nothing
    call = _Call(out or Path("runs/recommend"), as_json)
    options: dict[str, Any] = {"k": k, "users": users, "exclude_seen": exclude_seen, "cold": cold}
    options |= _sorted_options(sets, {"recommend": run_recommend})["recommend"]
    path = run_recommend(model, call.out, device=device, force=force, progress=call.progress, **options)
    summary = read_manifest(call.out).summary
    call.finish(
        {**summary, "table": str(path)}, [f"{summary['rows']:,} rows for {summary['users']:,} users: {path}"]
    )


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Evaluation, model or run directories.")
    ],
    title: Annotated[str | None, typer.Option(help="Title of the page.", show_default=False)] = None,
    out: Out = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page."""
    from recdistill.steps.report import report as run_report

    call = _Call(out or Path("runs/report"), as_json)
    page = run_report(runs, call.out, title=title, force=force, progress=call.progress)
    call.finish({"page": str(page)}, [f"report: {page}"])


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="A run file.")],
    out: FileOut = None,
    sets: Set = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of every step (default: the file's).", show_default=False)
    ] = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run the whole line from one file, skipping the steps that are done."""
    from recdistill.evaluation.tables import table
    from recdistill.steps.run import out_of
    from recdistill.steps.run import run as run_line

    call = _Call(out_of(file, out), as_json)
    found = run_line(
        file,
        call.out,
        overrides=_assignments(sets),
        seed=seed,
        device=device,
        force=force,
        progress=call.progress,
    )
    call.finish(
        {"evaluation": found.evaluation, "report": str(found.page)},
        [*_aligned(table(found.evaluation)), f"report: {found.page}"],
    )


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="A compare file.")],
    out: FileOut = None,
    sets: Set = None,
    seed: Annotated[
        int | None, typer.Option(help="The only model seed (default: the file's).", show_default=False)
    ] = None,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace the runs whose options changed.")] = False,
    as_json: Json = False,
) -> None:
    """Compare methods over splits and seeds, from one file; what is done is reused."""
    from recdistill.reporting.overall import comparison_lines, footing
    from recdistill.steps.compare import compare as run_compare
    from recdistill.steps.comparefile import out_of

    call = _Call(out_of(file, out), as_json, "comparison")
    found = run_compare(
        file,
        call.out,
        overrides=_assignments(sets),
        seed=seed,
        device=device,
        force=force,
        progress=call.progress,
    )
    lines: list[str] = []
    for name, rows in zip(found.comparison["evaluations"], comparison_lines(found.comparison), strict=True):
        lines += [f"{name}:", *_aligned(rows), ""]
    lines += [*footing(found.comparison), f"report: {found.page}"]
    call.finish({"comparison": found.comparison, "report": str(found.page)}, lines)
    if found.failed:
        first = found.failed[0]
        print(  # noqa: T201
            f"error: {len(found.failed)} runs failed and are left out: {first['name']}: {first['error']}",
            file=sys.stderr,
        )
        raise typer.Exit(2)


@app.command()
def tune(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="A run file with [space] and [tune].")],
    out: FileOut = None,
    sets: Set = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the search and every trial (default: the file's).", show_default=False),
    ] = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Search options by the validation metric; ends with best.toml and a report."""
    from recdistill.steps.tune import tune as run_tune
    from recdistill.steps.tunefile import out_of

    call = _Call(out_of(file, out), as_json, "tuning")
    found = run_tune(
        file,
        call.out,
        overrides=_assignments(sets),
        seed=seed,
        device=device,
        force=force,
        progress=call.progress,
    )
    best = found.tuning["best"]
    reached = f"{found.tuning['metric']} {best['value']:.4f} (validation)"
    lines = [f"trial {best['number']} of {len(found.tuning['trials'])}: {reached}"]
    lines += [f"  {name} = {value}" for name, value in best["values"].items()]
    call.finish(
        {"tuning": found.tuning, "best": str(found.best), "report": str(found.page)},
        [*lines, f"best: {found.best}", f"report: {found.page}"],
    )


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print versions, cores, GPU and extras."""
    from recdistill.doctor import examine, missing

    found = examine()
    if as_json:
        print(json.dumps(found))  # noqa: T201
        return
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}: " + ", ".join(f"{key} {shown}" for key, shown in value.items()))  # noqa: T201
        else:
            print(f"{name}: {value}")  # noqa: T201
    for line in missing(found) or ["nothing is missing"]:
        print(line)  # noqa: T201


def _version(shown: bool) -> None:
    if shown:
        print(recdistill.__version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
