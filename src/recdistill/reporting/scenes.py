"""What the page calls the data sets that its models learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from recdistill.reporting.runs import Collection, Directory


def scene_names(collection: Collection) -> Mapping[str, str]:
    """A name for each data set that a model or an evaluation was made from, by hash, in their order.

    It is that of the source; of two with the same source, or of none, that of the directory; of data that are not at
    hand that of the one folder in which everything made from them lies, where no other lies there, else the hash.
    """
    hashes = dict.fromkeys(
        digest
        for one in (*collection.evaluations, *collection.models)
        if (digest := one.manifest.inputs.get("data")) is not None
    )
    found = {digest: collection.find(digest) for digest in hashes}
    sources = {digest: _source(data) for digest, data in found.items()}
    names: dict[str, str] = {}
    for digest, data in found.items():
        source = sources[digest]
        alone = source is not None and list(sources.values()).count(source) == 1
        known = data.name if data is not None else _folder(collection, digest, list(hashes))
        names[digest] = source if alone and source else known
    return names


def _folder(collection: Collection, digest: str, hashes: Sequence[str]) -> str:
    """The name of the folder of everything made from data, or their hash where that tells less."""
    folders = {
        one: {
            made.path.resolve().parent
            for made in (*collection.evaluations, *collection.models)
            if made.manifest.inputs.get("data") == one
        }
        for one in hashes
    }
    own = folders.pop(digest)
    shared = any(own & others for others in folders.values())
    return digest if len(own) > 1 or shared or len(hashes) == 1 else own.pop().name


def _source(data: Directory | None) -> str | None:
    """What data were prepared from, without folders and endings; None where that has no name of its own."""
    source = "" if data is None else str(data.manifest.summary.get("source", ""))
    return None if source in ("", "the table") else PurePath(source).stem
