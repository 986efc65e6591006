"""Text piece by piece, against decoding all tokens at once."""

import random

import pytest

from siqvl.generation.text_pieces import TextPieces
from tests.model.tiny_siqvl import make_tokenizer

TEXTS = [
    "a red square",
    "  two spaces, and a line\n\n",
    "größer als 3 € – 日本語 🙂 ok",
    "",
    " ",
    "stop here: Answer: 7\nand more",
]


class Decoding:
    """The part of a processor that is asked."""

    def __init__(self) -> None:
        self.tokenizer = make_tokenizer()

    def batch_decode(self, rows, **options):
        return self.tokenizer.batch_decode(rows, **options)


@pytest.fixture(scope="module")
def processor() -> Decoding:
    return Decoding()


def told(processor, tokens: list[int], stop=()) -> tuple[list[str], TextPieces]:
    pieces = TextPieces(processor, stop)
    texts = []
    for token in tokens:
        texts.append(pieces.add(token))
        if pieces.stopped:
            return texts, pieces
    return [*texts, pieces.end()], pieces


def cut(text: str, stop) -> str:
    found = [text.find(one) for one in stop if one in text]
    return (text[: min(found)] if found else text).strip()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("stop", [(), ("\n",), ("Answer:", "and"), (" ",), ("ab", "日本")])
def test_pieces_are_the_whole_text(processor, text: str, stop) -> None:
    tokens = processor.tokenizer.encode(text, add_special_tokens=False)
    texts, pieces = told(processor, tokens, stop)
    whole = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(texts) == cut(whole, stop)
    assert pieces.stopped == any(one in whole for one in stop)


def test_any_tokens_are_what_they_decode_to(processor) -> None:
    draw = random.Random(0)
    for _ in range(300):
        tokens = [draw.randrange(len(processor.tokenizer)) for _ in range(draw.randrange(12))]
        whole = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        assert "".join(told(processor, tokens)[0]) == whole.strip()


def test_a_character_is_never_told_in_parts(processor) -> None:
    tokens = processor.tokenizer.encode("a🙂b", add_special_tokens=False)
    assert len(tokens) == 6  # four of them are one character
    texts, _ = told(processor, tokens)
    assert texts == ["a", "", "", "", "🙂", "b", ""]


def test_what_may_be_a_stop_is_held_back_until_it_is_none(processor) -> None:
    tokens = [processor.tokenizer.encode(one)[0] for one in "xEND"]
    texts, _ = told(processor, tokens, ["ENDE"])
    assert texts == ["x", "", "", "", "END"]
