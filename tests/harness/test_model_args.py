"""`--model_args`, as lmms-eval hands them over."""

import pytest

from siqvl.errors import UserError
from siqvl.harness.model_args import ModelArgs, read_model_args


def test_what_is_left_out_has_a_default():
    assert read_model_args({"pretrained": "a"}) == ModelArgs(
        pretrained="a",
        attention="sdpa",
        max_new_tokens=1024,
        seed=0,
        batch_size=1,
        device=None,
    )


def test_values_are_those_of_a_command_line():
    """The command's own options come as text, and a folder that is called 12 as a number."""
    args = read_model_args({"pretrained": 12, "batch_size": "8", "device": "cpu"})
    assert (args.pretrained, args.batch_size, args.device) == ("12", 8, "cpu")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({}, "missing key `pretrained`"),
        ({"pretrained": "a", "max_new_token": 4}, "did you mean `max_new_tokens`?"),
        ({"pretrained": "a", "batch_size": "auto"}, "`batch_size`"),
        ({"pretrained": "a", "max_new_tokens": 0}, "`max_new_tokens`"),
        ({"pretrained": "a", "attention": "flash_attention_2"}, "`attention`"),
    ],
)
def test_a_bad_one_is_one_sentence_that_names_its_key(values, key):
    with pytest.raises(UserError, match=r"^model_args: ") as error:
        read_model_args(values)
    assert key in error.value.message
    assert "\n" not in error.value.message
