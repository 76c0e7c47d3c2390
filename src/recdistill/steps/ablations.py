"""`search --ablations`: the search and everything it is compared with, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill.artifacts import read_manifest
from recdistill.directories import MANIFEST
from recdistill.errors import ArtifactError
from recdistill.files import read_json
from recdistill.knowledge.teacher import TeacherKnowledge
from recdistill.models.base import Recommender
from recdistill.searching.options import SearchOptions
from recdistill.steps.fit import DataLike
from recdistill.steps.methods import make_methods
from recdistill.steps.search import FOLDER, RESULT, TIMED, VARIANTS, has_transport, search


def ablations(
    data: DataLike, teacher: TeacherKnowledge | Path | str, out: Path | str = "runs/ablations", **options: Any
) -> dict[str, Recommender]:
    """The search and everything it is compared with, a model directory for each in ``out``.

    Architectures are compared, so all of them are trained from scratch unless a table of options says otherwise by
    ``init``, and the random one takes no more than the one that was found (with ``policy=darts`` it may take more).
    Where latencies are measured, all go by the table of the first.

    Args:
        data: a prepared data directory.
        teacher: the directory of a sequence model.
        out: where the directories go, by the variant's name.
        options: those of :func:`~recdistill.steps.search.search`, but for its variant.

    Returns:
        The students by variant; ``no-emd`` is one where ``adarec`` is among the methods.

    Raises:
        RecdistillError: as :func:`~recdistill.steps.search.search`, or ``out`` is the directory of something else.
    """
    if (Path(out) / MANIFEST).exists():
        raise ArtifactError(
            f"{out} is of kind {read_manifest(out).kind}, and a folder of variants was to be written",
            "choose another --out",
        )
    transports = has_transport(make_methods(options.get("methods", "adarec")))
    given = options.pop("options", None) or {}
    scratch = {"init": "scratch"}
    own: dict[str, Any] = (
        given.options | scratch if isinstance(given, SearchOptions) else scratch | dict(given)
    )
    students: dict[str, Recommender] = {}
    for name in VARIANTS:
        if name == "no-emd" and not transports:
            continue
        how = own
        timed = Path(out) / "searched" / FOLDER / TIMED
        if name != "searched" and timed.exists() and not own.get("latency_table"):
            how = {**own, "latency_table": str(timed)}
        if name == "random" and own.get("policy") != "darts":
            found = read_json(Path(out) / "searched" / FOLDER / RESULT)["takes"]["megabytes"] * (1 + 1e-9)
            how = {**how, "max_megabytes": min(found, own.get("max_megabytes") or found)}
        students[name] = search(data, teacher, Path(out) / name, variant=name, options=how, **options)
    return students
