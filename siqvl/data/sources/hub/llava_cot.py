"""LLaVA-CoT-100k (Xu et al. 2024, arXiv:2411.10440): answers in four tagged stages.

`path` is the hub's `train.jsonl` (Xkev/LLaVA-CoT-100k) with its unpacked pictures in the same
folder: rows `{"id", "image", "conversations"}` as LLaVA's, whose answers hold <SUMMARY>, <CAPTION>,
<REASONING> and <CONCLUSION>. The first three are the steps, the last is the answer.
"""

from __future__ import annotations

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.base import damaged_row
from siqvl.data.sources.hub.llava import conversation_row
from siqvl.data.sources.reading.conversations import (
    messages_of,
    split_turns,
    tagged_reasoning,
    untagged,
)
from siqvl.data.sources.reading.published import Published
from siqvl.data.sources.reading.question_rows import ReasoningAdapter


class LLaVACoT(ReasoningAdapter):
    """Adapter `llava_cot`."""

    name = "llava_cot"
    kinds = frozenset({RowKind.SFT})
    needs = ("image", "conversations")

    def has_steps(self, one: Published) -> bool:
        _, (answer,) = split_turns(one["conversations"], "conversations")
        parts = tagged_reasoning(answer.text)
        return parts is not None and bool(parts[0])

    def asked(self, kind: RowKind, one: Published, reasoned: bool) -> Row:
        prompt, completion = split_turns(one["conversations"], "conversations")
        if tagged_reasoning(completion[0].text) is None:
            return damaged_row(one.id(), "no <CONCLUSION> in its answer", source=one.source)
        turns = untagged(messages_of([*prompt, *completion]), reasoned=reasoned)
        return conversation_row(one, one.pictures(), turns[:-1], turns[-1:])
