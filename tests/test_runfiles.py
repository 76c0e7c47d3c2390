"""``key=value`` texts and TOML run files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recdistill import config
from recdistill.errors import OptionError
from recdistill.runfiles import key_line


def message(call: Callable[[], object]) -> str:
    with pytest.raises(OptionError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("-3", -3),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("1_000", 1000),
        ("true", True),
        ("False", False),
        ('"20"', "20"),
        ("temporal", "temporal"),
        ("leave-one-out", "leave-one-out"),
        ("", ""),
        ("[1, 2]", [1, 2]),
        ("5,10,20", [5, 10, 20]),
        (".8,.1,.1", [0.8, 0.1, 0.1]),
        ("train,valid", "train,valid"),
        ("a=b", "a=b"),
        ("2024-01-31", "2024-01-31"),
        ('{a = 1}', {"a": 1}),
        ("1\nother = 2", "1\nother = 2"),
        ("/data/x y.csv", "/data/x y.csv"),
        ("none", "none"),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    found = config.parse_assignments([f"a.b={text}"])["a.b"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_lower_case_and_the_last_counts() -> None:
    assert config.parse_assignments(["Model.Use-Bias = true", "model.use_bias=false"]) == {
        "model.use_bias": False
    }


@pytest.mark.parametrize("text", ["dim", "=3", "model.=3", ".dim=3", ""])
def test_what_is_no_assignment(text: str) -> None:
    said = f"cannot read '{text}'; expected key=value, such as model.dim=20"
    assert message(lambda: config.parse_assignments([text])) == said


class TestAssign:
    def tree(self) -> dict[str, Any]:
        return {
            "seed": 0,
            "student": {"dim": 20, "training": {"epochs": 3}},
            "distill": [{"method": "rrd"}, {"method": "ft-d"}, {"method": "RRD"}],
        }

    @pytest.mark.parametrize(
        ("path", "where"),
        [
            ("seed", lambda tree: tree["seed"]),
            ("student.dim", lambda tree: tree["student"]["dim"]),
            ("student.training.learning-rate", lambda tree: tree["student"]["training"]["learning_rate"]),
            ("teacher.training.epochs", lambda tree: tree["teacher"]["training"]["epochs"]),
            ("distill.2.weight", lambda tree: tree["distill"][1]["weight"]),
            ("distill.rrd.weight", lambda tree: tree["distill"][0]["weight"]),
            ("distill.rrd.2.weight", lambda tree: tree["distill"][2]["weight"]),
            ("distill.FT_D.weight", lambda tree: tree["distill"][1]["weight"]),
        ],
    )
    def test_sets(self, path: str, where: Callable[[dict[str, Any]], Any]) -> None:
        tree = self.tree()
        config.assign(tree, path, 7)
        assert where(tree) == 7

    def test_an_existing_spelling_is_kept(self) -> None:
        tree = {"training": {"learning-rate": 1}}
        config.assign(tree, "training.learning_rate", 2)
        assert tree == {"training": {"learning-rate": 2}}

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("seed.x", "cannot set seed.x: seed is 0, no table"),
            ("distill.de.weight", "distill has no table de; it has 3: rrd, ft_d, rrd"),
            ("distill.4.weight", "distill has no table 4; it has 3: rrd, ft_d, rrd"),
            ("distill.0.weight", "distill has no table 0; it has 3: rrd, ft_d, rrd"),
            ("distill.rrd.3.weight", "distill has no table rrd.3; it has 3: rrd, ft_d, rrd"),
            (
                "distill.weight",
                "cannot set distill.weight: distill is a list of tables;"
                " name one of them: distill.rrd.1, distill.ft_d, distill.rrd.2",
            ),
        ],
    )
    def test_refuses(self, path: str, said: str) -> None:
        tree = self.tree()
        assert message(lambda: config.assign(tree, path, 7)) == said
        assert tree == self.tree()


RUN = """seed = 1
[data]
source = "x.csv"
since = 2024-01-31

[teacher]
dim = 400
[student]
dim = 20
training.epochs = 3

[[distill]]
method = "rrd"
weigth = 1
"""


class TestRunFile:
    def write(self, folder: Path, text: str | bytes = RUN) -> Path:
        path = folder / "run.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def test_reads(self, tmp_path: Path) -> None:
        tree = config.load_run_file(self.write(tmp_path))
        assert tree["distill"] == [{"method": "rrd", "weigth": 1}]
        assert tree["data"]["since"] == "2024-01-31"
        json.dumps(tree)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a = 1\nb = 2\nc 3\n", "run.toml, line 3: Expected '=' after a key in a key/value pair"),
            ("a = 1\na = 2\n", "run.toml, line 2: Cannot overwrite a value"),
            ("[x]\n\na = [1,\n", "run.toml, line 3: Invalid value; expected TOML, such as: dim = 20"),
            (b"a = '\xff'", "run.toml is no UTF-8 text"),
        ],
    )
    def test_no_toml(self, tmp_path: Path, text: str | bytes, said: str) -> None:
        path = self.write(tmp_path, text)
        assert said in message(lambda: config.load_run_file(path))

    def test_missing(self, tmp_path: Path) -> None:
        assert "cannot read run file" in message(lambda: config.load_run_file(tmp_path / "none.toml"))
        assert "cannot read run file" in message(lambda: config.load_run_file(tmp_path))

    @pytest.mark.parametrize(
        ("key", "line"),
        [
            ("teacher.dim", 7),
            ("student.dim", 9),
            ("dim", None),  # two tables have it
            ("student.training.epochs", 10),
            ("training.epochs", 10),
            ("rrd.weigth", 14),
            ("rrd.weight", None),
            ("seed", 1),
        ],
    )
    def test_key_line(self, tmp_path: Path, key: str, line: int | None) -> None:
        assert key_line(self.write(tmp_path), key) == line

    def test_option_errors_get_their_line(self, tmp_path: Path) -> None:
        path = self.write(tmp_path)

        def check(text: str) -> None:
            with config.run_file_lines(path):
                raise OptionError(text, "do this")

        assert message(lambda: check("rrd.weigth: no such option")) == (
            f"{path}, line 14: rrd.weigth: no such option; do this"
        )
        assert message(lambda: check("x.y: no such option")) == "x.y: no such option; do this"
        assert message(lambda: check("nothing to name")) == "nothing to name; do this"

    @pytest.mark.parametrize(
        ("said", "line"),
        [
            ("no method is called 'rrdd'", 3),
            ("no table or key 'methods'", 2),
            ("no table or key 'trainings'", 4),
            ("compare file: no method 'bpr'", None),  # two lines have it
            ("no method is called 'rrd'", None),  # a part of another word
            ("no method is called 'hinted'", None),  # in a comment alone
        ],
    )
    def test_errors_that_quote_a_word_get_its_line(self, tmp_path: Path, said: str, line: int | None) -> None:
        path = tmp_path / "words.toml"
        path.write_text('student = "bpr"\n[[methods]]\nname = "rrdd" # "hinted"\ntrainings = ["bpr"]\n')
        with pytest.raises(OptionError) as raised, config.run_file_lines(path):
            raise OptionError(said)
        assert raised.value.message == (said if line is None else f"{path}, line {line}: {said}")
