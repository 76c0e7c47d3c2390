"""The table of runs that a comparison prints as it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean

from recdistill.artifacts import Manifest, read_manifest
from recdistill.errors import ArtifactError
from recdistill.progress import Progress
from recdistill.steps.comparefile import REFIT, Plan
from recdistill.wording import counted


class Board:
    """The table of runs: what is done at the start, and a line for each run that ends."""

    def __init__(self, chosen: Plan, out: Path, progress: Progress) -> None:
        self.plan, self.out, self.progress = chosen, out, progress
        suffixes = ("", REFIT) if chosen.refit else ("",)
        self.paths = [
            out / f"split-{split}" / (name + suffix)
            for split in chosen.split_seeds
            for suffix in suffixes
            for name in (
                *(teacher.directory for teacher in chosen.teachers if not teacher.origin.given),
                *(row.directory(seed) for seed in chosen.seeds for row in chosen.rows),
            )
        ]
        names = [*(row.name for row in chosen.rows), *(teacher.directory for teacher in chosen.teachers)]
        self.width = max(len(name) for name in names) + len(suffixes[-1])
        self.done = 0
        self.times: list[float] = []
        self.current: tuple[int, int, str, str, float] = (0, 0, "", "", 0.0)

    def start(self) -> None:
        """Say what there is to do."""
        made = sum((path / "manifest.json").exists() for path in self.paths)
        rows, seeds, splits = len(self.plan.rows), len(self.plan.seeds), len(self.plan.split_seeds)
        self.progress.note(
            f"compare: {counted(rows, 'student')} x {counted(seeds, 'model seed')} x {counted(splits, 'split')}"
            f"{', each refitted,' if self.plan.refit else ''} in {self.out}:"
            f" {counted(len(self.paths), 'run')}, {made} of them done already"
        )
        if 1 < splits < 4:
            self.progress.note(
                f"{splits} splits: tests over so few find hardly any difference, and letters may look odd; 5 are usual,"
                " and one split is tested over its users"
            )
        self.progress.note(
            f"{'run':>9}  {'name':<{self.width}} split  seed  epochs  best at  validation  s an epoch    took"
        )

    def begin(self, split: int, seed: int, name: str, path: Path) -> None:
        self.current = (split, seed, name, _made_at(path), time.monotonic())

    def end(self, manifest: Manifest) -> None:
        """A line for the run that ended, and how long the others will take."""
        reused, took = self.current[3] == manifest.created, time.monotonic() - self.current[4]
        summary = manifest.summary
        best = summary.get("best_metric")
        shown = "-" if best is None else f"{best:.4f}"
        self._line(
            f"{summary['epochs']:>6}  {summary['best_epoch']:>7}  {shown:>10}"
            f"  {summary['seconds_per_epoch']:>10.3f}  {'reused' if reused else f'{took:,.1f} s':>6}"
        )
        if not reused:
            self.times.append(took)
            self._left()

    def fail(self, reason: str) -> None:
        """A line for a run that diverged."""
        self._line(f"failed: {reason}")

    def _line(self, text: str) -> None:
        self.done += 1
        split, seed, name, _, _ = self.current
        counted = f"{self.done}/{len(self.paths)}"
        self.progress.note(f"{counted:>9}  {name:<{self.width}} {split:>5}  {seed:>4}  {text}")

    def _left(self) -> None:
        waiting = sum(not (path / "manifest.json").exists() for path in self.paths[self.done :])
        if waiting and (len(self.times) == 1 or len(self.times) % 5 == 0):
            seconds = fmean(self.times) * waiting
            left = f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
            self.progress.note(f"{counted(waiting, 'run')} left, about {left}")


def _made_at(path: Path) -> str:
    try:
        return read_manifest(path).created
    except ArtifactError:
        return ""  # nothing there yet, or something that the step will refuse by name
