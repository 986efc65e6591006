"""Check one canonical row: what is stored for it, or why it goes into quarantine."""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import dataclass, field
from typing import Any

from siqvl.composed_text import composed
from siqvl.data.image_tokens import count_marks, neutralise_image_tokens
from siqvl.data.preparation.images import BadRow, stored_image
from siqvl.data.schema import MESSAGE_COLUMNS, Message, Row, RowKind
from siqvl.errors import without_addresses
from siqvl.recipe import DataPrep

VERSION = 2  # of what is found out about a row; 1 left texts as they were encoded
ROLES = ("system", "user", "assistant")
#: Qwen's turn marks: a tokenizer takes them for real ones wherever they stand.
CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
EVALUATION_TEXTS = ("question", "benchmark", "split")
SHOWN_OBJECT = 60  # characters of an object that is no text, number or list
SHOWN_CHARACTERS = 200  # of an id, a source or a detail of a refused row


@dataclass
class Checked:
    """A row as it is stored, with what the manifest counts; or the reason it is not."""

    id: str
    source: str
    row: Row | None = None
    texts: str = ""  # sha256 of the texts that are learnt from or asked
    about: str = ""  # sha256 of source and meta
    image_hashes: list[str] = field(default_factory=list)
    thumbnails: bytes = b""  # 192 bytes an image
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height
    stored_bytes: int = 0  # of pictures and texts
    prompt_characters: int = 0
    answer_characters: int = 0
    answer: str = ""
    neutralised: int = 0
    left_out: str = ""  # why its source leaves the row out on purpose
    reason: str = ""  # why the row goes into quarantine
    detail: str = ""

    @property
    def content(self) -> str:
        """sha256 of texts and pictures, as hex: rows that share it are duplicates."""
        return hashlib.sha256("\n".join([self.texts, *self.image_hashes]).encode()).hexdigest()


def check_row(row: Row, kind: RowKind, data: DataPrep) -> Checked:
    """Check one row; never raises for what is in it."""
    checked = Checked(id="?", source="?")
    try:
        if not isinstance(row, dict):
            raise BadRow("wrong type", f"row is {type(row).__name__}, expected an object")
        checked.id, checked.source = _name(row.get("id")), _name(row.get("source"))
        if "left_out" in row:
            checked.left_out = _name(row["left_out"])
            return checked
        if "damaged" in row:
            raise BadRow("damaged record", _name(row["damaged"]))
        _fill(checked, row, kind, data)
    except BadRow as error:
        checked.row, checked.reason = None, error.reason
        checked.detail = _name(error.detail) if error.detail else ""
    except Exception as error:  # an object whose own methods raise, nesting beyond the stack …
        checked.row, checked.reason = None, "unexpected content"
        checked.detail = _name(without_addresses(f"{type(error).__name__}: {error}"))
    return checked


def check_prompt(messages: Any, pictures: int, data: DataPrep) -> list[Message]:
    """Checks a conversation that is to be answered, and the number of its pictures.

    Returns:
        Its messages as they would be stored.

    Raises:
        BadRow: it would go into quarantine.
    """
    if pictures > data.max_images:
        raise BadRow("too many images", f"{pictures} images, {data.max_images} are allowed")
    good = _messages(Checked("?", "?"), messages, "messages")
    _check_order(good, "messages end")
    _check_marks([turn["content"] for turn in good if turn["role"] == "user"], pictures)
    if (characters := _characters(good)) > data.max_characters:
        raise BadRow(
            "text too long", f"{characters} characters in all, {data.max_characters} are allowed"
        )
    return good


def _fill(checked: Checked, row: Row, kind: RowKind, data: DataPrep) -> None:
    texts = {column: _text(row.get(column), column) for column in ("id", "source", "meta")}
    _check_json(texts["meta"])
    images = row.get("images")
    if not isinstance(images, list | tuple):
        raise BadRow("wrong type", f"images is {type(images).__name__}, expected a list")
    if len(images) > data.max_images:
        raise BadRow("too many images", f"{len(images)} images, {data.max_images} are allowed")
    good: dict[str, Any] = {}
    if kind is RowKind.EVALUATION:
        _fill_evaluation(checked, good, row)
        _check_marks([good["question"]], len(images))
    else:
        _fill_messages(checked, good, row, kind)
        prompt, *completions = (good[column] for column in MESSAGE_COLUMNS[kind])
        for completion in completions:
            turns = [*prompt, *completion]
            _check_marks([turn["content"] for turn in turns if turn["role"] == "user"], len(images))
    content = json.dumps(good, sort_keys=True, ensure_ascii=False).encode()
    characters = _characters(good) + sum(map(len, texts.values()))
    if characters > data.max_characters:
        raise BadRow(
            "text too long", f"{characters} characters in all, {data.max_characters} are allowed"
        )
    checked.texts = hashlib.sha256(content).hexdigest()
    checked.about = hashlib.sha256(f"{texts['source']}\n{texts['meta']}".encode()).hexdigest()
    stored = [stored_image(image, data.max_image_pixels) for image in images]
    checked.sizes = [(image.width, image.height) for image in stored]
    checked.image_hashes = [image.hash for image in stored]
    checked.thumbnails = b"".join(image.thumbnail for image in stored)
    good["images"] = [{"bytes": image.data, "path": None} for image in stored]
    good["image_hashes"] = checked.image_hashes
    checked.stored_bytes = len(content) + sum(len(image.data) for image in stored)
    checked.id, checked.source = texts["id"], texts["source"]
    checked.row = {**texts, **good}


