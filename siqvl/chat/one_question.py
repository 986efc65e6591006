"""One question and its answer, for scripts: standard output holds the answer alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TextIO

from siqvl.chat.conversation import Conversation
from siqvl.chat.picture_input import Picture
from siqvl.chat.spoken import Spoken, printable, speak
from siqvl.generation.engine import Engine
from siqvl.generation.request import Sampling


def ask_once(
    engine: Engine,
    conversation: Conversation,
    pictures: Sequence[Picture],
    question: str,
    sampling: Sampling,
    out: TextIO,
    *,
    as_json: bool = False,
) -> Spoken:
    """Writes the answer as it comes, and a line break; or all of it as one line of JSON.

    Raises:
        UserError: it cannot be answered.
    """
    for picture in pictures:
        conversation.attach(picture)
    item, spoken = conversation.ask(question), Spoken()
    is_terminal = out.isatty()

    def show(text: str) -> None:
        if text and not as_json:
            out.write(printable(text) if is_terminal else text)
            out.flush()

    speak(engine, item, sampling, spoken, show)
    if as_json:
        found = {
            "answer": spoken.text,
            "finish": spoken.finish,
            "prompt_tokens": len(item["input_ids"]),
            "tokens": spoken.tokens,
            "seconds": round(spoken.seconds, 3),
        }
        out.write(json.dumps(found, ensure_ascii=False))
    out.write("\n")
    out.flush()
    return spoken
