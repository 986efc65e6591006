"""MME (Fu et al. 2023, arXiv:2306.13394): two questions a picture, one of them answered by yes.

The rule is that of its `eval_tool/calculation.py`: the answer is `yes` where the first four
characters hold it, in any case, else `no` where they hold that, else neither. (So `not sure` is a
no, and `I say yes` is nothing.) A subtask's score is its accuracy and its accuracy+, the share of
pictures both of whose questions are right, each in per cent, added up: 200 at most. Perception has
ten subtasks, cognition four.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from siqvl.data.schema import Row
from siqvl.errors import UserError
from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

COGNITION = {
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
}


def said(prediction: str) -> str:
    """Reads `yes`, `no`, or nothing."""
    beginning = prediction.lower()[:4]
    return next((word for word in ("yes", "no") if word in beginning), "")


def _judge(prediction: str, reference: Reference) -> float:
    return float(said(prediction) == reference.answers[0].lower())


def _figures(lines: Sequence[Row]) -> dict[str, float]:
    """Scores of all, of perception, cognition and each subtask; and the share of whole pictures.

    Raises:
        UserError: a picture has not two questions.
    """
    subtasks: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for line in lines:
        subtasks[line["type"]][line["group"]].append(line["score"])
    scores: dict[str, float] = {}
    whole: list[bool] = []
    for name, pictures in sorted(subtasks.items()):
        for picture, pair in pictures.items():
            if len(pair) != 2:
                raise UserError(
                    f"scorer `mme` counts pairs of questions, but {len(pair)} of type `{name}` are "
                    f"of group `{picture}`: map `type` and `group` in the source's `columns`, and "
                    "take whole pairs"
                )
        both = [sum(pair) for pair in pictures.values()]
        scores[name] = 100 * (sum(both) / 2 + both.count(2)) / len(both)
        whole += [right == 2 for right in both]
    sums = {
        "cognition": sum(score for name, score in scores.items() if name in COGNITION),
        "perception": sum(score for name, score in scores.items() if name not in COGNITION),
    }
    plus = 100 * sum(whole) / len(whole)
    return {"total": sum(sums.values()), **sums, "accuracy+": plus, **scores}


SCORER = Scorer("mme", 1, _judge, figures=_figures)
