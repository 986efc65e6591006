"""Options by letter: how they are listed."""

import pytest

from siqvl.data.schema import with_options
from siqvl.evaluation.letters import lettered, letters


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


def test_options_that_the_question_lists_with_their_letters_are_not_listed_again() -> None:
    own = "Which?\nChoices:\n(A) red\n(B) blue"
    stored = with_options(own, ["red", "blue"])
    assert lettered(stored, ["red", "blue"], request="") == own
    assert lettered(stored, ["red", "blue"]) == f"{own}\nAnswer with the letter."
    # and neither are letters alone, which stand in the question or in the picture
    assert lettered(with_options("Which?", ["A", "B"]), ["A", "B"], request="") == "Which?"
    assert lettered("Which?", ["B", "A"], request="") == "Which?\nA. B\nB. A"
