"""Methods by name: presets spelled out, options where they belong."""

from __future__ import annotations

from typing import Any

import pytest

from recdistill.distillers import DCD, RRD
from recdistill.errors import OptionError
from recdistill.steps.methods import make_methods, method_tables


def test_a_preset_is_spelled_out_however_it_is_named() -> None:
    spelled = method_tables("rrd-dcd")
    assert [table["method"] for table in spelled] == ["rrd", "dcd"]
    assert method_tables({"method": "RRD_DCD"}) == method_tables(["rrd-dcd"]) == spelled
    assert [type(made) for made in make_methods([{"method": "rrd-dcd"}, "rrd"])] == [RRD, DCD, RRD]


def test_options_of_a_preset_are_refused() -> None:
    with pytest.raises(OptionError, match=r"rrd-dcd is a sum of methods \(rrd, dcd\).* 'weight'.*tables"):
        make_methods({"method": "rrd-dcd", "weight": 3.0})


@pytest.mark.parametrize(("table", "found"), [({}, "nothing"), ({"weight": 1.0}, "weight")])
def test_a_table_without_a_method_is_told(table: dict[str, Any], found: str) -> None:
    with pytest.raises(OptionError, match=f"has {found} and no 'method'"):
        make_methods(table)
