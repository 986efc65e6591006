"""ScienceQA (Lu et al. 2022, arXiv:2209.09513): school questions, half of them with a picture.

`path` is the hub id (derek-thomas/ScienceQA) or its parquet files. Columns, from its card: `image`
(may be null), `question`, `choices`, `answer` (index), `hint`, `lecture`, `solution`, `task`,
`grade`, `subject`, `topic`, `category`, `skill`. The hint is put before the question. The rationale
is the solution; a tenth of the rows has none. The lecture, general and long, stays in `meta`.
"""

from __future__ import annotations

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.reading.published import Published
from siqvl.data.sources.reading.question_rows import (
    ReasoningAdapter,
    choices_of,
    chosen,
    question_row,
)


class ScienceQA(ReasoningAdapter):
    """Adapter `scienceqa`."""

    name = "scienceqa"
    kinds = frozenset({RowKind.SFT, RowKind.EVALUATION})
    needs = ("image", "question", "choices", "answer", "hint", "solution")

    def has_steps(self, one: Published) -> bool:
        return bool(one.text("solution"))

    def asked(self, kind: RowKind, one: Published, reasoned: bool) -> Row:
        hint, question = one.text("hint"), one.text("question")
        choices = choices_of(one)
        return question_row(
            kind,
            one,
            id=one.id(),
            images=one.pictures(),
            question=f"{hint}\n{question}" if hint and question else question,
            answers=chosen(choices, one["answer"]),
            choices=choices,
            steps=one.text("solution") if reasoned else "",
            lecture=one["lecture"],
            type=one["subject"],  # by which its tables are split
            subject=one["subject"],
            topic=one["topic"],
            grade=one["grade"],
        )
