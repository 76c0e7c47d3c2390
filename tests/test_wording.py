"""Counts agree with their nouns; near names are found."""

from __future__ import annotations

import subprocess
import sys

from recdistill.wording import counted, did_you_mean


def test_counts() -> None:
    assert [counted(number, "row") for number in (0, 1, 12_000)] == ["0 rows", "1 row", "12,000 rows"]
    assert [counted(number, "user has", "users have") for number in (1, 2)] == ["1 user has", "2 users have"]


def test_near_names() -> None:
    assert did_you_mean("modles", ["models", "distillers"]) == "did you mean models?"
    assert did_you_mean("zzz", ["models", "distillers"]) == ""


def test_a_mistyped_name_of_the_package_imports_nothing_large() -> None:
    code = "import sys, recdistill; hasattr(recdistill, 'distil'); print({'pydantic', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
