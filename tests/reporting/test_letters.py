"""Significance letters: two models share one exactly if they do not differ."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from recdistill.reporting.letters import significance_letters


def test_all_alike_share_one_letter() -> None:
    assert significance_letters(["x", "y", "z"], []) == {"x": "a", "y": "a", "z": "a"}


def test_all_different_have_their_own_letter_in_order() -> None:
    names = ["z", "y", "x"]
    different = [frozenset(pair) for pair in combinations(names, 2)]
    assert significance_letters(names, different) == {"z": "a", "y": "b", "x": "c"}


def test_a_model_between_two_others_has_both_letters() -> None:
    assert significance_letters(["x", "y", "z"], [frozenset({"x", "z"})]) == {"x": "a", "y": "ab", "z": "b"}


@given(st.integers(2, 7), st.data())
def test_letters_are_shared_exactly_by_those_that_do_not_differ(size: int, data: st.DataObject) -> None:
    names = [f"m{place}" for place in range(size)]
    pairs = [frozenset(pair) for pair in combinations(names, 2)]
    different = set(data.draw(st.lists(st.sampled_from(pairs))))
    letters = significance_letters(names, different)
    assert all(letters.values())
    for pair in pairs:
        one, other = pair
        assert bool(set(letters[one]) & set(letters[other])) == (pair not in different)
