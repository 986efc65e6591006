"""Canonical rows: what every source yields and every stage reads.

Messages are conversational (`{"role": …, "content": …}`) with plain string content. In a user's
message, and in a question, `<image>` marks the place of a picture, one mark a picture, in order;
where a row has no marks its images are put before the text of its first user message when it is
rendered. (`siqvl.data.image_tokens` brings published marks into this form.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

SCHEMA_VERSION = 2

#: Appended to a question whose answer shall come after written reasoning.
REASONING_PROMPT = "\nThink step by step, then answer after 'Answer:'."
#: The answer of such a completion is the text after its last marker.
ANSWER_MARKER = "Answer:"
#: A row has to have an answer; where none is known, or it is yet to come, this one stands for it.
TO_COME = "…"


class RowKind(StrEnum):
    """The three shapes a canonical row comes in."""

    SFT = "sft"  # prompt, completion
    PREFERENCE = "preference"  # prompt, chosen, rejected
    EVALUATION = "evaluation"  # question, answers, choices


Row = dict[str, Any]
Message = dict[str, str]

#: The message columns of each kind, and of these the ones that are completions.
MESSAGE_COLUMNS = {
    RowKind.SFT: ("prompt", "completion"),
    RowKind.PREFERENCE: ("prompt", "chosen", "rejected"),
    RowKind.EVALUATION: (),
}


def message(role: str, content: str) -> Message:
    """One conversational message."""
    return {"role": role, "content": content}


def reasoned_answer(reasoning: str, answer: str) -> str:
    """A chain-of-thought completion: the reasoning, then the marked answer."""
    return f"{reasoning.strip()}\n{ANSWER_MARKER} {answer}"


def with_options(question: str, options: Sequence[str], *, by_letter: bool = False) -> str:
    """A multiple-choice question; unchanged when there is nothing to choose from.

    Options stand in one line, `Options: red, blue`; one a line with letters (numbers, where there
    are more than 26) if one of them holds a comma or a line break, so that it is clear where each
    ends, and if they are to be named by letters.
    """
    if not options:
        return question
    if not by_letter and not any("," in option or "\n" in option for option in options):
        return f"{question}\nOptions: {', '.join(options)}"
    named = zip(option_names(len(options)), options, strict=True)
    return "\n".join([question, "Options:", *(f"{name}. {option}" for name, option in named)])


def option_names(count: int) -> list[str]:
    """What so many options are called in a listing: letters; numbers where these do not do."""
    if count <= len(ascii_uppercase):
        return list(ascii_uppercase[:count])
    return [str(number) for number in range(1, count + 1)]


def lists_options(question: str, options: Sequence[str]) -> bool:
    """Whether a question ends with a listing of its options, in either form."""
    return any(
        question.endswith(with_options("", options, by_letter=by_letter))
        for by_letter in (False, True)
    )


def sft_row(
    id: str,
    images: list[Any],
    prompt: str | list[Message],
    completion: str | list[Message],
    *,
    source: str,
    **meta: Any,
) -> Row:
    """A supervised row; a plain string stands for the one user or assistant message."""
    turns = {"prompt": _messages("user", prompt), "completion": _messages("assistant", completion)}
    return _row(id, images, turns, source, meta)


def preference_row(
    id: str,
    images: list[Any],
    prompt: str | list[Message],
    chosen: str | list[Message],
    rejected: str | list[Message],
    *,
    source: str,
    **meta: Any,
) -> Row:
    """A preference row; `chosen` and `rejected` answer the same prompt."""
    turns = {
        "prompt": _messages("user", prompt),
        "chosen": _messages("assistant", chosen),
        "rejected": _messages("assistant", rejected),
    }
    return _row(id, images, turns, source, meta)


def evaluation_row(
    id: str,
    images: list[Any],
    question: str,
    answers: list[str],
    *,
    choices: Sequence[str] = (),
    benchmark: str,
    split: str,
    source: str,
    **meta: Any,
) -> Row:
    """A question with every answer that counts as right (ten of them in VQAv2)."""
    asked = {"question": question, "answers": answers, "choices": list(choices)}
    return _row(id, images, asked | {"benchmark": benchmark, "split": split}, source, meta)


def left_out_row(id: str, reason: str, *, source: str) -> Row:
    """A published row that its source leaves out on purpose (a rating below the minimum).

    It is counted by reason, and is no bad row.
    """
    return {"id": id, "source": source, "left_out": reason}


def _messages(role: str, content: str | list[Message]) -> list[Message]:
    return [message(role, content)] if isinstance(content, str) else content


def _row(id: str, images: list[Any], columns: Row, source: str, meta: dict[str, Any]) -> Row:
    about = json.dumps(meta, sort_keys=True, ensure_ascii=False, default=str)
    return {"id": id, "images": images, **columns, "source": source, "meta": about}


def features(kind: RowKind) -> Features:
    """Arrow columns of a kind of row.

    `images` are stored encoded (PNG or JPEG bytes); `image_hashes`, which preparation adds, are
    their `siqvl.data.preparation.images.pixel_hash`es, one for each and in their order.
    """
    from datasets import Features, Image, List, Value

    text = Value("string")
    columns: dict[str, Any] = {"id": text, "images": List(Image()), "image_hashes": List(text)}
    columns |= dict.fromkeys(MESSAGE_COLUMNS[kind], List({"role": text, "content": text}))
    if kind is RowKind.EVALUATION:
        columns |= {"question": text, "answers": List(text), "choices": List(text)}
        columns |= {"benchmark": text, "split": text}
    return Features(columns | {"source": text, "meta": text})


def arrow_schema(kind: RowKind) -> pa.Schema:
    """The columns of `features` without `datasets`: it takes each worker two seconds to import."""
    import pyarrow as pa

    text = pa.string()
    images = pa.list_(pa.struct({"bytes": pa.binary(), "path": text}))
    columns: dict[str, pa.DataType] = {"id": text, "images": images, "image_hashes": pa.list_(text)}
    turns = pa.list_(pa.struct({"role": text, "content": text}))
    columns |= dict.fromkeys(MESSAGE_COLUMNS[kind], turns)
    if kind is RowKind.EVALUATION:
        columns |= {"question": text, "answers": pa.list_(text), "choices": pa.list_(text)}
        columns |= {"benchmark": text, "split": text}
    return pa.schema(columns | {"source": text, "meta": text})
