"""What the page calls the data sets that its models learned from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from recdistill.reporting.runs import Collection, Directory


def scene_names(collection: Collection) -> Mapping[str, str]:
    """A name for each data set that a model or an evaluation was made from, by hash, in their order.

    It is that of the source; of two with the same source, or of none, that of the directory; of data that are not at
    hand the hash.
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
        names[digest] = source if alone and source else digest if data is None else data.name
    return names


def _source(data: Directory | None) -> str | None:
    """What data were prepared from, without folders and endings; None where that has no name of its own."""
    source = "" if data is None else str(data.manifest.summary.get("source", ""))
    return None if source in ("", "the table") else PurePath(source).stem
