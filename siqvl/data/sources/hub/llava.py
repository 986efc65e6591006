"""LLaVA's instruction data (Liu et al. 2023, arXiv:2304.08485): conversations about pictures.

`path` is the JSON file, a list of `{"id", "image", "conversations": [{"from", "value"}]}` as in
liuhaotian/LLaVA-Instruct-150K (LLaVA's docs/Finetune_Custom_Data.md), with the pictures in the same
folder or in one beside it; or a hub id with these columns (lmms-lab/LLaVA-NeXT-Data). Rows without
`image` are text only; a list there, or under `images`, is several pictures.
"""

from __future__ import annotations

from typing import Any

from siqvl.data.schema import Message, Row, RowKind, sft_row
from siqvl.data.sources.reading.conversations import messages_of, split_turns
from siqvl.data.sources.reading.message_fields import with_inner
from siqvl.data.sources.reading.published import Published, TableAdapter


class LLaVA(TableAdapter):
    """Adapter `llava`."""

    name = "llava"
    kinds = frozenset({RowKind.SFT})
    needs = ("conversations",)

    def row(self, kind: RowKind, one: Published) -> Row:
        prompt, completion = split_turns(one["conversations"], "conversations")
        images = with_inner(one, one.pictures() or one.pictures("images"), [*prompt, *completion])
        return conversation_row(one, images, messages_of(prompt), messages_of(completion))


def conversation_row(
    one: Published, images: list[Any], prompt: list[Message], completion: list[Message]
) -> Row:
    """Published ids are not unique: questions about one picture share its id."""
    return sft_row(one.id(), images, prompt, completion, source=one.source, published_id=one["id"])
