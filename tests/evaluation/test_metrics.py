"""Exact match, answer extraction and intervals against hand-computed values."""

import math

import numpy as np
import pytest

from siqvl.evaluation.metrics import bootstrap_interval, exact_match, extract_answer, normalise


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("  Two  Cats. ", "two cats"), ('"Red"', "red"), ("3.5", "3.5"), ("No", "no"), ("", "")],
)
def test_normalise(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_exact_match_takes_any_accepted_answer() -> None:
    assert exact_match("Red.", ["blue", "red"])
    assert not exact_match("reddish", ["red"])
    assert not exact_match("", ["red"])


@pytest.mark.parametrize(
    ("generation", "marker", "answer"),
    [
        ("blue ", None, "blue"),
        ("one and two: 3.\nAnswer: 3", "Answer:", "3"),
        ("Answer: 2? no.\nAnswer: 3", "Answer:", "3"),
        ("one and two and", "Answer:", ""),
    ],
)
def test_extract_answer(generation: str, marker: str | None, answer: str) -> None:
    assert extract_answer(generation, marker) == answer


def test_an_unanswered_chain_of_thought_is_wrong_even_if_it_names_the_answer() -> None:
    assert not exact_match(extract_answer("3", "Answer:"), ["3"])


def test_interval_is_close_to_the_normal_one_and_reproducible() -> None:
    correct = np.array([1] * 700 + [0] * 300)
    low, high = bootstrap_interval(correct, resamples=20_000)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(0.7 - half, abs=0.003)
    assert high == pytest.approx(0.7 + half, abs=0.003)
    assert bootstrap_interval(correct) == bootstrap_interval(correct)
    assert bootstrap_interval(np.ones(50)) == (1.0, 1.0)
