"""Multiple choice by letter: how the options are listed below the question."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from siqvl.data.image_tokens import ANY_MARK, bare_edges
from siqvl.data.schema import with_options

REQUEST = "Answer with the letter."


def letters(count: int) -> list[str]:
    """Names the first letters of the alphabet, one an option.

    Raises:
        ValueError: there are more options than letters.
    """
    if count > len(ascii_uppercase):
        raise ValueError(f"{count} options are more than the alphabet has letters")
    return list(ascii_uppercase[:count])


def lettered(question: str, choices: Sequence[str], request: str = REQUEST) -> str:
    """Puts the options below the question, one a line, and the request to name a letter.

    Options that the source put at the end of the question itself are taken away first. They are not
    listed again where the question has them with their letters, `(A) red`, or where they are no
    more than the letters of their places.
    """
    if not choices:
        return question
    question, options = _unlisted(question, choices)
    named = list(zip(letters(len(choices)), options, strict=True))
    own = "\n".join(f"({letter}) {text}" for letter, text in named)
    if list(options) != letters(len(choices)) and not question.endswith(own):
        question = "\n".join([question, *(f"{letter}. {text}" for letter, text in named)])
    return f"{question}\n{request}" if request else question


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
