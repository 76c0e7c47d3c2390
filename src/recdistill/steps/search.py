"""`search`: an architecture for the data at hand, found under a teacher's guidance, and the student that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from recdistill import artifacts, config
from recdistill.artifacts import Job, load_arrays, save_arrays
from recdistill.data.prepared import Data
from recdistill.distillers.adarec import AdaRec
from recdistill.distillers.base import Distiller, Objective
from recdistill.errors import MissingKnowledgeError, OptionError
from recdistill.files import read_json, write_json
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.models.architecture import Architecture
from recdistill.models.base import Recommender
from recdistill.models.cellnet import CellNet
from recdistill.progress import Progress, Silent
from recdistill.searching.budget import Found, Meter
from recdistill.searching.cost_term import CostTerm
from recdistill.searching.costs import count
from recdistill.searching.options import SearchOptions
from recdistill.searching.outcome import Rated, check_budget, drawn, meters_of, preferred, searched, undecided
from recdistill.searching.supernet import Supernet
from recdistill.steps.distill import check_validates, lineage_of, open_knowledge
from recdistill.steps.fit import (
    DataLike,
    make_training,
    make_validator,
    model_summary,
    open_data,
    pick_device,
)
from recdistill.steps.load import load, save_model
from recdistill.steps.methods import MethodLike, make_methods
from recdistill.training.checkpoint import Checkpoint, note_start
from recdistill.training.loop import Validator, train
from recdistill.training.options import TrainingOptions
from recdistill.wording import counted

Variant = Literal["searched", "random", "no-cost", "no-emd", "no-distillation"]
"""The search, or what it is compared with: a random architecture of the same space; a search without price, without
the transport between layers, or without the teacher (its student then learns from data alone too)."""

VARIANTS: tuple[Variant, ...] = get_args(Variant)
FOLDER, RESULT, START, TIMED = "search", "architecture.json", "start.safetensors", "latency.json"
_OWN = ("architecture", "cells")


def search(
    data: DataLike,
    teacher: TeacherKnowledge | Path | str,
    out: Path | str = "runs/search",
    *,
    model: Mapping[str, Any] | None = None,
    options: SearchOptions | Mapping[str, Any] | None = None,
    methods: MethodLike | Sequence[MethodLike] = "adarec",
    training: TrainingOptions | Mapping[str, Any] | None = None,
    variant: Variant = "searched",
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Recommender:
    """Search for the architecture that learns most from a teacher at a given cost, and train it.

    Args:
        data: a prepared data directory, with an order.
        teacher: the directory of a model, read live, or of its knowledge; methods that compare layers want a sequence
            model.
        out: the model directory to write; ``search/`` in it holds the architecture and the search's history.
        model: the student's options, see :class:`~recdistill.models.cellnet.CellNet`; without architecture and cells.
        options: how to search, see :class:`~recdistill.searching.options.SearchOptions`.
        methods: what is learnt from the teacher, in the search and in the training after it: methods and presets by
            name, tables with ``method`` and options, or instances; they add up.
        training: how to train the student that was found; the search follows it but for its own options.
        variant: the search, or what it is compared with.
        seed: of initialisation and draws.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: replace another model in ``out``.
        resume: continue an interrupted search or training.
        progress: where stages are shown.

    Returns:
        The student, loaded from ``out``.

    Raises:
        RecdistillError: bad options or data, a budget that nothing meets, a teacher that cannot give what the methods
            read, or ``out`` holds something else.
    """
    run = _Search(data, teacher, model, options, methods, training, variant, seed, device, progress)
    with artifacts.step(
        out, kind="model", options=run.call(), seed=seed, inputs=run.inputs(), force=force, resume=resume
    ) as job:
        if not job.reused and not run.data.valid.num_pairs:
            run.progress.note(
                "nothing to validate on: the last epoch of the search and of the training is kept"
            )
        if job.reused:
            run.progress.note(f"{out}: already there, same inputs and options: reused")
        else:
            run.make(job, resume)
    return load(out)


def check_search(variant: Any, model: Mapping[str, Any], path: str = "model") -> dict[str, Any]:
    """The options of a searched student with its defaults.

    Args:
        variant: of the search.
        model: the options given.
        path: what errors call them.

    Raises:
        OptionError: no such variant, a wrong option, or one that the search is for.
    """
    if variant not in VARIANTS:
        raise OptionError(f"no variant is called '{variant}'", f"known: {', '.join(VARIANTS)}")
    for name in _OWN:
        if name in model:
            raise OptionError(
                f"{path}.{name} is what the search is for", f"leave it out, or train a cellnet of that {name}"
            )
    return config.resolve(CellNet, dict(model), path)


def check_affordable(data: Data, model: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse, before a teacher is trained, a space that cannot be searched or a budget of bytes that nothing meets.

    Args:
        data: prepared data.
        model: the student's options.
        options: of the search, without its variant.

    Raises:
        OptionError: as :func:`search` would say later; latencies are measured there alone.
    """
    unmeasured = {"max_latency_ms": None, "cost": "linear", "latency_table": None}
    chosen = config.build(SearchOptions, {**options, **unmeasured}, "search")
    net = _supernet({k: v for k, v in model.items() if k not in _OWN}, chosen)
    check_budget(chosen, net, meters_of(chosen, net, data.train.num_items, Path()))


