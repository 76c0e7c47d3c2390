"""Options from signatures: what is accepted, what is refused and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pytest
from pydantic import AfterValidator, Field
from torch import nn

from recdistill import config
from recdistill.errors import OptionError


class Display(Protocol):
    def show(self) -> None: ...


def adds_up(ratios: tuple[float, ...]) -> tuple[float, ...]:
    if abs(sum(ratios) - 1) > 1e-9:
        raise ValueError(f"ratios must add up to 1, these to {sum(ratios):g}")
    return ratios


Ratios = Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(adds_up)]


class Model(nn.Module):
    """A model.

    Args:
        dim: length of the vectors,
            paper: 20.
        split: how rows are cut.
    """

    @config.validated
    def __init__(
        self,
        *,
        dim: Annotated[int, Field(ge=1, le=4096)] = 20,
        rate: Annotated[float, Field(gt=0)] = 1e-3,
        split: Literal["random", "leave-one-out"] = "random",
        ratios: Ratios = (0.8, 0.2),
        cut: Annotated[int | None, Field(ge=1)] = None,
        folder: Path | None = None,
        use_bias: bool = False,
        display: Display | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.rate, self.ratios, self.cut, self.folder = dim, rate, ratios, cut, folder
        self.display = display


class Method:
    @config.validated
    def __init__(self, *, weight: Annotated[float, Field(ge=0)] = 0.1, dim: int = 5) -> None:
        self.weight = weight


@config.validated
def prepare(source: str, out: str = "out", *, seed: int = 0, ratios: Ratios = (1.0,)) -> tuple[Any, ...]:
    return source, out, seed, ratios


@dataclass(frozen=True)
class Settings:
    epochs: Annotated[int, Field(ge=1)] = 10
    ks: list[int] = field(default_factory=lambda: [5, 10])


def message(call: Callable[[], object]) -> str:
    with pytest.raises(OptionError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


class TestValidated:
    def test_fills_in_defaults_and_keeps_them(self) -> None:
        model = Model(dim=3)
        assert model.dim == 3
        assert model.options == {
            "dim": 3,
            "rate": 1e-3,
            "split": "random",
            "ratios": [0.8, 0.2],
            "cut": None,
            "folder": None,
            "use_bias": False,
        }
        assert json.loads(json.dumps(model.options)) == model.options

    @pytest.mark.parametrize(
        ("options", "kept"),
        [
            ({"rate": 1}, {"rate": 1.0}),
            ({"ratios": [0.5, 0.5]}, {"ratios": [0.5, 0.5]}),
            ({"dim": np.int64(7)}, {"dim": 7}),
            ({"rate": np.float32(0.5)}, {"rate": 0.5}),
            ({"cut": "none"}, {"cut": None}),
            ({"folder": "a/b"}, {"folder": "a/b"}),
            ({"folder": Path("a")}, {"folder": "a"}),
            ({"use_bias": True}, {"use_bias": True}),
        ],
    )
    def test_accepts(self, options: dict[str, Any], kept: dict[str, Any]) -> None:
        assert {key: Model(**options).options[key] for key in kept} == kept

    def test_hands_python_values_to_the_body(self) -> None:
        model = Model(ratios=[0.5, 0.5], folder="a", rate=1)
        assert model.ratios == (0.5, 0.5)
        assert model.folder == Path("a")
        assert isinstance(model.rate, float)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"dim": 0}, "Model.dim: expected integer >= 1 and <= 4096, found 0"),
            ({"dim": 5000}, "Model.dim: expected integer >= 1 and <= 4096, found 5000"),
            ({"dim": "20"}, "Model.dim: expected integer >= 1 and <= 4096, found '20'"),
            ({"dim": 20.5}, "Model.dim: expected integer >= 1 and <= 4096, found 20.5"),
            ({"dim": True}, "Model.dim: expected integer >= 1 and <= 4096, found True"),
            ({"dim": None}, "Model.dim: expected integer >= 1 and <= 4096, found None"),
            ({"rate": 0}, "Model.rate: expected number > 0, found 0"),
            ({"rate": "0.1"}, "Model.rate: expected number > 0, found '0.1'"),
            ({"rate": float("nan")}, "Model.rate: expected a finite number > 0, found nan"),
            ({"rate": float("inf")}, "Model.rate: expected a finite number > 0, found inf"),
            ({"cut": 0}, "Model.cut: expected integer >= 1, or none, found 0"),
            ({"use_bias": 1}, "Model.use_bias: expected true or false, found 1"),
            ({"ratios": [0.5, "0.5"]}, "expected list of numbers of length at least 1, found [0.5, '0.5']"),
            ({"ratios": (0.5, 0.4)}, "Model.ratios: ratios must add up to 1, these to 0.9, found (0.5, 0.4)"),
            ({"ratios": []}, "Model.ratios: expected list of numbers of length at least 1, found []"),
            (
                {"split": "leave_one_out"},
                "Model.split: expected one of random, leave-one-out, found 'leave_one_out'; "
                "did you mean leave-one-out?",
            ),
            ({"dims": 3}, "Model.dims: no such option; did you mean dim? Model has dim, rate, split"),
            ({"zzz": 3}, "Model.zzz: no such option; Model has dim, rate, split"),
        ],
    )
    def test_refuses(self, options: dict[str, Any], said: str) -> None:
        assert said in message(lambda: Model(**options))

    def test_long_values_are_cut(self) -> None:
        assert len(message(lambda: Model(split="x" * 10_000))) < 300

    def test_what_is_no_option_passes_through(self) -> None:
        display = object()
        model = Model(display=display)
        assert model.display is display
        assert "display" not in model.options

    def test_functions(self) -> None:
        assert prepare("a", seed=2) == ("a", "out", 2, (1.0,))
        assert prepare(source="a", out="b") == ("a", "b", 0, (1.0,))
        assert message(lambda: prepare("a", seed="x")) == "prepare.seed: expected integer, found 'x'"
        assert "did you mean seed?" in message(lambda: prepare("a", sed=1))

    def test_signature_and_docs_stay(self) -> None:
        assert prepare.__name__ == "prepare"
        assert config.option_names(prepare) == ["seed", "ratios"]

    def test_subclass_options_win(self) -> None:
        class Child(Method):
            @config.validated
            def __init__(self, *, extra: int = 1) -> None:
                assert self.options == {"extra": extra}  # the body may read them
                super().__init__(weight=0.5)

        child = Child(extra=2)
        assert child.options == {"extra": 2}
        assert child.weight == 0.5
        assert message(lambda: Child(extra="x")).startswith("Child.extra:")

    def test_inherited_constructor(self) -> None:
        class Same(Method):
            pass

        assert Same(weight=1).options == {"weight": 1.0, "dim": 5}
        assert config.option_names(Same) == ["weight", "dim"]


class TestBuildAndResolve:
    def test_build(self) -> None:
        model = config.build(Model, {"DIM": 3, "use-bias": True}, "model")
        assert (model.options["dim"], model.options["use_bias"]) == (3, True)

    def test_paths_are_the_callers(self) -> None:
        assert message(lambda: config.build(Model, {"dim": 0}, "teacher")).startswith("teacher.dim: ")
        assert message(lambda: config.resolve(Model, {"dmi": 0}, "rrd.2")).startswith("rrd.2.dmi: no such")

    def test_resolve_equals_options(self) -> None:
        given = {"dim": 4, "ratios": [0.25, 0.75], "cut": "none"}
        assert config.resolve(Model, given, "model") == config.build(Model, given, "model").options

    def test_twice_the_same(self) -> None:
        assert "model.use_bias is given twice" in message(
            lambda: config.build(Model, {"use-bias": True, "use_bias": False}, "model")
        )

    def test_what_is_no_option_cannot_be_configured(self) -> None:
        assert "model.display: no such option" in message(
            lambda: config.build(Model, {"display": 1}, "model")
        )

    def test_required(self) -> None:
        def read(*, source: str, limit: int = 3) -> str:
            return source * limit

        read.__annotations__ = {"source": str, "limit": int}
        assert config.build(read, {"source": "a"}, "data") == "aaa"
        assert message(lambda: config.build(read, {}, "data")) == "data.source is not given; expected text"
        assert config.describe(read)[0].default is config.REQUIRED

    def test_a_wrong_default_is_found(self) -> None:
        def broken(*, dim: Any = 0) -> None: ...

        broken.__annotations__ = {"dim": Annotated[int, Field(ge=1)]}
        assert message(lambda: config.resolve(broken, {}, "x")) == "x.dim: expected integer >= 1, found 0"

    def test_dataclass(self) -> None:
        assert config.resolve(Settings, {"epochs": 3}, "s") == {"epochs": 3, "ks": [5, 10]}
        assert config.build(Settings, {"ks": [1]}, "s") == Settings(10, [1])
        assert "s.epochs: expected integer >= 1" in message(
            lambda: config.build(Settings, {"epochs": 0}, "s")
        )

    def test_describe(self) -> None:
        rows = {row.name: row for row in config.describe(Model)}
        assert list(rows) == ["dim", "rate", "split", "ratios", "cut", "folder", "use_bias"]
        assert rows["dim"] == ("dim", "integer >= 1 and <= 4096", 20, "length of the vectors, paper: 20.")
        assert rows["split"] == ("split", "one of random, leave-one-out", "random", "how rows are cut.")
        assert rows["folder"].type == "path or none"
        assert rows["ratios"].doc == ""


class TestResolveKeys:
    components: dict[str, Callable[..., Any]] = {"model": Model, "rrd": Method, "rrd.2": Method}  # noqa: RUF012

    def resolve(self, *texts: str) -> dict[str, dict[str, Any]]:
        return config.resolve_keys(config.parse_assignments(texts), self.components)

    def test_full_keys(self) -> None:
        found = self.resolve("model.dim=1", "rrd.weight=.5", "rrd.2.weight=2", "Model.USE-BIAS=true")
        assert found == {
            "model": {"dim": 1, "use_bias": True},
            "rrd": {"weight": 0.5},
            "rrd.2": {"weight": 2},
        }

    def test_the_first_may_be_numbered(self) -> None:
        assert self.resolve("rrd.1.weight=3")["rrd"] == {"weight": 3}

    def test_bare_key_of_one_component(self) -> None:
        assert self.resolve("rate=1")["model"] == {"rate": 1}

    def test_bare_key_of_several(self) -> None:
        text = message(lambda: self.resolve("dim=1"))
        assert text == "dim is an option of several components; name one: model.dim, rrd.dim, rrd.2.dim"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("rat=1", "rat: no such option; did you mean rate?"),
            ("model.dmi=1", "model.dmi: no such option; did you mean dim?"),
            ("modle.dim=1", "modle.dim: no such option; did you mean model.dim?"),
            ("rrd.3.weight=1", "rrd.3.weight: no such option; did you mean rrd.2.weight?"),
            ("xyzzy=1", "xyzzy: no such option; known: model.dim,"),
        ],
    )
    def test_unknown(self, text: str, said: str) -> None:
        assert said in message(lambda: self.resolve(text))
