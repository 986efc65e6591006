"""A request's text marks its picture as a prepared row's does."""

import base64
from typing import Any

import pytest

from siqvl.data.encode import encode_prompt
from siqvl.errors import UserError
from siqvl.serving.requests import read_request
from siqvl.serving.settings import ServingSettings
from tests.data.conftest import make_processor, small_tokenizer
from tests.data.made_pictures import picture

SETTINGS = ServingSettings(
    max_new_tokens=8,
    batch_size=2,
    max_rows=4,
    max_image_pixels=10_000,
    max_characters=1_000,
    attention="sdpa",
)
IMAGE = base64.b64encode(picture("red")).decode()


def asked(row: dict[str, Any]) -> list[str]:
    (found,) = read_request([{"image": IMAGE} | row], SETTINGS)
    assert len(found["images"]) == 1
    return [turn["content"] for turn in found["prompt"]]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What?", "What?"),
        ("<image>\nWhat?", "What?"),
        ("What is it?\n<image>", "What is it?<image>"),
        ("In <image 1>, what is it?", "In <image>, what is it?"),
        ("<image>", "<image>"),
    ],
)
def test_a_question_marks_the_place_of_its_picture(question: str, expected: str) -> None:
    assert asked({"question": question}) == [expected]


def test_a_later_turn_marks_it() -> None:
    processor = make_processor(small_tokenizer())
    said = [("user", "Hi."), ("assistant", "Hello."), ("user", "<image>\nWhat?")]
    messages = [{"role": role, "content": text} for role, text in said]
    (row,) = read_request([{"image": IMAGE, "messages": messages}], SETTINGS)
    by_hand = [*messages[:-1], {"role": "user", "content": [{"type": "image"}]}]
    by_hand[-1]["content"].append({"type": "text", "text": "What?"})
    text = processor.apply_chat_template(by_hand, add_generation_prompt=True)
    expected = processor(text=text, images=row["images"])["input_ids"][0]
    assert encode_prompt(row, processor).input_ids == expected


def test_more_marks_than_pictures_are_refused() -> None:
    with pytest.raises(UserError) as error:
        asked({"question": "<image> or <image>?"})
    assert error.value.message == "row 1: 2 <image> marks in its text, but 1 pictures"