def _supernet(student: Mapping[str, Any], chosen: SearchOptions) -> Supernet:
    """Every architecture of the space in one model, for a student of such options."""
    shared: dict[str, Any] = {**student, "causal": chosen.causal}
    return Supernet(
        operations=chosen.operations,
        nodes=chosen.nodes,
        cells=chosen.cells,
        search_cells=chosen.search_cells,
        mixture=chosen.mixture,
        architecture_rate=chosen.architecture_rate,
        architecture_decay=chosen.architecture_decay,
        bilevel=chosen.bilevel,
        **shared,
    )


def has_transport(methods: Sequence[Distiller]) -> bool:
    """Whether a method matches layers by transport, so that there is something for ``no-emd`` to leave out."""
    return any(isinstance(method, AdaRec) for method in methods)


class _Search:
    """One call of :func:`search`: its options, resolved."""

    def __init__(
        self,
        data: DataLike,
        teacher: TeacherKnowledge | Path | str,
        model: Mapping[str, Any] | None,
        options: SearchOptions | Mapping[str, Any] | None,
        methods: MethodLike | Sequence[MethodLike],
        training: TrainingOptions | Mapping[str, Any] | None,
        variant: Variant,
        seed: int,
        device: str,
        progress: Progress | None,
    ) -> None:
        given = check_search(variant, model or {})
        self.data: Data = open_data(data)
        self.student = {k: v for k, v in given.items() if k not in _OWN}
        self.options = (
            options
            if isinstance(options, SearchOptions)
            else config.build(SearchOptions, dict(options or {}), "search")
        )
        self.student["causal"] = self.options.causal
        made = make_methods(methods)
        self.tables = [{"method": one.method_name(), **one.options} for one in made]
        self.training = make_training(training)
        self.variant, self.seed, self.device = variant, seed, device
        self.progress: Progress = progress or Silent()
        self.teacher = (
            teacher if isinstance(teacher, TeacherKnowledge) else open_knowledge(teacher, self.data)
        )
        if any("hidden_states" in one.needs for one in made) and "hidden_states" not in self.teacher.kinds:
            names = " and ".join(one.method_name() for one in made if "hidden_states" in one.needs)
            manifest = self.teacher.manifest
            stored = manifest is not None and manifest.kind == "knowledge"
            what = "a store does not hold that" if stored else "this teacher reads no histories in order"
            raise MissingKnowledgeError(
                f"{names} learns what each item of a history becomes, and {what}",
                "name the directory of a sequence model, such as sasrec, nextitnet or bert4rec"
                + (", not its knowledge" if stored else ""),
            )
        if variant == "no-emd" and not has_transport(made):
            raise OptionError(
                "no-emd is the search without adarec's transport, and adarec is not among the methods",
                "add --method adarec, or choose another variant",
            )
        check_validates(self.teacher.on, "a search")
        self.lineage, self.teacher_hash = lineage_of(self.teacher)
        self.net = _supernet(self.student, self.options)

    def call(self) -> dict[str, Any]:
        """The options of the manifest."""
        distill = self.tables if self._learns_again() else []
        return {
            "model": {"name": CellNet.model_name(), **self.student},
            "training": {k: v for k, v in self.training.options.items() if k != "checkpoint_seconds"},
            "search": {k: v for k, v in self.options.options.items() if k != "latency_table"},
            "methods": self.tables,
            "variant": self.variant,
            "on": ["train"],
            "distill": distill,
            "base_weight": 1.0,
        }

    def inputs(self) -> dict[str, str]:
        return {"data": self.data.hash, **self.lineage}

    def make(self, job: Job, resume: bool) -> None:
        """Search, then train what was found, into ``job.work``."""
        folder = job.work / FOLDER
        folder.mkdir(exist_ok=True)
        note_start(job, resume and not (folder / RESULT).exists(), self.progress)
        if not (folder / RESULT).exists():
            self._find(folder, resume)
        found = read_json(folder / RESULT)
        architecture, cells = Architecture.from_json(found["architecture"]), int(found["cells"])
        self.progress.note(f"{counted(cells, 'cell')} of: {architecture}")
        student, validate = self.net.student(architecture, cells), self._validator()
        inherited: float | None = None
        if (folder / START).exists():
            student.build(self.data.train, torch.Generator().manual_seed(self.seed))
            student.load_state_dict(load_arrays(folder / START))
            inherited = None if validate is None else validate(student.eval())
        methods = make_methods(self.tables) if self._learns_again() else []
        result = train(
            student,
            Objective(methods, self.teacher),
            self.data.train,
            self.training,
            validate,
            seed=self.seed,
            device=pick_device(self.device),
            work=job.work,
            resume=resume,
            progress=self.progress,
        )
        if inherited is not None and result.best_metric is not None and result.best_metric < inherited:
            self.progress.note(
                f"{self.training.validate_metric} {result.best_metric:.4f} on the valid rows is below the"
                f" {inherited:.4f} of the weights that the search left: try more epochs or a lower learning rate"
            )
        student.attach(self.data.users, self.data.items, self.data.train)
        save_model(student, job.work)
        Checkpoint(job.work).clear()
        (folder / START).unlink(missing_ok=True)
        job.summary.update(
            teacher=self.teacher_hash,
            model_options={"architecture": str(architecture), "cells": cells},
            search={k: v for k, v in found.items() if k not in ("architecture", "candidates")}
            | {"drawn": architecture.drawn()},
            **model_summary(student, result, job.work),
        )

    # the search

    def _find(self, folder: Path, resume: bool) -> None:
        """Write the architecture to ``folder``, and the weights that the student starts with."""
        options, net = self.options, self.net
        timed = folder / TIMED
        meters = meters_of(options, net, self.data.train.num_items, timed)
        try:
            check_budget(options, net, meters)
        except OptionError:
            timed.unlink(missing_ok=True)  # nothing to go on from
            raise
        facts: dict[str, Any] = {}
        if self.variant == "random":
            generator = torch.Generator().manual_seed(self.seed)
            found = drawn(options, net, meters, generator, self.progress.note)
        else:
            facts = self._train(folder, meters, resume)
            generator = torch.Generator().manual_seed(self.seed)
            found, rated = searched(options, net, meters, self._rate(), generator, self.progress.note)
            facts["candidates"] = [asdict(one) for one in rated]
            if rated:
                self.progress.note(self._told(rated, preferred(options, net, meters)))
            if told := undecided(net):
                self.progress.note(told)
            if options.init == "inherit":
                start: dict[str, Tensor] = net.weights_of(found.architecture, found.cells)
                save_arrays(folder / START, {name: value.cpu().contiguous() for name, value in start.items()})
            Checkpoint(folder).clear()
        write_json(folder / RESULT, _described(found) | facts)

    def _train(self, folder: Path, meters: list[Meter], resume: bool) -> dict[str, Any]:
        options, priced = self.options, self.variant != "no-cost"
        cost = CostTerm(
            cost=options.cost,
            beta=options.beta if priced else 0.0,
            meters=meters if priced else (),
            price_rate=options.price_rate,
            warmup=options.warmup,
            schedule=options.schedule,
        )
        methods: list[Distiller] = []
        if self.variant != "no-distillation":
            without = {"hidden": 0.0} if self.variant == "no-emd" else {}
            methods = make_methods([t | without if t["method"] == "adarec" else t for t in self.tables])
        own: dict[str, Any] = {
            "epochs": options.epochs,
            "batch_size": options.batch_size or self.training.batch_size,
            "learning_rate": options.learning_rate or self.training.learning_rate,
            "trajectory": (),
        }
        settings = make_training({**self.training.options, **own})
        self.progress.note(self._size())
        if not options.causal:
            self.progress.note(
                "search.causal is false: operations that look ahead read the item they are to predict, so losses are"
                " of no worth"
            )
        if options.warmup >= settings.epochs:
            self.progress.note(
                f"search.warmup is {options.warmup} of {settings.epochs} epochs: the architecture never learns"
            )
        net = self.net

        def preference() -> tuple[Architecture, int]:
            found = preferred(options, net, meters)
            return found.architecture, found.cells

        net.derivation = preference
        result = train(
            net,
            Objective([*methods, cost], self.teacher),
            self.data.train,
            settings,
            self._after_warmup(),
            seed=self.seed,
            device=pick_device(self.device),
            work=folder,
            resume=resume,
            progress=self.progress,
        )
        return {
            "epochs": len(result.history),
            "best_epoch": result.best_epoch,
            "best_metric": result.best_metric,
            "seconds_per_epoch": sum(r["seconds"] for r in result.history) / max(len(result.history), 1),
        }

    def _rate(self) -> Callable[[Found], float] | None:
        """The metric of the valid rows that an architecture has with the supernet's weights, if there are such rows."""
        validate, net = self._validator(), self.net
        if validate is None:
            return None

        def rate(found: Found) -> float:
            net.derivation = lambda: (found.architecture, found.cells)
            return validate(net.eval()) or 0.0

        return rate

    def _told(self, rated: Sequence[Rated], first: Found) -> str:
        """What to say of several candidates."""
        metric = self.training.validate_metric
        told = f"the best of {len(rated)} candidates has {metric} {rated[0].metric:.4f} on the valid rows"
        key = str(first.architecture), first.cells
        known = [one.metric for one in rated if (one.text, one.cells) == key]
        return told + (
            f", the most probable {known[0]:.4f}" if known else ", the most probable is over its budget"
        )

    def _size(self) -> str:
        """What there is to search."""
        net = self.net
        numbers = net.num_edges * sum(count(name, 1, net.dim).parameters for name in net.operations)
        cells = len(net.operations) ** net.num_edges
        return (
            f"searching {counted(cells, 'cell')} ({counted(len(net.operations), 'operation')} on"
            f" {counted(net.num_edges, 'edge')}) for up to {net.num_cells} of them; {net.num_cells * numbers:,} numbers"
            " beside the tables"
        )

    def _learns_again(self) -> bool:
        return self.options.retrain_with_teacher and self.variant != "no-distillation"

    def _after_warmup(self) -> Validator | None:
        """The validator, which says nothing while the architecture does not learn: what it is then is chance."""
        validate = self._validator()
        if validate is None:
            return None
        return lambda model: None if bool(self.net.frozen_architecture) else validate(model)

    def _validator(self) -> Validator | None:
        return make_validator(self.data, self.training) if self.data.valid.num_pairs else None


def _described(found: Found) -> dict[str, Any]:
    return {**asdict(found), "architecture": found.architecture.to_json(), "text": str(found.architecture)}
