"""What is asked: questions of mixed lengths about pictures, as requests of either side."""

from __future__ import annotations

import base64
import io
import random
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

LONGEST_ANSWER = 100  # tokens
WORDS = ("what", "which", "color", "shape", "number", "of", "the", "square", "is", "left", "red")


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        pictures: data URIs.
        turns: what user and assistant say in turns; the pictures stand before the first.
    """

    turns: tuple[str, ...]
    pictures: tuple[str, ...]
    tokens: int

    def body(self, model: str, *, stream: bool) -> dict[str, Any]:
        """As `/v1/chat/completions` takes it."""
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": one}} for one in self.pictures
        ]
        messages: list[dict[str, Any]] = [
            {"role": "assistant" if number % 2 else "user", "content": text}
            for number, text in enumerate(self.turns)
        ]
        messages[0]["content"] = [*parts, {"type": "text", "text": self.turns[0]}]
        found = {"model": model, "messages": messages, "max_completion_tokens": self.tokens}
        if stream:
            found |= {"stream": True, "stream_options": {"include_usage": True}}
        return found

    def row(self) -> dict[str, Any]:
        """As the registered model takes it: one picture, one question."""
        (picture,), (question,) = self.pictures, self.turns
        return {"image": picture.partition(",")[2], "question": question}


def with_one_picture(count: int) -> list[Question]:
    """Questions as a registered model takes them; every one has a picture of its own."""
    drawn = random.Random(0)
    return [
        Question((_text(drawn),), (_picture(drawn),), drawn.randint(1, LONGEST_ANSWER))
        for _ in range(count)
    ]


def of_all_kinds(count: int) -> list[Question]:
    """Questions without a picture, with several, and conversations."""
    drawn = random.Random(1)
    found = []
    for number in range(count):
        turns = [_text(drawn) for _ in range((1, 1, 3)[number % 3])]
        pictures = [_picture(drawn) for _ in range((0, 3, 1)[number % 3])]
        found.append(Question(tuple(turns), tuple(pictures), drawn.randint(1, 60)))
    return found


def large_pictures(count: int) -> list[Question]:
    """Questions about pictures of 49 megapixels, as photographs and graphics come."""
    found = []
    for number in range(count):
        picture = Image.linear_gradient("L").resize((7_000, 7_000))
        made = Image.merge(
            "RGB", [picture, picture.rotate(90), Image.new("L", picture.size, number)]
        )
        if number % 4 == 3:
            made.putalpha(picture)
        kind = ("JPEG", "PNG", "WEBP", "PNG")[number % 4]
        found.append(Question((f"what is picture {number}?",), (_uri(made, kind),), 8))
    return found


def _text(drawn: random.Random) -> str:
    return " ".join(drawn.choice(WORDS) for _ in range(drawn.randint(4, 60))) + "?"


def _picture(drawn: random.Random) -> str:
    width, height = drawn.randint(64, 640), drawn.randint(64, 640)
    made = Image.new("RGB", (width, height), tuple(drawn.choices(range(256), k=3)))
    draw = ImageDraw.Draw(made)
    for _ in range(6):
        x, y = drawn.randrange(width), drawn.randrange(height)
        draw.ellipse((x, y, x + 40, y + 30), fill=tuple(drawn.choices(range(256), k=3)))
    return _uri(made, drawn.choice(("JPEG", "PNG")))


def _uri(picture: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1} if kind == "PNG" else {"quality": 80}
    picture.save(stream, kind, **(options | ({"method": 0} if kind == "WEBP" else {})))
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{encoded}"
