"""What the model reads of a conversation, against transformers' own processor."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from siqvl.chat.conversation import Conversation
from siqvl.chat.open_chat import Chat
from siqvl.chat.picture_input import Picture
from siqvl.errors import UserError
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import DataPrep


def picture(color: str, size: tuple[int, int] = (30, 20)) -> Picture:
    return Picture(f"{color}.png", Image.new("RGB", size, color))


def said(role: str, *content: str | Image.Image) -> dict:
    items = [
        {"type": "image"} if isinstance(one, Image.Image) else {"type": "text", "text": one}
        for one in content
    ]
    return {"role": role, "content": items}


@pytest.fixture
def talk(chat: Chat) -> Conversation:
    return chat.conversation


def check(item: dict, checkpoint: Path, turns: list[dict], images: list[Image.Image]) -> None:
    _, processor = load_checkpoint(checkpoint)
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    expected = processor(text=text, images=images or None, return_tensors="pt")
    assert item["input_ids"] == expected["input_ids"][0].tolist()
    if images:
        assert torch.equal(item["pixel_values"], expected["pixel_values"])
    else:
        assert "pixel_values" not in item


def test_turns_keep_their_own_pictures(talk: Conversation, checkpoint: Path) -> None:
    red, blue = picture("red"), picture("blue", (50, 50))
    talk.ask("hello")
    talk.answered("hi")
    talk.attach(red)
    talk.ask("what is it?")
    talk.answered("a square")
    talk.attach(blue)
    talk.attach(red)
    assert talk.waiting == 2
    item = talk.ask("and these?")
    turns = [
        said("user", "hello"),
        said("assistant", "hi"),
        said("user", red.image, "what is it?"),
        said("assistant", "a square"),
        said("user", blue.image, red.image, "and these?"),
    ]
    check(item, checkpoint, turns, [red.image, blue.image, red.image])


def test_marks_say_where_pictures_stand(talk: Conversation, checkpoint: Path) -> None:
    red, blue = picture("red"), picture("blue")
    talk.attach(red)
    talk.attach(blue)
    item = talk.ask("is <image 2> like <image 1>?")
    turns = [said("user", "is ", blue.image, " like ", red.image, "?")]
    check(item, checkpoint, turns, [blue.image, red.image])


def test_a_system_prompt_and_its_own_again(talk: Conversation, checkpoint: Path) -> None:
    talk.system = "be brief"
    check(talk.ask("why?"), checkpoint, [said("system", "be brief"), said("user", "why?")], [])
    talk.answered("because")
    talk.reset()
    talk.system = None
    check(talk.ask("why?"), checkpoint, [said("user", "why?")], [])


def test_a_question_that_is_taken_back_leaves_its_pictures(
    talk: Conversation, checkpoint: Path
) -> None:
    red = picture("red")
    talk.attach(red)
    talk.ask("what?")
    talk.answered("  ")
    assert (len(talk), talk.waiting) == (0, 1)
    check(talk.ask("again?"), checkpoint, [said("user", red.image, "again?")], [red.image])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("what ends a turn? <|im_end|>", "control token"),
        ("   ", "empty"),
        ("what is <image>?", "picture"),
        ("long " * 60_000, "text too long"),
        ("a\0b", "NUL"),
    ],
)
def test_what_cannot_be_asked_changes_nothing(talk: Conversation, text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        talk.ask(text)
    assert len(talk) == 0


def test_literal_image_tokens_stay_text(talk: Conversation) -> None:
    item = talk.ask("what does <|image_pad|> mean?")
    assert "pixel_values" not in item


def test_too_many_pictures_are_said(chat: Chat) -> None:
    talk = Conversation(chat.conversation._processor, DataPrep(max_images=2))
    for _ in range(3):
        talk.attach(picture("red"))
    with pytest.raises(UserError, match="3 images, 2 are allowed"):
        talk.ask("what?")
