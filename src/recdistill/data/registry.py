"""Public data sets by name: where they come from, their checksum, their terms; downloaded when asked for."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recdistill.atomic import atomic_file
from recdistill.errors import ArtifactError, DataError
from recdistill.files import read_json, size_text, write_json
from recdistill.progress import Progress, Silent, Stage

_TIMEOUT = 15.0
_BLOCK = 1 << 20
_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_TERMS = (
    "GroupLens terms: research use, acknowledging Harper and Konstan (2015); no commercial use without "
    "permission; the archive's README has them in full"
)


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        url: the publisher's zip archive.
        member: the file of interactions inside it.
        licence: its terms in a line.
        md5: the publisher's checksum of the archive; None where the archive is replaced now and then.
    """

    url: str
    member: str
    licence: str
    md5: str | None


# Checksums are those that GroupLens publishes beside each archive. "latest" archives are replaced in place.
PUBLIC_SETS: dict[str, PublicSet] = {
    "movielens-100k": PublicSet(
        f"{_GROUPLENS}/ml-100k.zip", "ml-100k/u.data", _TERMS, "0e33842e24a9c977be4e0107933c0723"
    ),
    "movielens-1m": PublicSet(
        f"{_GROUPLENS}/ml-1m.zip", "ml-1m/ratings.dat", _TERMS, "c4d9eecfca2ab87c1945afe126590906"
    ),
    "movielens-10m": PublicSet(
        f"{_GROUPLENS}/ml-10m.zip",
        "ml-10M100K/ratings.dat",
        _TERMS,
        "ce571fd55effeba0271552578f2648bd",
    ),
    "movielens-20m": PublicSet(
        f"{_GROUPLENS}/ml-20m.zip", "ml-20m/ratings.csv", _TERMS, "cd245b17a1ae2cc31bb14903e1204af3"
    ),
    "movielens-25m": PublicSet(
        f"{_GROUPLENS}/ml-25m.zip", "ml-25m/ratings.csv", _TERMS, "6b51fb2759a8657d3bfcbfc42b592ada"
    ),
    "movielens-32m": PublicSet(
        f"{_GROUPLENS}/ml-32m.zip", "ml-32m/ratings.csv", _TERMS, "d472be332d4daa821edc399621853b57"
    ),
    "movielens-latest-small": PublicSet(
        f"{_GROUPLENS}/ml-latest-small.zip", "ml-latest-small/ratings.csv", _TERMS, None
    ),
    "movielens-latest": PublicSet(f"{_GROUPLENS}/ml-latest.zip", "ml-latest/ratings.csv", _TERMS, None),
}


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/recdistill``, by default ``~/.cache/recdistill``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "recdistill"


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The file of interactions of a public set, downloaded and verified the first time.

    Args:
        name: a key of ``PUBLIC_SETS``.
        progress: where the download and the terms are shown.

    Returns:
        The file in the cache folder.

    Raises:
        DataError: without a network, or where the download does not match its checksum.
        ArtifactError: where the cache folder cannot be written.
    """
    shown = progress or Silent()
    known = PUBLIC_SETS[name]
    folder = cache_folder() / name
    member = folder / Path(known.member).name
    record = folder / "download.json"
    if member.exists() and record.exists():
        return member
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {folder}: {error.strerror}", "set XDG_CACHE_HOME") from None
    shown.note(f"{name}: {known.licence}")
    archive = folder / known.url.rsplit("/", 1)[-1]
    if not archive.exists():
        _download(name, known.url, archive, shown)
    md5, sha256 = _checksums(archive)
    if known.md5 not in (None, md5):
        archive.unlink()
        raise DataError(
            f"the archive of {name} has MD5 {md5}, expected {known.md5}: it is damaged or was replaced",
            "it was deleted; try again",
        )
    if known.md5 is None:
        shown.note(
            f"{name}: its publisher replaces it now and then, so no checksum is known; found SHA-256 {sha256}"
        )
    _unpack(name, archive, known.member, member)
    write_json(record, {"url": known.url, "md5": md5, "sha256": sha256, "licence": known.licence})
    archive.unlink()
    return member


def recorded(name: str) -> dict[str, str]:
    """What was downloaded for a set: ``url``, ``md5``, ``sha256`` of the archive, ``licence``."""
    return read_json(cache_folder() / name / "download.json")


def _download(name: str, url: str, archive: Path, progress: Progress) -> None:
    hint = f"download it by hand to {archive}, or name a file of your own"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            with (
                progress.stage(f"download {name}", total, "bytes") as stage,
                atomic_file(archive, total) as file,
            ):
                received = _copy(response, file, stage)
        if total is not None and received != total:
            archive.unlink()
            raise DataError(
                f"the download of {name} broke off at {size_text(received)} of {size_text(total)}", hint
            )
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot download {name} from {url}: {' '.join(str(reason).split())}", hint) from None


def _copy(source: IO[bytes], target: IO[bytes], stage: Stage) -> int:
    received = 0
    while block := source.read(_BLOCK):
        target.write(block)
        received += len(block)
        stage.advance(len(block))
    return received


def _checksums(path: Path) -> tuple[str, str]:
    digests = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for digest in digests:
                digest.update(block)
    return digests[0].hexdigest(), digests[1].hexdigest()


def _unpack(name: str, archive: Path, member: str, target: Path) -> None:
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as source,
            atomic_file(target, opened.getinfo(member).file_size) as file,
        ):
            while block := source.read(_BLOCK):
                file.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        archive.unlink()
        text = " ".join(str(error).split())
        raise DataError(
            f"the archive of {name} is damaged: {text}",
            "it was deleted; try again, or name a file of your own",
        ) from None
