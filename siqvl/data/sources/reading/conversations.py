"""Published conversations -> prompt and completion messages; answers with LLaVA-CoT's tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from siqvl.composed_text import composed
from siqvl.data.schema import REASONING_PROMPT, Message, message, reasoned_answer
from siqvl.data.sources.formats.table_file import DamagedRecord
from siqvl.data.sources.reading.turns import Turn, read_conversation

CONCLUSION = re.compile(r"<CONCLUSION>(.*?)</CONCLUSION>", re.DOTALL)
STEP = re.compile(r"<(SUMMARY|CAPTION|REASONING)>(.*?)</\1>", re.DOTALL)


def split_turns(
    turns: Any, column: str, *, is_asked: bool = False
) -> tuple[list[Turn], list[Turn]]:
    """Earlier turns and the last question as the prompt, the last answer as the completion.

    What is said after the last answer is left out: there is nothing to learn from it.

    Args:
        turns: a published conversation.
        column: where it stands, for the reasons.
        is_asked: whether something else is asked, so that it may begin with its last answer.

    Raises:
        DamagedRecord: it is no conversation, or nothing in it is answered; its text says why.
    """
    read = read_conversation(turns, column)
    answers = [number for number, turn in enumerate(read) if turn.role == "assistant"]
    if not answers:
        raise DamagedRecord(f"{column} has no turn of the assistant: nothing is answered")
    if not answers[-1] and not is_asked:
        raise DamagedRecord(f"{column} begins with its last answer: nothing is asked")
    return read[: answers[-1]], read[answers[-1] : answers[-1] + 1]


def messages_of(turns: Sequence[Turn]) -> list[Message]:
    """The canonical messages of some turns."""
    return [turn.message for turn in turns]


def clean(text: Any) -> str:
    """Composed text without the white space around it; empty for anything that is no text."""
    return composed(text.strip()) if isinstance(text, str) else ""


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
