"""What a benchmark gives away without looking at the picture, and without any model.

Three guessers answer every question, so that a model can be compared with them one by one:
`majority` always says the same; `question_only` reads the question with its options, and says what
was most often right for the very same one; `random_choice` takes one of the options blindly.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from siqvl.data.schema import Row
from siqvl.evaluation.scoring.meant_option import places_right
from siqvl.evaluation.scoring.scorers import Scorer
from siqvl.recipe import Player

Answered = list[tuple[str, float]]  # answer and score, one a question

#: Constants tried on a benchmark without training questions: its most frequent answers.
CANDIDATES = 20


def baseline_answers(
    rows: Sequence[Row], training: Iterable[Row] | None, scorer: Scorer
) -> dict[Player, Answered]:
    """Has each guesser that can play answer evaluation `rows`, in their order, and scores it.

    Args:
        rows: question, answers, choices and type of each.
        training: the same, but for types, of the training questions, from which `majority` and
            `question_only` learn. Without, `question_only` cannot play, and `majority` is told the
            one constant that scores highest on the benchmark itself.

    `random_choice` plays where every question has options; its score is the expected one, the mean
    over the options, and its answer is empty.
    """
    found: dict[Player, Answered] = {}
    learnt, by_question = _learnt(training or (), scorer)
    constant = _most_frequent(learnt) if learnt else _best_constant(rows, scorer)
    found["majority"] = [_judged(scorer, constant, row) for row in rows]
    if learnt:
        known = {question: _most_frequent(answers) for question, answers in by_question.items()}
        guesses = [
            _option(row, (by_question.get(row["question"]), learnt), scorer)
            or known.get(row["question"], constant)
            for row in rows
        ]
        found["question_only"] = [
            _judged(scorer, guess, row) for guess, row in zip(guesses, rows, strict=True)
        ]
    if all(row["choices"] for row in rows):
        found["random_choice"] = [("", _expected(scorer, row)) for row in rows]
    return found


def _learnt(
    training: Iterable[Row], scorer: Scorer
) -> tuple[Counter[str], dict[str, Counter[str]]]:
    """How often each answer is right: to any question, and to each."""
    overall: Counter[str] = Counter()
    by_question: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in training:
        for answer in _right(row, scorer):
            overall[answer] += 1
            by_question[row["question"]][answer] += 1
    return overall, by_question


def _right(row: Row, scorer: Scorer) -> list[str]:
    """The answer most annotators gave; where options are chosen, the option and its letter."""
    answer: str = Counter(row["answers"]).most_common(1)[0][0]
    if scorer.name != "choice":
        return [answer]
    places = sorted(places_right([answer], row["choices"]))
    return [row["choices"][places[0]], _by_letter(places[0])] if places else [answer]


def _option(row: Row, learnt: Iterable[Counter[str] | None], scorer: Scorer) -> str:
    """Of a row's options the one most often right, in the first counts that know any; or empty."""
    options = list(row["choices"])
    if scorer.name == "choice":
        options += [_by_letter(place) for place in range(len(options))]
    for counts in learnt:
        if possible := Counter({one: counts[one] for one in options if counts and counts[one]}):
            return _most_frequent(possible)
    return ""


def _best_constant(rows: Sequence[Row], scorer: Scorer) -> str:
    """Of the most frequent answers the one that scores highest."""
    counts = Counter(answer for row in rows for answer in _right(row, scorer))
    candidates = sorted(counts, key=lambda answer: (-counts[answer], answer))[:CANDIDATES]
    return max(candidates, key=lambda guess: sum(_score(scorer, guess, row) for row in rows))


def _by_letter(place: int) -> str:
    """A guess by letter, `(B)`: without brackets it would be the word of an option that is `B`."""
    return f"({ascii_uppercase[place]})"


def _judged(scorer: Scorer, guess: str, row: Row) -> tuple[str, float]:
    """What a guesser says, and its score, by the rule that a model's answer is judged by."""
    letter = re.fullmatch(r"\(([A-Z])\)", guess) if scorer.name == "choice" else None
    return letter[1] if letter else guess, _score(scorer, guess, row)


def _score(scorer: Scorer, guess: str, row: Row) -> float:
    return scorer.score(guess, row["answers"], row["choices"], type=row.get("type", ""))


def _expected(scorer: Scorer, row: Row) -> float:
    """The mean score of the options."""
    return sum(_score(scorer, choice, row) for choice in row["choices"]) / len(row["choices"])


def _most_frequent(answers: Counter[str]) -> str:
    """Ties go to the alphabetically first, so that a baseline does not depend on row order."""
    return min(answers, key=lambda answer: (-answers[answer], answer))
