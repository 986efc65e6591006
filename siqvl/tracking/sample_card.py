"""Pictures with words below them, as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIDE = 320  # pixels: the width, and the most that the picture is high
MARGIN = 10
TEXT = 15  # of a letter
LINE = 20
CHARACTERS = 40  # of a line
LINES = 6  # of each text at most
COLUMNS = 4  # cards side by side


def draw_sheet(cards: Sequence[Image.Image]) -> Image.Image:
    """Cards in rows."""
    rows = [cards[start : start + COLUMNS] for start in range(0, len(cards), COLUMNS)]
    heights = [max(card.height for card in row) for row in rows]
    width = (SIDE + MARGIN) * min(COLUMNS, len(cards)) - MARGIN
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    for number, row in enumerate(rows):
        for place, card in enumerate(row):
            sheet.paste(card, ((SIDE + MARGIN) * place, sum(heights[:number])))
    return sheet


def draw_card(picture: Image.Image | None, texts: Sequence[tuple[str, str]]) -> Image.Image:
    """Pictures fill the width, small ones with their pixels to be seen.

    Args:
        texts: what each is called, or "", and the text itself.
    """
    shown = None if picture is None else fitted(picture, SIDE)
    top = 0 if shown is None else shown.height
    blocks = [(name, _wrapped(f"{name}: {text}" if name else text)) for name, text in texts]
    lines = sum(len(block) for _, block in blocks)
    card = Image.new("RGB", (SIDE, top + 2 * MARGIN + LINE * lines), "white")
    if shown is not None:
        card.paste(shown, ((SIDE - shown.width) // 2, 0))
    pen, font, y = ImageDraw.Draw(card), ImageFont.load_default(TEXT), top + MARGIN
    for name, block in blocks:
        for line in block:
            pen.text((MARGIN, y), line, font=font, fill="#57606a" if name == "gold" else "#1b1f24")
            y += LINE
    return card


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """As large as fits into a square; a small picture keeps its pixels to be seen."""
    scale = min(side / picture.width, side / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(size, how)


def _wrapped(text: str) -> list[str]:
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, CHARACTERS)]
    return [*lines[: LINES - 1], "…"] if len(lines) > LINES else lines or [""]
