"""Public sets: verified, cached, and one clear line where there is no network."""

from __future__ import annotations

import hashlib
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from line_cases import Notes
from recdistill.data import registry
from recdistill.data.registry import PUBLIC_SETS, PublicSet, fetch, recorded
from recdistill.errors import DataError


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set 'tiny' whose publisher is a file of this machine."""
    path = tmp_path / "published" / "tiny.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("tiny/u.data", "1\t2\t5\t100\n1\t3\t4\t90\n")
    known = PublicSet(
        path.as_uri(), "tiny/u.data", "free for all", hashlib.md5(path.read_bytes()).hexdigest()
    )
    monkeypatch.setitem(registry.PUBLIC_SETS, "tiny", known)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def test_downloaded_once_and_verified(archive: Path) -> None:
    notes = Notes()
    found = fetch("tiny", notes)
    assert found.read_text() == "1\t2\t5\t100\n1\t3\t4\t90\n"
    assert notes.notes == ["tiny: free for all"]
    assert recorded("tiny")["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.unlink()
    assert fetch("tiny") == found


def test_wrong_checksum_leaves_nothing(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PUBLIC_SETS, "tiny", replace(PUBLIC_SETS["tiny"], md5="0" * 32))
    with pytest.raises(DataError, match=f"expected {'0' * 32}.*it was deleted; try again"):
        fetch("tiny")
    assert list((registry.cache_folder() / "tiny").iterdir()) == []


def test_unknown_checksum_is_recorded_and_said(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PUBLIC_SETS, "tiny", replace(PUBLIC_SETS["tiny"], md5=None))
    notes = Notes()
    fetch("tiny", notes)
    assert any("no checksum is known; found SHA-256" in text for text in notes.notes)
    assert recorded("tiny")["sha256"] in notes.notes[-1]


def test_damaged_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.write_bytes(archive.read_bytes()[:-30])
    monkeypatch.setitem(registry.PUBLIC_SETS, "tiny", replace(PUBLIC_SETS["tiny"], md5=None))
    with pytest.raises(DataError, match="archive of tiny is damaged"):
        fetch("tiny")
    with pytest.raises(DataError, match="archive of tiny is damaged"):
        fetch("tiny")


def test_archive_put_there_by_hand(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = registry.cache_folder() / "tiny"
    folder.mkdir(parents=True)
    archive.rename(folder / "tiny.zip")
    assert fetch("tiny").exists()


def test_offline_is_one_line_soon(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 of this machine refuses at once, as an unplugged network does.
    gone = replace(PUBLIC_SETS["tiny"], url="http://127.0.0.1:9/tiny.zip")
    monkeypatch.setitem(registry.PUBLIC_SETS, "tiny", gone)
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    started = time.monotonic()
    with pytest.raises(
        DataError, match=r"cannot download tiny from http://127.*download it by hand to"
    ) as raised:
        fetch("tiny")
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < 10


def test_a_silent_server_is_given_up(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/tiny.zip"
        monkeypatch.setitem(registry.PUBLIC_SETS, "tiny", replace(PUBLIC_SETS["tiny"], url=url))
        monkeypatch.setattr(registry, "_TIMEOUT", 0.2)
        for variable in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        with pytest.raises(DataError, match="timed out"):
            fetch("tiny")


def test_the_table_is_sound() -> None:
    for name, known in PUBLIC_SETS.items():
        assert known.url.startswith("https://")
        assert name == name.lower()
        assert known.md5 is None or len(known.md5) == 32
        assert known.licence
    assert {"movielens-100k", "movielens-1m", "movielens-latest-small"} <= set(PUBLIC_SETS)
