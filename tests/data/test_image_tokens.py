"""Marks of pictures in texts: counted, put in order, in one form."""

import re

import pytest

from siqvl.data.image_tokens import marked, without_marks
from siqvl.data.schema import REASONING_PROMPT


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["What?"], ["What?"]),
        # all at the very beginning: pictures stand there anyway
        (["<image>\nWhat?"], ["What?"]),
        (["<image> <image>\n\nWhich?", "Why?"], ["Which?", "Why?"]),
        # nothing else is said: the mark stays
        (["<image>"], ["<image>"]),
        ([" <image>\n<image> "], ["<image><image>"]),
        # elsewhere marks stay; white space goes at the ends of a turn, and nowhere else
        (["What is it?\n<image>"], ["What is it?<image>"]),
        (["A: <image> B:  <image> Which?"], ["A: <image> B:  <image> Which?"]),
        (["<image>\nWhat?", "<image>\nAnd this?"], ["<image>What?", "<image>And this?"]),
        (["Look.", "<image>"], ["Look.", "<image>"]),
        (["<image>\nthis, not that:\n<image>"], ["<image>this, not that:<image>"]),
        # what is asked for at the end is not what the turn says
        (["What?\n<image>" + REASONING_PROMPT], ["What?<image>" + REASONING_PROMPT]),
        (["<image>" + REASONING_PROMPT], ["<image>" + REASONING_PROMPT]),
    ],
)
def test_marks_have_one_form(texts: list[str], expected: list[str]) -> None:
    count = sum(text.count("<image>") for text in texts)
    assert marked(texts, count) == (expected, None)
    assert marked(expected, sum(text.count("<image>") for text in expected)) == (expected, None)


@pytest.mark.parametrize(
    ("texts", "expected", "order"),
    [
        (["<image 1> What?"], ["What?"], [0]),
        (["<image2>, or <image_1>?"], ["<image>, or <image>?"], [1, 0]),
        (["In <image 1>, where?", "<image 1> or <image 2>"], None, [0, 1]),
        (["<image 3><image 1><image 2>Which?"], ["Which?"], [2, 0, 1]),
    ],
)
def test_numbered_marks_order_the_pictures(texts, expected, order) -> None:
    found, places = marked(texts, len(order))
    assert found == (expected or ["In <image>, where?", "<image 1> or<image>"])
    assert places == order


@pytest.mark.parametrize(
    ("text", "pictures", "reason"),
    [
        ("<image>", 0, "1 <image> marks in its text, but 0 pictures"),
        ("<image> <image>", 1, "2 <image> marks in its text, but 1 pictures"),
        ("<image 1>", 0, "1 numbered marks in its text (<image 1>), but 0 pictures: "),
        ("<image 1> <image1>", 2, "1 numbered marks in its text (<image 1>, <image1>), but 2 "),
        ("<image 0> <image 1>", 2, "2 numbered marks in its text (<image 0>, <image 1>), but 2 "),
        ("<image 2>", 1, "1 numbered marks in its text (<image 2>), but 1 pictures: "),
        ("<image> <image 1>", 2, "1 <image> marks in its text beside 1 numbered ones, and 2 pic"),
    ],
)
def test_marks_that_do_not_fit_say_both_counts(text: str, pictures: int, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        marked([text], pictures)


def test_other_angle_brackets_are_text() -> None:
    text = "<img> <Image> <image href='x'/> <image-1> <image 1234> </image>"
    assert marked([text], 1) == ([text], None)


def test_a_long_run_of_space_takes_no_longer_than_its_length() -> None:
    text = "What?" + " " * 150_000 + "here <image>" + "\n" * 150_000 + "<image>"
    assert len(marked([text], 2)[0][0]) < len(text) - 100_000


def test_a_text_is_asked_without_its_marks() -> None:
    assert without_marks("What is it?<image>") == "What is it?"
    assert without_marks("A: <image> B: <image> Which?") == "A: B: Which?"
    assert without_marks("A. <image>\nB. <image>\nName one.") == "A. \nB. \nName one."
    assert without_marks(" as it is ") == " as it is "
