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
