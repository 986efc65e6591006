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
