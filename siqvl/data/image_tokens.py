"""Pictures in texts: the marks of their places, and the model's own tokens that stand literally.

In a user's turn the text `<image>` marks the place of a picture: the first mark that of the first
picture, and so on. Where there are no marks, the pictures stand before the first user turn. In any
other turn `<image>` is text. Published texts may also number their marks (`<image 1>`, `<image1>`,
`<image_1>`); `marked` brings both into the one form in which rows are stored.

Apart from `siqvl.model`, which imports transformers: preparation has no other need of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from siqvl.data.schema import REASONING_PROMPT

#: Everything in Qwen's vocabulary that announces or stands for pixels.
VISION_TOKENS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VISION_TOKEN = re.compile("|".join(re.escape(token) for token in VISION_TOKENS))

#: Where a picture stands in a user's turn.
IMAGE_MARK = "<image>"
#: The mark as published, with the number of its picture or without one.
ANY_MARK = re.compile(r"<image(?:[ _]?([0-9]{1,3}))?>")


def neutralise_image_tokens(text: str) -> tuple[str, int]:
    """Breaks vision tokens that stand literally in user text, so that they stay text.

    A question such as "what does <|image_pad|> mean?" would otherwise add a placeholder for which
    there is no picture. One space goes in after `<|` (`<| image_pad|>`): a person still reads it,
    the tokenizer sees plain characters, and nothing is removed, so no new literal can come
    together.

    Returns:
        The text, and how many literals were broken (0: the text is returned as it was).
    """
    return VISION_TOKEN.subn(lambda match: "<| " + match.group()[2:], text)


def count_marks(texts: Iterable[str]) -> int:
    """Counts the places of pictures that some user turns mark."""
    return sum(text.count(IMAGE_MARK) for text in texts)


def without_marks(text: str) -> str:
    """Takes the marks out of a text, for who is asked it without its pictures."""
    if IMAGE_MARK not in text:
        return text
    return re.sub(rf"{IMAGE_MARK}[ \t]?", "", text).strip()


def marked(texts: Sequence[str], pictures: int) -> tuple[list[str], list[int] | None]:
    """Brings the marks in the user turns of one row into the form in which they are stored.

    Where all of them stand at the very beginning of the first turn they are taken out, as that is
    where pictures stand anyway; they stay if nothing else is said there. White space between a mark
    and the end of the turn that it stands at is dropped, inside a text nothing is changed. Numbered
    marks become `<image>` where a number is first mentioned, and stay text where it is again.

    Args:
        texts: the user turns, in order.
        pictures: how many the row has.

    Returns:
        The texts; and the order in which the row's pictures are to stand (numbers from 0), None
        where that is the order they have.

    Raises:
        ValueError: marks and pictures do not fit together; its text says both counts.
    """
    found = [match for text in texts for match in ANY_MARK.finditer(text)]
    if not found:
        return [*texts], None
    numbers = [int(match[1]) for match in found if match[1]]
    if not numbers:
        if pictures != len(found):
            raise ValueError(
                f"{len(found)} {IMAGE_MARK} marks in its text, but {pictures} pictures"
            )
        return _normal(texts), None
    if len(numbers) < len(found):
        raise ValueError(
            f"{len(found) - len(numbers)} {IMAGE_MARK} marks in its text beside {len(numbers)} "
            f"numbered ones, and {pictures} pictures: mark places in one of these ways"
        )
    order = list(dict.fromkeys(numbers))
    if sorted(order) != list(range(1, pictures + 1)):
        known = ", ".join(dict.fromkeys(match[0] for match in found))
        raise ValueError(
            f"{len(order)} numbered marks in its text ({known}), but {pictures} pictures: "
            "there has to be one for each of them, from 1"
        )
    return _normal(_unnumbered(texts)), [number - 1 for number in order]


def _unnumbered(texts: Sequence[str]) -> list[str]:
    seen: set[int] = set()

    def mark(match: re.Match[str]) -> str:
        number = int(match[1])
        if number in seen:
            return match[0]
        seen.add(number)
        return IMAGE_MARK

    return [ANY_MARK.sub(mark, text) for text in texts]


def _normal(texts: Sequence[str]) -> list[str]:
    first, *others = texts
    body = first.removesuffix(REASONING_PROMPT)
    rest, leading = _without_leading(body)
    if leading == count_marks(texts):
        return [(rest or IMAGE_MARK * leading) + first[len(body) :], *others]
    return [bare_edges(text) for text in texts]


def bare_edges(text: str) -> str:
    """Drops the white space that sets marks apart from the end of the turn that they stand at."""
    body = text.removesuffix(REASONING_PROMPT)  # which is put behind the turn itself
    end, rest = text[len(body) :], body
    rest, leading = _without_leading(rest)
    trailing = 0
    while rest.rstrip().endswith(IMAGE_MARK):
        rest, trailing = rest.rstrip().removesuffix(IMAGE_MARK), trailing + 1
    if trailing:
        rest = rest.rstrip()
    return IMAGE_MARK * leading + rest + IMAGE_MARK * trailing + end


def _without_leading(text: str) -> tuple[str, int]:
    """The text after the marks that it begins with, and how many these are."""
    rest, count = text, 0
    while rest.lstrip().startswith(IMAGE_MARK):
        rest, count = rest.lstrip().removeprefix(IMAGE_MARK), count + 1
    return (rest.lstrip() if count else rest), count
