"""Our chat template against Qwen2.5's own file: equal on every text-only conversation."""

import json
import os
from itertools import product

import pytest

from siqvl.model import chat_template
from tests.model.conversations import TOOLS, as_lists, assistant, render, system, user

if "SIQVL_REAL_DATA" not in os.environ:
    reason = "SIQVL_REAL_DATA is not set: Qwen's own templates are not in the repository"
    pytest.skip(reason, allow_module_level=True)

QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@pytest.fixture(scope="module")
def qwen(real_data) -> str:
    path = real_data / "qwen2.5_tokenizer" / "tokenizer_config.json"
    return json.loads(path.read_text(encoding="utf-8"))["chat_template"]


def tool(text):
    return {"role": "tool", "content": text}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "one question": [user("What?")],
    "question and answer": [user("What?"), assistant("A square.")],
    "three turns": [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    "system": [system("Be brief."), user("What?")],
    "system with turns": [system("Be brief."), user("a"), assistant("b"), user("c")],
    "empty system": [system(""), user("What?")],
    "late system": [user("a"), system("Now be brief."), assistant("b")],
    "two systems": [system("one"), system("two"), user("a")],
    "empty texts": [user(""), assistant("")],
    "white space": [user("  a\n\n"), assistant("\n b \t")],
    "unicode": [user("Äpfel 🦙 中文 \u200b"), assistant("نص")],
    "markup": [user("{{ messages }} {% if %} <b>&amp;</b> 'x' \"y\""), assistant("\\n \\u00e4")],
    "special tokens": [user("<|im_end|> <|endoftext|>"), assistant("<tool_call>")],
    "assistant first": [assistant("Hello."), user("a")],
    "tool call": [user("a"), assistant("", tool_calls=[call("count", colour="red")])],
    "tool call with text": [user("a"), assistant("Wait.", tool_calls=[call("count", colour="ü")])],
    "two tool calls": [
        user("a"),
        assistant("", tool_calls=[call("count", colour="red"), call("crop", x=[1, 2.5, None])]),
        tool("3"),
        tool("done"),
        assistant("Three."),
    ],
    "two tool calls with text": [
        user("a"),
        assistant("Wait.", tool_calls=[call("count"), call("crop")]),
        tool("3"),
        user("b"),
        tool("4"),
    ],
    "bare tool call": [user("a"), assistant("", tool_calls=[{"name": "count", "arguments": {}}])],
    "no content": [user("a"), {"role": "assistant", "tool_calls": [call("count")]}],
    "empty tool calls": [user("a"), assistant("b", tool_calls=[])],
    "unknown role": [user("a"), {"role": "critic", "content": "b"}],
    "tool first": [tool("x"), tool("y"), user("a")],
}


@pytest.mark.parametrize(
    ("name", "tools", "prompt"), list(product(CONVERSATIONS, [None, TOOLS], [True, False]))
)
def test_text_renders_as_qwens(qwen, name, tools, prompt):
    messages = CONVERSATIONS[name]
    options = dict(tools=tools, add_generation_prompt=prompt)
    expected = render(qwen, messages, **options)
    assert render(chat_template(), messages, **options) == expected
    assert render(chat_template(), as_lists(messages), **options) == expected


def test_qwens_file_holds_the_default_system_message(qwen):
    assert QWEN_SYSTEM in qwen
    assert QWEN_SYSTEM in chat_template()


def test_pictures_render_as_in_qwen2_5_vl(real_data):
    """Qwen2.5-VL's template is the published wording for pictures; its default system differs."""
    path = real_data / "model_configs" / "Qwen2.5-VL.chat_template.json"
    reference = json.loads(path.read_text())["chat_template"]
    messages = [
        system("Be brief."),
        user([{"type": "image"}, {"type": "text", "text": "What?"}, {"type": "image"}]),
        assistant([{"type": "text", "text": "A square."}]),
        user("And now?"),
    ]
    for prompt in (True, False):
        expected = render(reference, messages, add_generation_prompt=prompt)
        assert render(chat_template(), messages, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "You look at pictures.",
        "quotes \" and ' and \\",
        "two\nlines\t",
        "ä 中 🦙",
        "{{ x }} {% y %}",
    ],
)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_system_prompt_is_baked_in(qwen, prompt, tools):
    expected = render(qwen, [system(prompt), user("a")], tools=tools)
    assert render(chat_template(prompt), [user("a")], tools=tools) == expected
    own = [system("Be brief."), user("a")]
    assert render(chat_template(prompt), own, tools=tools) == render(qwen, own, tools=tools)
