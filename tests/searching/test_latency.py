"""Measured latencies: a table that predicts whole models, and its cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recdistill.errors import ArtifactError
from recdistill.models.architecture import SPACES
from recdistill.models.cellnet import CellNet
from recdistill.searching import latency
from recdistill.searching.latency import Setting, encoder_latency, latency_meter

SETTING = Setting(4, 4, 8, 2, torch.get_num_threads(), SPACES["causal"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_SECONDS", 0.0)


def test_every_part_is_timed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "deep" / "latency.json"
    meter = latency_meter(SETTING, 2.0, cache)
    assert meter.limit == 2.0
    assert set(meter.operations) == set(SPACES["causal"])
    assert meter.base.at(8) > 0
    assert all(part.fixed >= 0 and part.slope >= 0 for part in meter.operations.values())
    monkeypatch.setattr(latency, "_timed", lambda setting: pytest.fail("timed again"))
    assert latency_meter(SETTING, 2.0, cache) == meter
    other = Setting(4, 5, 8, 2, SETTING.threads, SPACES["causal"])
    with pytest.raises(pytest.fail.Exception):
        latency_meter(other, 2.0, cache)
    assert len(json.loads(cache.read_text())) == 1


def test_models_are_timed() -> None:
    assert encoder_latency(CellNet(dim=4, max_length=8), 3, 8) > 0


@pytest.mark.parametrize("text", ["{", "[]"])
def test_another_file_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ArtifactError, match="no table of latencies"):
        latency_meter(SETTING, None, tmp_path / "x.json")


def test_parts_are_differences_of_whole_models(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(4, 4, 8, 2, 1, ("conv3", "skip", "none"))

    def taken(setting: Any, edges: Any, cells: int, width: int) -> float:
        """2 + .1 W for the model, 1 + .05 W a cell, .3 + .02 W an edge of conv3."""
        of_edges = (0.3 + 0.02 * width) * list(edges).count("conv3")
        return 2 + 0.1 * width + cells * (1 + 0.05 * width + of_edges)

    monkeypatch.setattr(latency, "_encoder", taken)
    found = latency._timed(setting)
    assert found["base"] == pytest.approx([2, 0.1])
    assert found["cell"] == pytest.approx([1, 0.05])
    assert found["operations"]["conv3"] == pytest.approx([0.3, 0.02])
    assert found["operations"]["none"] == [0.0, 0.0]
