"""Published conversations -> prompt and completion messages.

Two shapes are in use: turns of `{"user": …, "assistant": …}` (FineVision, the Cauldron) and
messages of `{"from": "human"/"gpt", "value": …}` or `{"role": …, "content": …}` (LLaVA).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from siqvl.data.schema import REASONING_PROMPT, Message, message, reasoned_answer

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
PLACEHOLDER = re.compile(r"<image>\s?")  # LLaVA's mark of where an image goes; ours go first
CONCLUSION = re.compile(r"<CONCLUSION>(.*?)</CONCLUSION>", re.DOTALL)
STEP = re.compile(r"<(SUMMARY|CAPTION|REASONING)>(.*?)</\1>", re.DOTALL)


def split_turns(turns: Any) -> tuple[list[Message], list[Message]]:
    """Earlier turns and the last question as the prompt, the last answer as the completion.

    Anything that is no conversation comes back empty; preparation then quarantines the row.
    """
    messages = _messages(turns if isinstance(turns, list | tuple) else [])
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    return messages[:-1], messages[-1:]


def _messages(turns: Sequence[Any]) -> list[Message]:
    messages = []
    for turn in turns:
        if not isinstance(turn, dict):
            return []
        if "assistant" in turn:
            messages.append(message("user", clean(turn.get("user"))))
            messages.append(message("assistant", clean(turn["assistant"])))
        else:
            role = ROLES.get(str(turn.get("from") or turn.get("role")))
            if role is None:
                return []
            messages.append(message(role, clean(turn.get("value") or turn.get("content"))))
    return messages


def image_marks(turns: Any) -> int:
    """How many <image> marks a conversation has."""
    texts = (
        turn.get(key)
        for turn in (turns if isinstance(turns, list | tuple) else [])
        if isinstance(turn, dict)
        for key in ("value", "content", "user")
    )
    return sum(len(PLACEHOLDER.findall(text)) for text in texts if isinstance(text, str))


def clean(text: Any) -> str:
    """Text without image marks; empty for anything that is no text."""
    return PLACEHOLDER.sub("", text).strip() if isinstance(text, str) else ""


def tagged_reasoning(text: str) -> tuple[str, str] | None:
    """Reasoning and answer of a completion in LLaVA-CoT's tags; None if it has none."""
    conclusion = CONCLUSION.search(text)
    if not conclusion:
        return None
    steps = [step.strip() for _, step in STEP.findall(text)]
    return "\n".join(step for step in steps if step), conclusion.group(1).strip()


def untagged(messages: list[Message], *, reasoned: bool = True) -> list[Message]:
    """Rewrite answers with LLaVA-CoT's tags as `reasoned_answer` does; the others stay as they are.

    Args:
        reasoned: steps, then the marked answer, asked for with REASONING_PROMPT; or the answer
            alone, as is.
    """
    done: list[Message] = []
    for turn in messages:
        parts = tagged_reasoning(turn["content"]) if turn["role"] == "assistant" else None
        if parts is None:
            done.append(turn)
            continue
        steps, answer = parts
        if not (reasoned and steps and answer):
            done.append(message("assistant", answer))
            continue
        if done and done[-1]["role"] == "user":
            done[-1] = message("user", done[-1]["content"] + REASONING_PROMPT)
        done.append(message("assistant", reasoned_answer(steps, answer)))
    return done
