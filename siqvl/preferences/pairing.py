"""Right completions of a question against wrong ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from siqvl.data.preparation.checks import CONTROL_TOKENS
from siqvl.data.schema import Row, preference_row
from siqvl.evaluation.scoring.extraction import extract_answer
from siqvl.evaluation.scoring.scorers import scorer
from siqvl.recipe import SampledPairs

if TYPE_CHECKING:
    from siqvl.generation.completions import Completion


@dataclass(frozen=True)
class Judged:
    """A completion, the answer it gives, and how right that is."""

    text: str
    ended: bool
    answer: str
    score: float  # in [0, 1]

    @property
    def right(self) -> bool:
        """Whether it may be chosen: fully right, and brought to its end."""
        return self.ended and self.score == 1

    @property
    def wrong(self) -> bool:
        """Whether it may be rejected: not even partly right."""
        return self.score == 0


def judge(completions: Sequence[Completion], question: Row, settings: SampledPairs) -> list[Judged]:
    """Scores the answers of a question's completions with the recipe's scorer."""
    scored = scorer(settings.scorer)
    judged = []
    for one in completions:
        answer = extract_answer(one.text, settings.answer_marker)
        score = scored.score(answer, question["answers"], question["choices"])
        judged.append(Judged(one.text, one.ended, answer, score))
    return judged


def draw_pairs(
    judged: Sequence[Judged], question: str, *, most: int, seed: int
) -> list[tuple[Judged, Judged]]:
    """Draws up to `most` pairs (chosen, rejected) of a question that differ in their texts.

    Every right sample is as likely to meet every wrong one, so what the model writes often is also
    paired often. Equal texts get equal scores and so never meet.

    Args:
        question: its id, which with the seed decides the draw.
    """
    right = [one for one in judged if one.right and _storable(one.text)]
    wrong = [one for one in judged if one.wrong and _storable(one.text)]
    meetings = list(product(right, wrong))
    random.Random(f"siqvl pairs/{seed}/{question}").shuffle(meetings)
    pairs: dict[tuple[str, str], tuple[Judged, Judged]] = {}
    for chosen, rejected in meetings:
        if len(pairs) == most:
            break
        pairs.setdefault((chosen.text, rejected.text), (chosen, rejected))
    return list(pairs.values())


def pair_row(
    question: Row, number: int, pair: tuple[Judged, Judged], settings: SampledPairs
) -> Row:
    """Makes the preference row of a pair; to the question's `meta` both sides' answers are added.

    Args:
        question: a stored evaluation row.
        number: of the pair among those of the question.
    """
    chosen, rejected = pair
    row = preference_row(
        f"{question['id']}/sampled-{number}",
        [image["bytes"] for image in question["images"]],
        question["question"] + settings.prompt_suffix,
        chosen.text,
        rejected.text,
        source=f"sampled {question['source']}",
    )
    about = json.loads(question["meta"]) | {
        "question": question["id"],
        "answers": question["answers"],
        "chosen_answer": chosen.answer,
        "rejected_answer": rejected.answer,
        "rejected_ended": rejected.ended,
    }
    return row | {"meta": json.dumps(about, sort_keys=True, ensure_ascii=False)}


def _storable(text: str) -> bool:
    """Whether prepared data can hold it as a completion; a model may write anything."""
    return bool(text.strip()) and not any(mark in text for mark in ("\0", *CONTROL_TOKENS))
