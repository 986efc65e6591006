"""Conversations as a chat template gets them, and what it makes of one."""

from transformers.utils.chat_template_utils import render_jinja_template

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "count",
            "description": 'Counts "things" & <more>',
            "parameters": {"type": "object", "properties": {"colour": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "crop", "parameters": {}}},
]


def render(template, messages, **options) -> str:
    texts, _ = render_jinja_template([messages], chat_template=template, **options)
    return texts[0]


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def as_lists(messages) -> list[dict]:
    """The same conversation with each text as a list of two items."""
    out = []
    for message in messages:
        message = dict(message)
        text = message.get("content")
        if isinstance(text, str):
            half = len(text) // 2
            pieces = [text[:half], text[half:]] if text else []
            message["content"] = [{"type": "text", "text": piece} for piece in pieces]
        out.append(message)
    return out
