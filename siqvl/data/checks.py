"""Check one canonical row: what is stored for it, or why it goes into quarantine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from siqvl.data.images import BadRow, stored_image
from siqvl.data.schema import MESSAGE_COLUMNS, Message, Row, RowKind

ROLES = ("system", "user", "assistant")
#: Qwen's turn marks: a tokenizer takes them for real ones wherever they stand.
CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
EVALUATION_TEXTS = ("question", "benchmark", "split")


@dataclass
class Checked:
    """A row as it is stored, with what the manifest counts; or the reason it is refused."""

    id: str
    source: str
    row: Row | None = None
    content: str = ""  # sha256 of texts and images: rows that share it are duplicates
    about: str = ""  # sha256 of source and meta
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height
    prompt_characters: int = 0
    answer_characters: int = 0
    answer: str = ""
    neutralised: int = 0
    reason: str = ""
    detail: str = ""


def check_rows(rows: list[Row], kind: RowKind, max_image_pixels: int) -> list[Checked]:
    """Check some rows, in order (the work of one process)."""
    return [check_row(row, kind, max_image_pixels) for row in rows]


def check_row(row: Row, kind: RowKind, max_image_pixels: int) -> Checked:
    """Check one row; never raises for what is in it."""
    checked = Checked(id=str(row.get("id") or "?"), source=str(row.get("source") or "?"))
    try:
        _fill(checked, row, kind, max_image_pixels)
    except BadRow as error:
        checked.row, checked.reason, checked.detail = None, error.reason, error.detail
    return checked


def _fill(checked: Checked, row: Row, kind: RowKind, max_image_pixels: int) -> None:
    for column in ("id", "source", "meta"):
        _require_text(row.get(column), column)
    images = row.get("images")
    if not isinstance(images, list | tuple):
        raise BadRow("wrong type", f"images is {type(images).__name__}, expected a list")
    stored = [stored_image(image, max_image_pixels) for image in images]
    checked.sizes = [(width, height) for _, width, height in stored]
    good: dict[str, Any] = {}
    if kind is RowKind.EVALUATION:
        _fill_evaluation(checked, good, row)
    else:
        _fill_messages(checked, good, row, kind)
    content = hashlib.sha256(json.dumps(good, sort_keys=True, ensure_ascii=False).encode())
    for data, _, _ in stored:
        content.update(hashlib.sha256(data).digest())
    checked.content = content.hexdigest()
    checked.about = hashlib.sha256(f"{row['source']}\n{row['meta']}".encode()).hexdigest()
    good |= {"source": row["source"], "meta": row["meta"]}
    good["images"] = [{"bytes": data, "path": None} for data, _, _ in stored]
    checked.row = {"id": row["id"], **good}


def _fill_messages(checked: Checked, good: Row, row: Row, kind: RowKind) -> None:
    for column in MESSAGE_COLUMNS[kind]:
        good[column] = _messages(checked, row.get(column), column)
    prompt, *completions = (good[column] for column in MESSAGE_COLUMNS[kind])
    if prompt[-1]["role"] != "user" or any(turn["role"] == "system" for turn in prompt[1:]):
        raise BadRow("wrong roles", "a prompt ends with a user message, system comes first if ever")
    for completion in completions:
        expected = ["assistant", "user"] * len(completion)
        roles = [turn["role"] for turn in completion]
        if roles != expected[: len(roles)] or roles[-1] != "assistant":
            raise BadRow("wrong roles", f"a completion is from the assistant, got {roles}")
    if kind is RowKind.PREFERENCE and good["chosen"] == good["rejected"]:
        raise BadRow("chosen equals rejected")
    checked.prompt_characters = _length(prompt)
    checked.answer_characters = _length(completions[0])
    checked.answer = completions[0][-1]["content"]


def _messages(checked: Checked, messages: Any, column: str) -> list[Message]:
    if not isinstance(messages, list | tuple) or not messages:
        raise BadRow(f"empty {column}", f"got {messages!r}"[:200])
    good = []
    for turn in messages:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise BadRow("wrong type", f"{column} holds {turn!r}, expected role and content"[:200])
        text = _require_text(turn.get("content"), column)
        good.append({"role": turn["role"], "content": _neutralised(checked, text)})
    return good


def _fill_evaluation(checked: Checked, good: Row, row: Row) -> None:
    for column in EVALUATION_TEXTS:
        good[column] = _neutralised(checked, _require_text(row.get(column), column))
    for column in ("answers", "choices"):
        values = row.get(column)
        if not isinstance(values, list | tuple):
            raise BadRow("wrong type", f"{column} is {type(values).__name__}, expected a list")
        good[column] = [_require_text(value, column) for value in values]
    if not good["answers"]:
        raise BadRow("empty answers")
    checked.prompt_characters = len(good["question"])
    checked.answer = good["answers"][0]
    checked.answer_characters = len(checked.answer)


def _require_text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{column} is {type(value).__name__}, expected text")
    if not value.strip():
        raise BadRow(f"empty {column}")
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates cannot be stored
        raise BadRow("invalid text", f"{column} is not valid Unicode") from None
    return value


def _neutralised(checked: Checked, text: str) -> str:
    if "<|" not in text:  # spares the import of transformers in almost every process
        return text
    for token in CONTROL_TOKENS:
        if token in text:
            raise BadRow("control token in text", f"{token} would end or begin a turn")
    from siqvl.model.processing import neutralise_image_tokens

    text, count = neutralise_image_tokens(text)
    checked.neutralised += count
    return text


def _length(messages: Iterable[Message]) -> int:
    return sum(len(turn["content"]) for turn in messages)
