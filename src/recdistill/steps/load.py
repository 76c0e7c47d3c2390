"""Model directories: written once, read back whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recdistill import config
from recdistill.artifacts import Manifest, load_arrays, read_manifest, save_arrays
from recdistill.data.interactions import Interactions
from recdistill.data.prepared import Data
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import ArtifactError
from recdistill.models.base import Recommender
from recdistill.ops import owners_of
from recdistill.wording import counted

WEIGHTS = "weights.safetensors"


def save_model(model: Recommender, folder: Path) -> None:
    """Write weights, vocabularies and train pairs of ``model`` to ``folder``, with their order where it reads it."""
    users, items = model.vocabularies()
    pairs = model.train_pairs
    assert pairs is not None
    save_arrays(
        folder / WEIGHTS, {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    )
    arrays = {"indptr": pairs.indptr, "items": pairs.items}
    if model.sequential:
        arrays |= {"event_indptr": pairs.event_indptr, "event_items": pairs.event_items}
    save_arrays(folder / "train.safetensors", arrays)
    users.save(folder / "users.parquet")
    items.save(folder / "items.parquet")


def load(path: Path | str, device: str = "cpu") -> Recommender:
    """The model at ``path``, in eval mode, ready to recommend.

    Args:
        path: a model directory.
        device: where its parameters go.

    Raises:
        ArtifactError: no model there, a damaged one, or one that this version does not know.
    """
    path = Path(path)
    manifest = read_manifest(path, kind="model")
    chosen: dict[str, Any] = {**manifest.options["model"], **manifest.summary.get("model_options", {})}
    name = chosen.pop("name")
    model = config.build(config.find("models", name), chosen, "model")
    assert isinstance(model, Recommender)
    arrays = load_arrays(path / "train.safetensors")
    users, items = Vocabulary.load(path / "users.parquet"), Vocabulary.load(path / "items.parquet")
    if model.sequential:
        pairs = events_of(arrays["event_indptr"], arrays["event_items"], len(items))
    else:
        pairs = pairs_of(arrays["indptr"], arrays["items"], len(items))
    model.build(pairs, torch.Generator())
    load_weights(model, path / WEIGHTS)
    model.attach(users, items, pairs)
    model.path = path
    return model.to(device).eval()


def load_weights(model: Recommender, path: Path) -> None:
    """Read parameters and buffers of ``model`` from ``path``.

    Raises:
        ArtifactError: other names or shapes than the model's.
    """
    arrays = load_arrays(path)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in arrays.items()}
    if expected != found:
        raise ArtifactError(f"{path} holds {found}; the model expects {expected}", "train the model again")
    model.load_state_dict(arrays)  # copied: the file is only mapped
    model.train()  # what was computed from other weights is forgotten


def pairs_of(indptr: torch.Tensor, items: torch.Tensor, num_items: int) -> Interactions:
    """Interactions from their CSR arrays."""
    users = owners_of(indptr.diff())
    return Interactions.from_events(users, items.clone(), len(indptr) - 1, num_items)


def events_of(indptr: torch.Tensor, items: torch.Tensor, num_items: int) -> Interactions:
    """Interactions from the CSR arrays of their events in order."""
    users = owners_of(indptr.diff())
    order = torch.arange(len(users)) - indptr[users]
    return Interactions.from_events(users, items.clone(), len(indptr) - 1, num_items, positions=order)


def check_trained_on(model: Manifest, path: Path | str, data: Data) -> None:
    """Refuse a teacher of other data, or of another split, whose train rows may be test rows here.

    Args:
        model: the manifest of the teacher.
        path: its directory.
        data: what a student is trained on.

    Raises:
        ArtifactError: it was trained on something else.
    """
    if model.inputs.get("data") != data.hash:
        raise ArtifactError(
            f"the model at {path} was trained on data {model.inputs.get('data')}, not on {data.hash}: "
            f"{_difference(Path(path), data)}",
            "pass the data directory it was trained on",
        )


def _difference(path: Path, data: Data) -> str:
    """Whether it is other users and items, or other rows of the same ones."""
    kinds = (("users.parquet", "user", data.users), ("items.parquet", "item", data.items))
    told: list[str] = []
    for file, kind, known in kinds:
        own = Vocabulary.load(path / file)
        if own.hash != known.hash:
            missing = int((known.index(own.ids()) < 0).sum())
            told.append(
                f"{counted(len(own), kind)} there, {missing:,} of them unknown here, where {len(known):,} are"
            )
    return ", ".join(told) or "the same users and items, other rows or another split"
