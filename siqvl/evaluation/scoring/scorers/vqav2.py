"""VQAv2's soft accuracy (Antol et al. 2015, arXiv:1505.00468; Goyal et al. 2017).

An answer that at least three annotators gave is right, `min(n / 3, 1)`; so that it can be compared
with a human's, this is averaged over the ten ways to leave one annotator out
(visualqa.org/evaluation).
"""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers.base import Scorer
from siqvl.evaluation.scoring.scorers.vqa_answer import normalise

ANNOTATORS = 10
AGREEING = 3


def soft_accuracy(prediction: str, answers: list[str]) -> float:
    """Computes the leave-one-out accuracy of a prediction.

    Args:
        answers: one of every annotator. Where some are missing they count as annotators who said
            something else, so that fewer than three agreeing ones cannot make an answer right.
    """
    given = normalise(prediction)
    agree = sum(normalise(answer) == given for answer in answers)
    everyone = max(len(answers), ANNOTATORS)
    # the annotator who is left out agreed `agree` times, and disagreed the other times
    total = agree * min((agree - 1) / AGREEING, 1.0) + (everyone - agree) * min(
        agree / AGREEING, 1.0
    )
    return total / everyone


def _judge(prediction: str, answers: list[str], choices: list[str]) -> float:
    return soft_accuracy(prediction, answers)


SCORER = Scorer("vqav2", 1, _judge)
