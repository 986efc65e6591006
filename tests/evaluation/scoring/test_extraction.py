"""The answer in a chain of thought."""

import pytest

from siqvl.evaluation.scoring.extraction import extract_answer


@pytest.mark.parametrize(
    ("generation", "answer"),
    [
        ("one and two: 3.\nAnswer: 3", "3"),
        ("Answer: 2? no.\nAnswer: 3", "3"),
        ("one and two and", ""),
        ("Answer:", ""),
        ("**Answer:** two cats", "two cats"),
        ("**Answer: red**", "red"),
        ("So it is.\nAnswer: 3.\nBecause one and two", "3"),
        ("Answer:\n\n3\n", "3"),
        ("Answer: 3.5", "3.5"),
        (r"Answer: $\boxed{3}$", "3"),
        (r"Answer: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"Answer: \boxed{\text{red}}", "red"),
        ("Answer: $5", "$5"),
        ("Answer: `left`", "left"),
    ],
)
def test_what_follows_the_last_marker(generation: str, answer: str) -> None:
    assert extract_answer(generation, "Answer:") == answer


def test_without_a_marker_the_whole_generation_is_the_answer() -> None:
    assert extract_answer(" It is **red**.\n", None) == "It is **red**."


@pytest.mark.parametrize(
    ("generation", "marker", "answer"),
    [
        ("<think>\n\n</think>\n\nred", None, "red"),
        ("<think>\nit is blue\nAnswer: blue\n</think>\n\nAnswer: red", "Answer:", "red"),
        ("<think>\nAnswer: blue\n</think>\n\nred", "Answer:", ""),
        ("<think>\nAnswer: blue", "Answer:", ""),  # thoughts that the limit cut off
        ("<think>\nit is blue", None, ""),
        ("it is blue\n</think>\n\nred", None, "red"),  # of a prompt that opens the block
        ("a < b", None, "a < b"),
    ],
)
def test_thoughts_are_no_part_of_an_answer(generation, marker, answer):
    assert extract_answer(generation, marker) == answer
