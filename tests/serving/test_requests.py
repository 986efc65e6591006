"""A request's text marks its pictures as a prepared row's does, and their pixels are summed up."""

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


def test_numbered_marks_put_pictures_in_their_order() -> None:
    colors = [IMAGE, base64.b64encode(picture("blue")).decode()]
    row = {"images": colors, "question": "Is <image 2> darker than <image 1>?"}
    (found,) = read_request([row], SETTINGS)
    assert [turn["content"] for turn in found["prompt"]] == ["Is <image> darker than <image>?"]
    assert [one.getpixel((0, 0)) for one in found["images"]] == [(0, 0, 255), (255, 0, 0)]


def test_pictures_are_kept_as_small_as_the_tower_reads() -> None:
    processor = make_processor(small_tokenizer()).image_processor
    (found,) = read_request([{"image": IMAGE, "question": "What?"}], SETTINGS, processor)
    (whole,) = read_request([{"image": IMAGE, "question": "What?"}], SETTINGS)
    assert whole["images"][0].size == (8, 8)
    assert found["images"][0].size == (processor.size["width"], processor.size["height"])


def test_pixels_of_a_request_are_summed_up() -> None:
    three = SETTINGS.model_copy(update={"max_request_pixels": 3 * 2**20})
    row = {"image": IMAGE, "question": "What?"}
    assert len(read_request([row] * 3, three)) == 3
    with pytest.raises(UserError) as error:
        read_request([row] * 4, three)
    assert error.value.message == (
        "row 4: with this row the pictures of the request have 4,194,304 pixels (a small one "
        "counts as 1,048,576), at most 3,145,728 are read; send fewer rows at a time, or smaller "
        "pictures"
    )


def test_settings_of_models_of_before_are_read() -> None:
    """They were registered without the keys that came later."""
    old = {
        key: value
        for key, value in SETTINGS.model_dump().items()
        if key not in ("max_request_pixels", "precision")
    }
    read = ServingSettings.model_validate(old)
    assert (read.max_request_pixels, read.precision) == (10**9, "fp32")
