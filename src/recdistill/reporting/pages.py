"""The templates: what every page shares."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import recdistill
from recdistill.reporting.charts import can_draw
from recdistill.reporting.numbers import Missing


def fill(template: str, **values: Any) -> str:
    """A page as HTML.

    Args:
        template: its file among the templates.
        values: what it shows.
    """
    script = (
        (resources.files("recdistill.reporting") / "templates" / "print.js")
        .read_text(encoding="utf-8")
        .strip()
    )
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            drawing=can_draw(),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=recdistill.__version__,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("recdistill.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    return environment
