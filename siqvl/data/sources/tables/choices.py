"""What the answers of multiple-choice rows are: a choice itself, its letter, or its number.

Published sets do all of these, and one row rarely tells: `2` of `["3", "2", "4"]` may be the second
word, or the third option. So it is decided once for a source, by all of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

from siqvl.data.sources.values.cells import Misread
from siqvl.recipe import ChoicesAre

SHOWN = 80  # characters of an answer or a listing in a message
MARKS = "().:"  # around a published letter: `(B)`, `B.`


def _as_text(answer: str, choices: Sequence[str]) -> int | None:
    return choices.index(answer) if answer in choices else None


def _as_letter(answer: str, choices: Sequence[str]) -> int | None:
    letter = answer.strip(MARKS).upper()
    place = ascii_uppercase.find(letter) if len(letter) == 1 else -1
    return place if 0 <= place < len(choices) else None


def _as_index(first: int, answer: str, choices: Sequence[str]) -> int | None:
    if not (answer.isascii() and answer.isdecimal() and len(answer) < 4):
        return None
    place = int(answer) - first
    return place if 0 <= place < len(choices) else None


READINGS: dict[ChoicesAre, Callable[[str, Sequence[str]], int | None]] = {
    "text": _as_text,
    "letter": _as_letter,
    "index0": lambda answer, choices: _as_index(0, answer, choices),
    "index1": lambda answer, choices: _as_index(1, answer, choices),
}
NAMES: dict[ChoicesAre, str] = {
    "text": "the text of a choice",
    "letter": "the letter of a choice",
    "index0": "the number of a choice, from 0",
    "index1": "the number of a choice, from 1",
}


def chosen_texts(
    answers: Sequence[str],
    choices: Sequence[str],
    reading: ChoicesAre,
    *,
    other_words: bool = False,
) -> list[str]:
    """The choices that some answers mean.

    Args:
        other_words: answers are several ways to say what is right: where they are texts, those
            beside one that is a choice stay as they are.

    Raises:
        Misread: one of them means none.
    """
    places = [READINGS[reading](answer, choices) for answer in answers]
    if other_words and reading == "text" and any(place is not None for place in places):
        return list(answers)
    for answer, place in zip(answers, places, strict=True):
        if place is None:
            raise Misread(
                f"answer {answer[:SHOWN]!r} is none of its choices, {listed(choices)}, read as "
                f"{NAMES[reading]}"
            )
    return [choices[place] for place in places if place is not None]


def listed(choices: Sequence[str]) -> str:
    """Some texts in short, for a message."""
    text = ", ".join(choices)
    return f"[{text if len(text) <= SHOWN else text[:SHOWN] + '…'}]"


@dataclass
class Evidence:
    """What the rows of a source say about the readings of their answers."""

    rows: int = 0
    fits: dict[ChoicesAre, int] = field(default_factory=lambda: dict.fromkeys(READINGS, 0))
    #: Two readings -> the first row that the first one takes for another choice than the second.
    apart: dict[tuple[ChoicesAre, ChoicesAre], str] = field(default_factory=dict)

    def add(self, answers: Sequence[str], choices: Sequence[str]) -> None:
        """Look at one row; one without choices or answers says nothing."""
        if not answers or not choices:
            return
        self.rows += 1
        found: dict[ChoicesAre, list[str]] = {}
        for name, read in READINGS.items():
            places = [read(answer, choices) for answer in answers]
            known = [choices[place] for place in places if place is not None]
            if known and (name == "text" or None not in places):
                found[name] = known
        for name, texts in found.items():
            self.fits[name] += 1
            for other in READINGS:
                if found.get(other) != texts and (name, other) not in self.apart:
                    said = ", ".join(found.get(other, ["none of them"]))
                    self.apart[name, other] = (
                        f"answer {', '.join(answers)[:SHOWN]!r} of {listed(choices)} would be "
                        f"{', '.join(texts)[:SHOWN]!r} or {said[:SHOWN]!r}"
                    )

    def reading(self) -> ChoicesAre | None:
        """The reading that fits most rows; None where no row has choices.

        Raises:
            Misread: another one fits as many, and takes some of them for other choices.
        """
        most = max(self.fits.values())
        if not most:  # a text that is none of its choices is said to be that
            return "text" if self.rows else None
        best, *others = [name for name, count in self.fits.items() if count == most]
        for other in others:
            if example := self.apart.get((best, other)):
                raise Misread(
                    f"its answers can be read as {NAMES[best]} and as {NAMES[other]}: each fits "
                    f"{most} of {self.rows} rows with choices ({example}); say which with "
                    f"`choices_are: {best}` or `choices_are: {other}`"
                )
        return best


def reading_of(rows: Iterable[tuple[Sequence[str], Sequence[str]]]) -> ChoicesAre | None:
    """The reading of (answers, choices) of all rows, see `Evidence.reading`."""
    evidence = Evidence()
    for answers, choices in rows:
        evidence.add(answers, choices)
    return evidence.reading()
