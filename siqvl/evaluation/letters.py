"""Multiple choice by letter: how the options are listed, and which one a text means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from siqvl.composed_text import composed
from siqvl.data.image_tokens import ANY_MARK, bare_edges
from siqvl.data.schema import with_options

REQUEST = "Answer with the letter."
_WRAPPING = " \t\n*`\"'$"
#: A letter set off at the beginning, as options are listed: `B. red`, `B) red`, `(B) red`.
_LISTED = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.):](?!\w))\s*(.*)", re.DOTALL)
#: A letter that is said to be the answer: `the answer is B`, `Answer: (c)`, `option B`, `(B)`.
#: `a` and `I` are words as well, and so must end what is said.
_NAMED = re.compile(
    r"\b(?i:answer is|answer|option|choice)\s*:?[\s*]*\(?"
    r"(?:([B-HJ-Z])(?![\w'’])|([A-Za-z])(?=\s*(?:$|[.,;:)*\n]|(?:or|and)\b)))"
    r"|\(([A-Z])\)"
)
#: Several letters at once: `B or C`, `A, B and D`.
_SEVERAL = re.compile(
    r"(?<![\w'’-])[A-Z]\)?\s*(?:[,/&]|\b(?:or|and)\b)\s*(?:(?:or|and)\s+)?"
    r"\(?(?:[B-HJ-Z](?![\w'’-])|[AI](?=\s*(?:$|[.,;:)])))"
)
#: A capital that stands alone; `A` and `I` only where they end what is said.
_ALONE = re.compile(r"(?<![\w'’&-])(?:([B-HJ-Z])(?![\w'’&-])|([AI])(?=\s*(?:$|[.,;:)])))")


def letters(count: int) -> list[str]:
    """Names the first letters of the alphabet, one an option.

    Raises:
        ValueError: there are more options than letters.
    """
    if count > len(ascii_uppercase):
        raise ValueError(f"{count} options are more than the alphabet has letters")
    return list(ascii_uppercase[:count])


def lettered(question: str, choices: Sequence[str]) -> str:
    """Puts the options below the question, one a line, and the request to name a letter.

    Options that the source put at the end of the question itself are taken away first.
    """
    if not choices:
        return question
    question, options = _unlisted(question, choices)
    named = zip(letters(len(choices)), options, strict=True)
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in named), REQUEST])


def _unlisted(question: str, choices: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The question without the options that it lists, and these as they stand there.

    Where a choice is a picture by its number, the question has `<image>`, and maybe no space before
    its last one. The choices themselves keep their numbers, which tell one from the other.
    """
    marks = [match[0] for choice in choices for match in ANY_MARK.finditer(choice)]
    asked = [match[0] for match in ANY_MARK.finditer(question)]
    options = choices
    if marks and len(asked) >= len(marks):
        left = iter(asked[-len(marks) :])
        options = [ANY_MARK.sub(lambda _: next(left), choice) for choice in choices]
    for by_letter in (False, True):
        listing = with_options("", options, by_letter=by_letter)
        for end in (listing, bare_edges(listing)):
            if question.endswith(end):
                return question.removesuffix(end), options
    return question, choices


def chosen_letter(generation: str, choices: Sequence[str]) -> str:
    """Finds the option that a text means; empty if it means none, or one cannot tell which.

    In this order: the text is a letter (`B`, `(b)`); it is an option; it begins with a letter set
    off as in a list (`B. red`, unless another option's words follow); it calls one letter the
    answer; the options that it mentions and the letters that stand alone in it are all the same.
    """
    given, choices = choices, [composed(choice) for choice in choices]
    meant = _meant(composed(generation), choices)
    return given[choices.index(meant)] if meant else ""


def _meant(generation: str, choices: Sequence[str]) -> str:
    text = generation.strip(_WRAPPING).rstrip(". ").strip(_WRAPPING)
    options = dict(zip(ascii_uppercase, choices))  # noqa: B905  # no letter, no choice by letter
    if letter := options.get(text.strip("(). ").upper()):
        return letter
    if same := [option for option in choices if _plain(option) == _plain(text)]:
        return same[0]
    if listed := _LISTED.match(text):
        option = options.get(listed[1] or listed[2], "")
        named = {_plain(other) for other in choices} - {_plain(option)}
        return option if _plain(listed[3]) not in named else ""
    if _SEVERAL.search(text):
        return ""
    found = _by_letter(_NAMED, text, options)
    if not found:
        found, rest = _mentioned(text, choices)
        found |= _by_letter(_ALONE, rest, options)
    return found.pop() if len(found) == 1 else ""


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(_WRAPPING).rstrip(".")


def _by_letter(pattern: re.Pattern[str], text: str, options: dict[str, str]) -> set[str]:
    """The options of all letters that a pattern finds."""
    found = (match[match.lastindex or 0].upper() for match in pattern.finditer(text))
    return {options[letter] for letter in found if letter in options}


def _mentioned(text: str, choices: Sequence[str]) -> tuple[set[str], str]:
    """The options whose words a text holds, and what is left without them.

    Longer ones are looked for first: `dark red` is no mention of `red`.
    """
    found: set[str] = set()
    for option in sorted(choices, key=len, reverse=True):
        words = r"\s+".join(map(re.escape, option.split()))
        whole = rf"(?<!\w)(?<!\d[.,]){words}(?!\w)(?![.,]\d)"
        text, times = re.subn(whole, " ", text, flags=re.IGNORECASE)
        if times:
            found.add(option)
    return found, text
