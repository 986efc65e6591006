"""What a benchmark gives away without looking at the picture, and without any model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from siqvl.data.schema import Row
from siqvl.evaluation.metrics import exact_match


class Floors(BaseModel):
    """Scores of three guessers, in [0, 1]; None where the guesser cannot play."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    majority: float  # always the same answer
    question_only: float | None  # the most frequent training answer of the very same question
    random_choice: float | None  # one of the options, blindly


def floors(rows: list[Row], training: Iterable[Row] | None) -> Floors:
    """Floors of evaluation `rows`.

    With `training` rows the constant answer and the answer per question are learnt from them, as a
    guesser would. Without, the constant is the benchmark's own most frequent answer: no constant
    scores higher.
    """
    learnt: Counter[str] = Counter()
    by_question: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in training or ():
        learnt[row["answers"][0]] += 1
        by_question[row["question"]][row["answers"][0]] += 1
    constant = _most_frequent(learnt or Counter(row["answers"][0] for row in rows))
    return Floors(
        majority=_mean(exact_match(constant, row["answers"]) for row in rows),
        question_only=(
            _mean(
                exact_match(
                    _most_frequent(by_question.get(row["question"]) or learnt), row["answers"]
                )
                for row in rows
            )
            if learnt
            else None
        ),
        random_choice=(
            _mean(1 / len(row["choices"]) for row in rows)
            if all(row["choices"] for row in rows)
            else None
        ),
    )


def _most_frequent(answers: Counter[str]) -> str:
    """Ties go to the alphabetically first, so that a floor does not depend on row order."""
    return min(answers, key=lambda answer: (-answers[answer], answer))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
