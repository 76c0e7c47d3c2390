"""Manifests and the hashes of steps and files."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recdistill
from artifact_helpers import make, message, value_of
from recdistill.artifacts import fingerprint, hash_files, read_json, read_manifest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "out"


class TestReadManifest:
    def edit(self, out: Path, **changes: Any) -> None:
        make(out)
        raw = read_json(out / "manifest.json")
        (out / "manifest.json").write_text(json.dumps(raw | changes))

    def test_missing(self, out: Path) -> None:
        assert message(lambda: read_manifest(out)) == (
            f"{out} does not exist; expected a directory made by recdistill"
        )
        out.mkdir(parents=True)
        assert message(lambda: read_manifest(out, "data")) == (
            f"{out} has no manifest.json; expected a directory of kind data; make it with: recdistill prepare"
        )

    def test_wrong_kind(self, out: Path) -> None:
        make(out, kind="data")
        assert message(lambda: read_manifest(out, ("model", "knowledge"))) == (
            f"{out} is of kind data; expected a directory of kind model or knowledge;"
            " make it with: recdistill train or extract"
        )
        assert read_manifest(out, ("model", "data")).kind == "data"

    def test_a_newer_format_is_refused_by_name(self, out: Path) -> None:
        self.edit(out, format=2, version="9.1.0", hash=["changed", "beyond", "recognition"])
        assert message(lambda: read_manifest(out)) == (
            f"{out} has format 2, written by recdistill 9.1.0; this is {recdistill.__version__}, "
            "which reads formats up to 1; upgrade recdistill"
        )
        assert "format 2" in message(lambda: make(out, force=True))

    def test_fields_of_later_versions_are_ignored(self, out: Path) -> None:
        self.edit(out, added="later")
        assert value_of(out) == 1

    @pytest.mark.parametrize("changes", [{"hash": 3}, {"options": None}, {"format": "1"}, {"seed": "x"}])
    def test_damaged_fields(self, out: Path, changes: dict[str, Any]) -> None:
        self.edit(out, **changes)
        assert f"damaged, or another program's: {next(iter(changes))}: " in message(
            lambda: read_manifest(out)
        )

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "data"}', "\x00"])
    def test_damaged_files(self, out: Path, text: str) -> None:
        make(out)
        (out / "manifest.json").write_text(text)
        said = message(lambda: read_manifest(out))
        assert "damaged" in said
        assert f"delete {out} and make it again" in said

    def test_every_truncation(self, out: Path) -> None:
        make(out)
        raw = (out / "manifest.json").read_bytes().rstrip()
        for length in range(len(raw)):
            (out / "manifest.json").write_bytes(raw[:length])
            message(lambda: read_manifest(out))

    def test_unreadable(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make(out)

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert "Permission denied" in message(lambda: read_manifest(out))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


class TestFingerprint:
    base: dict[str, Any] = {"kind": "data", "options": {"a": 1, "b": [2]}, "seed": 0, "inputs": {"x": "1"}}  # noqa: RUF012

    @pytest.mark.parametrize(
        "changes",
        [
            {"kind": "model"},
            {"options": {"a": 2, "b": [2]}},
            {"options": {"a": 1}},
            {"options": {"a": 1, "b": [2], "c": None}},
            {"options": {"a": "1", "b": [2]}},
            {"options": {"a": True, "b": [2]}},
            {"seed": 1},
            {"seed": None},
            {"inputs": {"x": "2"}},
            {"inputs": {"y": "1"}},
            {"inputs": {}},
        ],
    )
    def test_covers_what_decides_the_result(self, changes: dict[str, Any]) -> None:
        assert fingerprint(**self.base) != fingerprint(**(self.base | changes))

    def test_covers_the_format(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = fingerprint(**self.base)
        monkeypatch.setattr("recdistill.manifests.FORMAT", 2)
        assert fingerprint(**self.base) != before

    def test_covers_nothing_else(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = make(out).manifest
        monkeypatch.setattr(recdistill, "__version__", "9.9")
        assert make(out).reused
        again = make(out, force=True).manifest
        assert again.version == "9.9"
        assert again.hash == first.hash

    def test_is_the_same_in_every_process_and_version(self) -> None:
        canonical = b'{"format":1,"inputs":{"x":"1"},"kind":"data","options":{"a":1,"b":[2]},"seed":0}'
        assert fingerprint(**self.base) == hashlib.sha256(canonical).hexdigest()[:16]

    @settings(deadline=None)
    @given(JSON)
    def test_survives_a_round_trip(self, value: Any) -> None:
        options = {"value": value}
        again = json.loads(json.dumps(options))
        assert fingerprint("x", options, 0, {}) == fingerprint("x", again, 0, None)

    def test_order_of_keys_counts_for_nothing(self) -> None:
        assert fingerprint("x", {"a": 1, "b": 2}, 0, {}) == fingerprint("x", {"b": 2, "a": 1}, 0, {})

    def test_refuses_what_has_no_json_form(self) -> None:
        with pytest.raises(TypeError):
            fingerprint("x", {"a": object()}, 0, {})
        with pytest.raises(ValueError, match="Out of range"):
            fingerprint("x", {"a": float("nan")}, 0, {})


class TestHashFiles:
    def test_covers_content_and_order_alone(self, tmp_path: Path) -> None:
        one, two, copy = (tmp_path / name for name in ("one", "two", "copy"))
        one.write_bytes(b"ab")
        two.write_bytes(b"c")
        copy.write_bytes(b"ab")
        assert hash_files([one, two]) == hash_files([str(copy), two])
        assert len({hash_files([one, two]), hash_files([two, one]), hash_files([one]), hash_files([])}) == 4
        before = hash_files([one, two])
        one.write_bytes(b"a")
        two.write_bytes(b"bc")
        assert hash_files([one, two]) != before

    def test_missing(self, tmp_path: Path) -> None:
        assert "cannot read" in message(lambda: hash_files([tmp_path / "none"]))
        assert "cannot read" in message(lambda: hash_files([tmp_path]))
