"""`generation_kwargs` as tasks of lmms-eval write them."""

import logging

import pytest

from siqvl.errors import UserError
from siqvl.harness.decoding import Decoding, read_decoding


def read(**values):
    return read_decoding(values, task="t", max_new_tokens=64)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Decoding(64)),
        ({"until": ["\n\n"], "do_sample": False}, Decoding(64, 0.0, ("\n\n",))),
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1},
            Decoding(16),
        ),
        # where the likeliest token is taken, what shapes a distribution has no meaning
        ({"temperature": 0, "do_sample": False, "top_p": 0, "top_k": 1}, Decoding(64)),
        ({"temperature": 0.7}, Decoding(64, 0.7)),
        ({"temperature": 0.7, "do_sample": True, "top_p": None}, Decoding(64, 0.7)),
        ({"temperature": 0.7, "do_sample": False}, Decoding(64)),
        ({"do_sample": True}, Decoding(64, 1.0)),
        ({"until": ""}, Decoding(64)),
        ({"until": None}, Decoding(64)),
        ({"until": ["", "A:"]}, Decoding(64, 0.0, ("A:",))),
        ({"max_new_tokens": None}, Decoding(64)),
        ({"max_new_tokens": 32.0}, Decoding(32)),
    ],
)
def test_values(values, expected):
    assert read(**values) == expected


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"max_new_tokens": "many"}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"until": 3}, "until"),
        ({"until": [3]}, "until"),
        ({"num_beams": 4}, "num_beams"),
        ({"repetition_penalty": 1.2}, "repetition_penalty"),
        ({"temperature": 1, "top_p": 0.9}, "top_p"),
        ({"do_sample": True, "top_k": 5}, "top_k"),
    ],
)
def test_what_is_not_done_is_one_sentence_that_names_the_key(values, key):
    with pytest.raises(UserError, match=rf"^task t: {key} is ") as error:
        read(**values)
    assert "\n" not in error.value.message


def test_keys_that_are_not_known_are_told(caplog):
    with caplog.at_level(logging.WARNING):
        read(image_aspect_ratio="pad", temperature=0)
    assert "task t: not known, and left aside: image_aspect_ratio" in caplog.text


@pytest.mark.parametrize(
    ("until", "answer", "kept"),
    [
        ((), "a\n\nb", "a\n\nb"),
        (("\n\n",), "a\n\nb", "a"),
        (("\n\n",), "a\nb", "a\nb"),
        (("b", "a "), "c a b", "c"),
        (("Q:",), "red Q: next", "red"),
        (("\n\n",), "<think>\n\n</think>\n\na\n\nb", "a"),
        ((), "<think>\nwhy\n</think>\n\nb", "b"),
    ],
)
def test_an_answer_ends_before_the_first_stop(until, answer, kept):
    assert Decoding(4, 0.0, until).cut(answer) == kept
