"""The published DE-RRD comparison on CiteULike: teacher, student alone, RRD, DE, DE-RRD over several splits.

    python benchmarks/accuracy.py PATH/TO/citeulike-t/interactions.parquet --splits 0 1 2 3 4 --out runs/accuracy

Users with at least 5 interactions, random leave-one-out, teacher dim 200, student dim 20; 499 sampled candidates
and full ranking of the same models. Options were chosen on the valid split of split 0. Every step is reused if it
is done, so the splits can be run by several processes and tabulated by one more call.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import recdistill
from recdistill.evaluation.tables import over_splits
from recdistill.terminal import TerminalProgress

TRAINING: dict[str, Any] = {
    "batch_size": 1024, "epsilon": 1e-11, "validate_every": 10, "patience": 2, "validate_metric": "recall@50",
}  # fmt: skip
TEACHER = {**TRAINING, "epochs": 160, "learning_rate": 2e-3, "weight_decay": 2e-6}
ALONE = {**TRAINING, "epochs": 250, "learning_rate": 3e-3, "weight_decay": 3e-6}
DISTILLED = {**TRAINING, "epochs": 250, "learning_rate": 3e-3, "weight_decay": 2e-6}
RRD = {"method": "rrd", "weight": 5e-4, "depth": 200}
DE = {"method": "de", "weight": 0.02, "num_experts": 5, "anneal_epochs": 20}
STUDENTS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "rrd": ([RRD], DISTILLED),
    "de": ([DE], DISTILLED),
    "de-rrd": ([DE, RRD], DISTILLED),
}
PUBLISHED = {"teacher": 0.5135, "alone": 0.4441, "rrd": 0.4622, "de": 0.4817, "de-rrd": 0.4843}
PUBLISHED_FULL = {"teacher": 0.3253, "alone": 0.2347, "de": 0.2615}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    arguments = parser.parse_args()
    found = [one_split(arguments.source, arguments.out / f"split-{seed}", seed) for seed in arguments.splits]
    print(f"{len(found)} splits; mean ± standard deviation over splits; published figures in brackets\n")
    table("499 sampled candidates", over_splits([f["sampled"] for f in found]), "hit@5", PUBLISHED)
    table("full ranking", over_splits([f["full"] for f in found]), "recall@50", PUBLISHED_FULL)


def one_split(source: Path, out: Path, seed: int) -> dict[str, Any]:
    """All models of one split, and their two evaluations."""
    common: dict[str, Any] = {"progress": TerminalProgress()}
    data = recdistill.prepare(
        source,
        out / "data",
        split="leave-one-out",
        holdout="random",
        min_user_interactions=5,
        seed=seed,
        **common,
    )
    common |= {"seed": seed, "resume": True}
    teacher = recdistill.train(
        data, recdistill.models.BPR(dim=200), out / "teacher", training=TEACHER, **common
    )
    kinds = ["top_items", "embeddings"]
    recdistill.extract(data, teacher, out / "knowledge", kinds=kinds, progress=common["progress"])
    recdistill.train(data, recdistill.models.BPR(dim=20), out / "alone", training=ALONE, **common)
    for name, (methods, training) in STUDENTS.items():
        recdistill.distill(
            data,
            out / "knowledge",
            recdistill.models.BPR(dim=20),
            methods,
            out / name,
            training=training,
            **common,
        )
    models = [out / name for name in ("teacher", "alone", *STUDENTS)]
    lineage: dict[str, Any] = {"teacher": out / "teacher", "alone": out / "alone", "latency": False}
    return {
        protocol: recdistill.evaluate(
            data,
            models,
            out / protocol,
            protocol=protocol,
            k=(5, 10, 20, 50),
            progress=common["progress"],
            **lineage,
        )
        for protocol in ("sampled", "full")
    }


def table(title: str, found: dict[str, Any], gap: str, published: dict[str, float]) -> None:
    """Print one protocol's rows."""
    columns = ["hit@5", "ndcg@5", "mrr@5", "hit@10", "ndcg@10", "hit@20", "recall@50", "tail_recall@50"]
    shown = [c for c in columns if c in found["teacher"]["metrics"] and (c != "hit@20" or gap == "hit@5")]
    print(f"**{title}**\n\n| model | " + " | ".join(shown) + f" | gap closed, {gap} |")
    print("|---" * (len(shown) + 2) + "|")
    for name, row in found.items():
        cells = []
        for column in shown:
            value = row["metrics"][column]
            text = f"{value['mean']:.4f}" + ("" if value["spread"] is None else f" ± {value['spread']:.4f}")
            if column == gap and name in published:
                text += f" [{published[name]:.4f}]"
            cells.append(text)
        closed = row["gap_closed"].get(gap.replace("hit", "recall"), {})  # one target a user: they are equal
        share = "–" if closed.get("mean") is None else f"{100 * closed['mean']:.0f} %"
        print(f"| {name} | " + " | ".join(cells) + f" | {share} |")
    print()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
