"""Options by letter: how they are listed, and which one a text means."""

import pytest

from siqvl.data.schema import with_options
from siqvl.evaluation.letters import chosen_letter, lettered, letters

COLORS = ["red", "blue", "dark red", "teal"]


def test_letters() -> None:
    assert letters(3) == ["A", "B", "C"]
    assert letters(26)[-1] == "Z"
    with pytest.raises(ValueError, match="27 options are more than the alphabet has"):
        letters(27)


def test_options_are_listed_once() -> None:
    expected = "Which?\nA. red\nB. blue\nAnswer with the letter."
    assert lettered("Which?", ["red", "blue"]) == expected
    assert lettered(with_options("Which?", ["red", "blue"]), ["red", "blue"]) == expected
    assert lettered("Which?", []) == "Which?"


@pytest.mark.parametrize(
    ("generation", "option"),
    [
        # a letter
        ("B", "blue"),
        ("b", "blue"),
        ("(B)", "blue"),
        ("B.", "blue"),
        ("**B**", "blue"),
        ("E", ""),
        # an option
        ("Blue.", "blue"),
        ("dark  red", "dark red"),
        # a letter set off
        ("B. blue", "blue"),
        ("B) because it is", "blue"),
        ("(A) because it is not blue", "red"),
        ("B. red", ""),
        ("A: blue", ""),
        ("E. green", ""),
        # said to be the answer
        ("Answer: B", "blue"),
        ("The answer is (b).", "blue"),
        ("The answer is **B**", "blue"),
        ("**Answer:** D, not A", "teal"),
        ("I choose option C because", "dark red"),
        ("The answer is A or the answer is B.", ""),
        ("The answer is B or C.", ""),
        ("The answer is a red ball", "red"),
        # mentioned
        ("It is a dark red ball.", "dark red"),
        ("A blue ball", "blue"),
        ("red or blue", ""),
        ("reddish", ""),
        ("I think B", "blue"),
        ("I think it is A.", "red"),
        ("B, so blue", "blue"),
        ("B, so red", ""),
        ("B, I think.", "blue"),
        ("A or B", ""),
        ("A, B and D", ""),
        ("A dog in a T-shirt", ""),
        ("", ""),
    ],
)
def test_the_option_a_text_means(generation: str, option: str) -> None:
    assert chosen_letter(generation, COLORS) == option


@pytest.mark.parametrize(
    ("generation", "option"),
    [("3", "3"), ("3.", "3"), ("There are 13.", "13"), ("3.5", ""), ("B", "3"), ("about 5", "")],
)
def test_numbers_are_whole_words(generation: str, option: str) -> None:
    assert chosen_letter(generation, ["13", "3"]) == option


def test_options_that_are_letters_are_chosen_by_their_place() -> None:
    assert chosen_letter("B", ["B", "A"]) == "A"
    assert chosen_letter("vitamin C", ["vitamin C", "vitamin A", "vitamin B"]) == "vitamin C"


def test_without_options_nothing_is_chosen() -> None:
    assert chosen_letter("A", []) == ""
