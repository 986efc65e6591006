"""Turns and pictures of a conversation, and what the model reads of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image

from siqvl.chat.picture_input import Picture
from siqvl.data.encode import encode_prompt
from siqvl.data.encoded import Item
from siqvl.data.image_tokens import ANY_MARK, IMAGE_MARK
from siqvl.data.preparation.checks import check_row
from siqvl.data.schema import TO_COME, Message, RowKind, message, sft_row
from siqvl.data.sources.reading.picture_marks import placed
from siqvl.errors import UserError

if TYPE_CHECKING:
    from siqvl.model.processing import SiQVLProcessor
    from siqvl.recipe import DataPrep


class Conversation:
    """Turns that are kept, of which the last one may be a question without an answer.

    A picture is kept as what the tower sees of it, not as large as it was.

    Args:
        limits: of pictures and texts, as preparation has them.
        system: what the model is told first; None: what its chat template says.
    """

    def __init__(
        self, processor: SiQVLProcessor, limits: DataPrep, system: str | None = None
    ) -> None:
        self.system = system
        self._processor, self._limits = processor, limits
        self._turns: list[Message] = []
        self._pixels: list[torch.Tensor] = []  # in the order in which they were shown
        self._waiting = 0  # of these, those that no question has come with yet
        self._asked_with = 0  # the last question

    def __len__(self) -> int:
        """Turns."""
        return len(self._turns)

    @property
    def waiting(self) -> int:
        """Pictures that go with the next question."""
        return self._waiting

    def attach(self, picture: Picture) -> None:
        """Shows a picture with the next question."""
        found = self._processor.image_processor(images=[picture.image], return_tensors="pt")
        self._pixels.append(found["pixel_values"][0])
        self._waiting += 1

    def ask(self, text: str) -> Item:
        """Adds a question with the pictures that wait; gives what the model reads.

        A text may say where its pictures stand with a mark `<image>` for each; otherwise they stand
        before it.

        Raises:
            UserError: it cannot be asked; the conversation is as it was.
        """
        marks = "" if ANY_MARK.search(text) else IMAGE_MARK * self._waiting
        self._turns.append(message("user", marks + text))
        try:
            item = self._item()
        except UserError:
            self._turns.pop()
            raise
        self._asked_with, self._waiting = self._waiting, 0
        return item

    def answered(self, text: str) -> None:
        """Keeps the answer to the last question; one that says nothing takes it back."""
        if text.strip():
            self._turns.append(message("assistant", text))
        else:
            self.take_back()

    def take_back(self) -> None:
        """Takes the last question back; its pictures wait again."""
        self._turns.pop()
        self._waiting = self._asked_with

    def reset(self) -> None:
        """Forgets all turns and pictures; the system prompt stays."""
        self._turns.clear()
        self._pixels.clear()
        self._waiting = 0

    def _item(self) -> Item:
        first = [message("system", self.system)] if self.system else []
        turns = [*first, *self._turns]
        count = len(self._pixels)
        row = placed(sft_row("chat", [*range(count)], turns, TO_COME, source="chat"))
        if "damaged" in row:
            raise UserError(row["damaged"])
        # texts are judged here; pictures were when they were read
        blank = [Image.new("RGB", (1, 1))] * count
        checked = check_row({**row, "images": blank}, RowKind.SFT, self._limits)
        if checked.row is None:
            raise UserError(": ".join(filter(None, [checked.reason, checked.detail])))
        asked = {**checked.row, "images": [None] * count}
        item: Item = {"input_ids": encode_prompt(asked, self._processor).input_ids, "images": []}
        if count:
            item["pixel_values"] = torch.stack([self._pixels[number] for number in row["images"]])
        return item
