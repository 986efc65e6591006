"""Our chat template: where pictures stand, what it refuses, and no system prompt."""

import pytest

from siqvl.model import chat_template
from tests.model.conversations import TOOLS, render, system, user


def test_pictures_stand_where_they_were_put():
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    content = [
        {"type": "image"},
        {"type": "text", "text": "and"},
        {"type": "image", "image": "a.png"},
        {"type": "image_url", "image_url": {"url": "b.png"}},
    ]
    text = render(chat_template(""), [user(content)], add_generation_prompt=True)
    expected = f"<|im_start|>user\n{picture}and{picture * 2}<|im_end|>\n<|im_start|>assistant\n"
    assert text == expected


def test_other_content_is_refused():
    with pytest.raises(Exception, match="of type 'text' or 'image', got video"):
        render(chat_template(), [user([{"type": "video"}])])


def test_system_prompt_empty_leaves_the_turn_out():
    template = chat_template("")
    assert render(template, [user("a")]) == "<|im_start|>user\na<|im_end|>\n"
    own = render(template, [system("Be brief."), user("a")])
    assert own.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert render(template, [user("a")], tools=TOOLS).startswith("<|im_start|>system\n# Tools\n")
