"""A row as it is shown: who says what, where its pictures stand, and which tokens are learnt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from siqvl.data.image_tokens import IMAGE_MARK, count_marks
from siqvl.data.schema import MESSAGE_COLUMNS, Row, RowKind, message
from siqvl.look.looked import Sequence, Span

if TYPE_CHECKING:
    from siqvl.data.encode import Sides
    from siqvl.data.encoded import Encoded
    from siqvl.model.processing import SiQVLProcessor

IGNORED = -100  # label of a token without loss, as torch's cross entropy has it


def placed_texts(row: Row, kind: RowKind, suffix: str) -> list[tuple[str, str]]:
    """Who says what in a stored row, with `<image>` wherever one of its pictures stands.

    Args:
        suffix: what is appended to a question.
    """
    if kind is RowKind.EVALUATION:
        return [("user", _placed([message("user", row["question"])], row)[0] + suffix)]
    first, *others = MESSAGE_COLUMNS[kind]
    asked = [*zip((turn["role"] for turn in row[first]), _placed(row[first], row), strict=True)]
    if kind is RowKind.SFT:
        return asked + [(turn["role"], turn["content"]) for turn in row["completion"]]
    return asked + [(name, turn["content"]) for name in others for turn in row[name]]


def refused_texts(row: Row, kind: RowKind) -> list[tuple[str, str]]:
    """Who says what in a row that was refused: all of it that is text."""
    if not isinstance(row, dict):
        return []
    said: list[tuple[Any, Any]] = [("user", row.get("question"))]
    for column in MESSAGE_COLUMNS[kind]:
        turns = row.get(column)
        for turn in turns if isinstance(turns, list) else []:
            said += [(turn.get("role"), turn.get("content"))] if isinstance(turn, dict) else []
    return [(who, text) for who, text in said if isinstance(who, str) and isinstance(text, str)]


def _placed(turns: list[dict[str, str]], row: Row) -> list[str]:
    texts = [turn["content"] for turn in turns]
    completions = [turn for name in ("completion", "chosen") for turn in row.get(name, [])]
    asked = [turn["content"] for turn in [*turns, *completions] if turn["role"] == "user"]
    if row["images"] and not count_marks(asked):
        first = next(number for number, turn in enumerate(turns) if turn["role"] == "user")
        texts[first] = IMAGE_MARK * len(row["images"]) + texts[first]
    return texts


def sequences_of(sides: Sides, kind: RowKind, processor: SiQVLProcessor) -> list[Sequence]:
    """The sequences of an encoded row; the second side of a pair without the prompt they share."""
    names = ("chosen", "rejected") if kind is RowKind.PREFERENCE else ("",)
    found = []
    for number, (name, side) in enumerate(zip(names, sides, strict=True)):
        spans = [*_spans(side, processor)]
        if number:  # the last turn alone is learnt
            spans = spans[next(i for i, one in enumerate(spans) if one.kind == "learnt") :]
        learnt = sum(label != IGNORED for label in side.labels)
        found.append(Sequence(name, spans, len(side), learnt))
    return found


def _spans(side: Encoded, processor: SiQVLProcessor) -> Iterator[Span]:
    labels = side.labels or [IGNORED] * len(side)
    image, count = processor.image_token_id, processor.num_image_tokens
    pairs = zip(side.input_ids, labels, strict=True)
    for (is_picture, is_learnt), run in groupby(
        pairs, key=lambda pair: (pair[0] == image, pair[1] != IGNORED)
    ):
        ids = [token for token, _ in run]
        if is_picture:
            yield from (Span("picture", "", count) for _ in range(len(ids) // count))
        else:
            text = processor.tokenizer.decode(ids, skip_special_tokens=False)
            yield Span("learnt" if is_learnt else "read", text, len(ids))