def _fill_messages(checked: Checked, good: Row, row: Row, kind: RowKind) -> None:
    for column in MESSAGE_COLUMNS[kind]:
        good[column] = _messages(checked, row.get(column), column)
    prompt, *completions = (good[column] for column in MESSAGE_COLUMNS[kind])
    _check_order(prompt, "a prompt ends")
    for completion in completions:
        expected = ["assistant", "user"] * len(completion)
        roles = [turn["role"] for turn in completion]
        if roles != expected[: len(roles)] or roles[-1] != "assistant":
            raise BadRow("wrong roles", f"a completion is from the assistant, got {roles[:6]}")
    if kind is RowKind.PREFERENCE and good["chosen"] == good["rejected"]:
        raise BadRow("chosen equals rejected")
    checked.prompt_characters = _characters(prompt)
    checked.answer_characters = _characters(completions[0])
    checked.answer = completions[0][-1]["content"]


def _check_order(prompt: list[Message], ends: str) -> None:
    if prompt[-1]["role"] != "user" or any(turn["role"] == "system" for turn in prompt[1:]):
        raise BadRow("wrong roles", f"{ends} with a user message, system comes first if ever")


def _check_marks(asked: list[str], pictures: int) -> None:
    marks = count_marks(asked)
    if marks not in (0, pictures):
        raise BadRow(
            "marks and pictures differ", f"{marks} <image> marks in its text, {pictures} pictures"
        )


def _messages(checked: Checked, messages: Any, column: str) -> list[Message]:
    if not isinstance(messages, list | tuple) or not messages:
        raise BadRow(f"empty {column}", f"got {_shown(messages)}")
    good = []
    for turn in messages:
        role = turn.get("role") if isinstance(turn, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            raise BadRow("wrong type", f"{column} holds {_shown(turn)}, expected role and content")
        text = composed(_text(turn.get("content"), column))
        good.append({"role": str(role), "content": _neutralised(checked, text)})
    return good


def _fill_evaluation(checked: Checked, good: Row, row: Row) -> None:
    for column in EVALUATION_TEXTS:
        good[column] = _neutralised(checked, composed(_text(row.get(column), column)))
    for column in ("answers", "choices"):
        values = row.get(column)
        if not isinstance(values, list | tuple):
            raise BadRow("wrong type", f"{column} is {type(values).__name__}, expected a list")
        good[column] = [composed(_text(value, column)) for value in values]
    if not good["answers"]:
        raise BadRow("empty answers")
    checked.prompt_characters = len(good["question"])
    checked.answer = good["answers"][0]
    checked.answer_characters = len(checked.answer)


def _text(value: Any, column: str) -> str:
    """The text of a column.

    Raises:
        BadRow: it is none, blank, or holds what cannot be stored or tokenized.
    """
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{column} is {type(value).__name__}, expected text")
    if not value.strip():
        raise BadRow(f"empty {column}")
    if "\0" in value:
        raise BadRow("invalid text", f"{column} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates cannot be stored
        raise BadRow("invalid text", f"{column} is not valid Unicode") from None
    return str(value)  # numpy's strings are a subclass


def _check_json(meta: str) -> None:
    try:
        found = json.loads(meta)
    except (ValueError, RecursionError):
        raise BadRow("wrong type", "meta is no JSON") from None
    if not isinstance(found, dict):
        raise BadRow("wrong type", f"meta is JSON of a {type(found).__name__}, expected an object")


def _neutralised(checked: Checked, text: str) -> str:
    for token in CONTROL_TOKENS:
        if token in text:
            raise BadRow("control token in text", f"{token} would end or begin a turn")
    text, count = neutralise_image_tokens(text)
    checked.neutralised += count
    return text


def _characters(value: Any) -> int:
    """Characters of all texts in messages, lists and objects; roles do not count."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_characters(part) for key, part in value.items() if key != "role")
    return sum(map(_characters, value))


def _name(value: Any) -> str:
    """A short text that can be written anywhere, from whatever a source gave."""
    if not isinstance(value, str):
        return "?" if value is None else _shown(value)
    text = value[: SHOWN_CHARACTERS + 1] or "?"
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return short.encode("utf-8", "replace").decode().replace("\0", "?")


class _Shown(reprlib.Repr):
    """Values in short, without the addresses that objects have in memory."""

    def repr_instance(self, value: Any, level: int) -> str:
        text = without_addresses(repr(value))
        return text if len(text) <= SHOWN_OBJECT else text[:SHOWN_OBJECT] + "…"


_SHOWN = _Shown()


def _shown(value: Any) -> str:
    """What a value looks like, without walking through all of a huge one."""
    try:
        shown = _SHOWN.repr(value)
    except Exception:  # an object whose own `repr` fails
        shown = type(value).__name__
    return shown[:SHOWN_CHARACTERS].encode("utf-8", "replace").decode()
