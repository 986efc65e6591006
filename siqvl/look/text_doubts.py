"""Rules about what rows say: letters without options, answers in questions, spoilt characters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from siqvl.look.looked import Doubt, Looked, SeenRow

FEW = 5  # rows below which nothing is told of how often something happens
LETTER = re.compile(r"\(?[A-Ja-j]\)?[.:]?")
#: Options that a question lists itself: `A. red`, `(B) blue`, `C: green`.
LISTED = re.compile(r"(^|[\s(])([A-B])[.):]\s*\S", re.MULTILINE)
ENTITY = re.compile(r"&(amp|lt|gt|quot|apos|nbsp|#\d{1,5}|#x[0-9a-fA-F]{1,4});")
CLOSED = frozenset({"yes", "no", "true", "false"})
EITHER_OR = re.compile(r"\bor\b", re.IGNORECASE)


def texts_doubts(looked: Looked) -> Iterator[Doubt]:
    """What looks wrong in the texts of the good rows."""
    rows = looked.good
    yield from _letters(rows)
    yield from _told(rows)
    yield from _characters(rows)


def _letters(rows: list[SeenRow]) -> Iterator[Doubt]:
    """Letters as answers, and nothing that says what they stand for."""
    bare = [row for row in rows if LETTER.fullmatch(row.answer) and not _lists_options(row)]
    if len(rows) >= FEW and 5 * len(bare) >= 4 * len(rows):
        yield Doubt(
            57,
            f"The answers of {len(bare):,} of {len(rows):,} rows are single letters, the first is "
            f"{bare[0].answer!r}, but no options stand with them: map them to `choices`.",
        )


def _lists_options(row: SeenRow) -> bool:
    listed = {found[2] for found in LISTED.finditer(row.question)}
    return bool(row.choices) or listed == {"A", "B"}


def _told(rows: list[SeenRow]) -> Iterator[Doubt]:
    """Questions that hold their answer, which is then no matter of the picture."""
    open_ones = [row for row in rows if _is_open(row)]
    told = [row for row in open_ones if _holds(row.question, row.answer)]
    if len(open_ones) >= FEW and 2 * len(told) >= len(open_ones):
        row = told[0]
        yield Doubt(
            50,
            f"{len(told):,} of {len(open_ones):,} questions hold their answer: {row.answer[:60]!r} "
            f"stands in {row.question[:100]!r} (row {row.id}).",
        )


def _is_open(row: SeenRow) -> bool:
    """Whether a question names no options, of which the answer would be one."""
    return not (row.choices or EITHER_OR.search(row.question)) and len(row.answer) > 1


def _holds(question: str, answer: str) -> bool:
    said = answer.strip().rstrip(".").casefold()
    if not said or said in CLOSED:
        return False
    return re.search(rf"(?<!\w){re.escape(said)}(?!\w)", question.casefold()) is not None


def _characters(rows: list[SeenRow]) -> Iterator[Doubt]:
    spoilt = [(row, found) for row in rows for text in row.texts if (found := ENTITY.search(text))]
    if spoilt:
        row, found = spoilt[0]
        count = len({one.id for one, _ in spoilt})
        yield Doubt(
            28,
            f"{count:,} of {len(rows):,} rows hold HTML in place of characters, the first "
            f"{found[0]!r} in {row.id}: the model learns to write it.",
        )
